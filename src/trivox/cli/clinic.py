"""Commands of hospitals."""

from pathlib import Path
from typing import Annotated

from trivox.cli.options import argument, option
from trivox.cli.terminal import Terminal


def deidentify(
    dicom: Annotated[list[Path], argument("deidentify", "dicom")],
    out: Annotated[Path, option("deidentify", "out")],
    key: Annotated[Path, option("deidentify", "key")],
    keep_dates: Annotated[bool, option("deidentify", "keep_dates")] = False,
    shift_dates: Annotated[bool, option("deidentify", "shift_dates")] = False,
) -> None:
    """Write DICOM objects and scans anew, with nothing that names the person."""
    from trivox.verbs.clinic.deidentify import deidentify as run

    run(
        dicom,
        out,
        key,
        keep_dates=keep_dates,
        shift_dates=shift_dates,
        console=Terminal(),
    )
