"""Folders that are one image: DICOM files, directly or in folders of studies and series."""

from pathlib import Path

from trivox.errors import FormatError
from trivox.volumes.dicom.signature import SUFFIXES, is_dicom
from trivox.volumes.formats import ARRAYS, ITK, NIFTI

_OTHERS = (*NIFTI, *ITK, *ARRAYS)
"""Images of other formats, beside which DICOM files are no series of their own."""
_LOOKED_AT = 5
"""Files of a folder that are opened; thousands would take seconds."""
_DEPTH = 5
"""Folders in each other, as archives export patients: patient, study, series."""
_FOLDERS = 100
"""Folders below one that are looked into."""


def is_dicom_folder(path: Path) -> bool:
    """Whether `path` is a folder that directly holds DICOM files, and no images of
    other formats; raises `FormatError` if it cannot be looked into.
    """
    if not path.is_dir():
        return False
    files = [file for file in _visible(path) if file.is_file()]
    if any(file.name.lower().endswith(_OTHERS) for file in files):
        return False
    likely = sorted(files, key=lambda file: file.suffix.lower() not in (*SUFFIXES, ""))
    return any(_is_dicom(file) for file in likely[:_LOOKED_AT])


def holds_dicom(path: Path) -> bool:
    """Whether `path` is a folder with DICOM files in it or in the folders below, and no
    images of other formats: what an archive exports of a patient.
    """
    below = [path]
    seen = 0
    while below and seen < _FOLDERS:
        folder = below.pop(0)
        seen += 1
        if is_dicom_folder(folder):
            return True
        if _holds_others(folder):
            return False
        if len(folder.relative_to(path).parts) < _DEPTH:
            below += [inner for inner in _visible(folder) if _is_below(inner)]
    return False


def is_dicom_file(path: Path) -> bool:
    """Whether it is a DICOM file, whatever its name."""
    return path.is_file() and is_dicom(path)


def _is_below(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _holds_others(folder: Path) -> bool:
    names = (file.name.lower() for file in _visible(folder))
    return any(name.endswith(_OTHERS) for name in names)


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(
            f"{folder}: cannot be opened ({error.strerror}); correct its rights"
        ) from error
    return [path for path in inside if not path.name.startswith(".")]


def _is_dicom(file: Path) -> bool:
    if file.suffix.lower() in SUFFIXES:
        return True
    try:
        with file.open("rb"):
            return is_dicom(file)
    except OSError as error:
        raise FormatError(
            f"{file}: cannot be opened ({error.strerror}); correct its rights"
        ) from error
