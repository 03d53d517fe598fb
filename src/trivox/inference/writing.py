"""Write: the files of a prediction, their names, and the removal of those that are no
longer true.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trivox.inference.doubt.kinds import EXTRAS
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

ENDING = ".nii.gz"

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

    What an earlier prediction left of the case is removed before: none of its maps
    stands beside this one.
    """
    remove_prediction(out, case)
    name, *others = file_names(case, extras)
    for other, extra in zip(others, extras.values(), strict=True):
        write_volume(out / other, extra)
    write_volume(out / name, volume)
    return name


def remove_prediction(out: Path, case: str) -> None:
    """Remove all maps of a case."""
    for name in file_names(case, EXTRAS):
        (out / name).unlink(missing_ok=True)
