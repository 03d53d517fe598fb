"""A NIfTI, NRRD or MetaImage file without the person: voxels and grid as they are, a
new header, a new name.
"""

import re
from pathlib import Path

from trivox.privacy.key import Key
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
ENDING = ".nii.gz"
PARTS = re.compile(
    r"(.*?)((?:[_-](?:\d{4}|seg|mask|label|labels|t1|t1c|t1ce|t1gd|t1n|t2|t2w|t2f|flair|"
    r"ct|mr|pet|adc|dwi|hbv|cc))?)",
    re.IGNORECASE,
)
"""The name of a case, and what tells its files apart."""
FOLDERS = frozenset(
    [
        "images",
        "labels",
        "imagestr",
        "labelstr",
        "imagests",
        "labelsts",
        "imagesva",
        "labelsva",
        "train",
        "test",
        "val",
        "validation",
        "masks",
        "mask",
        "scans",
        "raw",
        "data",
        "nifti",
    ]
)
"""Names of folders that say nothing of a person."""


def is_scan(file: Path) -> bool:
    """Whether a file is one by its name."""
    return file.name.lower().endswith(SUFFIXES)


def scan_name(file: Path, key: Key) -> str:
    """A name that says nothing of the person: files of one case keep one, with what
    tells them apart.
    """
    ending = next(end for end in SUFFIXES if file.name.lower().endswith(end))
    stem = file.name[: -len(ending)]
    case, part = _split(stem)
    return f"case_{key.name('case', case)}{part}{ENDING}"


def folder_name(name: str, key: Key) -> str:
    """Usual names of folders stay."""
    return name if name.lower() in FOLDERS else key.name("folder", name)


def _split(stem: str) -> tuple[str, str]:
    match = PARTS.fullmatch(stem)
    assert match is not None, "takes any text"
    case = match[1]
    return (case, match[2]) if case else (stem, "")


def write_cleaned(file: Path, out: Path) -> None:
    """The voxels and the grid of a file as `.nii.gz`, and nothing else of it; raises
    what `read_volume` and `write_volume` do.
    """
    volume = read_volume(file)
    write_volume(out, Volume(volume.array, volume.affine, unit_mm=volume.unit_mm))
