"""What the header of an NRRD file says of segments, as 3D Slicer writes it."""

import re
from pathlib import Path

from trivox.volumes.headers.text import MOST_BYTES

SUFFIXES = (".nrrd", ".nhdr")
_FIELD = re.compile(r"Segment(\d{1,6})_(ID|Name|LabelValue|Layer):=(.*)")
_END = re.compile(rb"\r?\n\r?\n")
_MOST = 2**16
"""Segments that a file may list."""


def is_slicer(path: Path) -> bool:
    """Whether a file is NRRD that names segments."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    return bool(segment_fields(path))


def segment_fields(path: Path) -> dict[int, dict[str, str]]:
    """The fields of each segment, by its number in the header."""
    with path.open("rb") as file:
        head = file.read(MOST_BYTES)
    end = _END.search(head)
    lines = head[: len(head) if end is None else end.start()]
    listed: dict[int, dict[str, str]] = {}
    for line in lines.decode("utf-8", "replace").splitlines():
        match = _FIELD.fullmatch(line.rstrip("\r"))
        if match and len(listed) < _MOST:
            number, field, value = match.groups()
            listed.setdefault(int(number), {})[field] = value.replace("\\n", " ")
    return dict(sorted(listed.items()))
