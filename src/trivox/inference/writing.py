"""Write: the files of a prediction and their names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

ENDING = ".nii.gz"
OBJECTS = ("seg", "rtstruct", "sr")
"""What DICOM objects about a case are called beside its map: `CASE.seg.dcm`."""

Record = dict[str, Any]
"""What stands in `predictions.json` about a case."""


def file_names(case: str, extras: Iterable[str] = ()) -> list[str]:
    """Names of the map of a case and of what stands beside it."""
    return [f"{case}{ENDING}", *(f"{case}_{extra}{ENDING}" for extra in extras)]


def write_prediction(
    out: Path, case: str, volume: Volume, extras: Mapping[str, Volume]
) -> str:
    """Write `out/CASE.nii.gz` and `out/CASE_<extra>.nii.gz`; returns the name of the
    first, which is written last.
    """
    name, *others = file_names(case, extras)
    for other, extra in zip(others, extras.values(), strict=True):
        write_volume(out / other, extra)
    write_volume(out / name, volume)
    return name
