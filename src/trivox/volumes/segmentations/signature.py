"""Whether a file marks segments, seen from its first bytes; needs no DICOM package."""

from pathlib import Path

from trivox.volumes.dicom.signature import is_dicom
from trivox.volumes.segmentations.slicer_fields import is_slicer

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_BEGINNING = 2**11
"""Bytes in which a DICOM file names its class."""
_CLASS_TAGS = (
    (b"\x02\x00\x02\x00UI", 2),
    (b"\x08\x00\x16\x00UI", 2),
    (b"\x08\x00\x16\x00", 4),
)
"""Of the header, of the object, and of an object without value representations: the
element, and how far behind it its value begins.
"""


def is_segmentation(path: Path) -> bool:
    """Whether a file is DICOM SEG, RTSTRUCT or a segmentation of 3D Slicer, seen from
    its first bytes.
    """
    if not path.is_file():
        return False
    return is_dicom_segmentation(path) or is_slicer(path)


def segmentation_in(path: Path) -> Path:
    """The only file of a folder that is a DICOM SEG or RTSTRUCT, as archives export
    them; a path that is something else as it is.
    """
    if not path.is_dir():
        return path
    files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
    if len(files) == 1 and is_dicom_segmentation(files[0]):
        return files[0]
    return path


def is_dicom_segmentation(path: Path) -> bool:
    """Whether a file is DICOM SEG or RTSTRUCT."""
    return class_in(path) in (*SEG_CLASSES, RTSTRUCT_CLASS)


def class_in(path: Path) -> str:
    """The class UID at the beginning of a DICOM file; blank for other files."""
    if not is_dicom(path):
        return ""
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    for tag, start in _CLASS_TAGS:
        _, there, after = beginning.partition(tag)
        if there:
            length = int.from_bytes(after[start - 2 : start], "little")
            return (
                after[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
            )
    return ""


def folded(name: str) -> str:
    """A segment's name without what writing varies: capitals, blanks, underscores,
    hyphens.
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
