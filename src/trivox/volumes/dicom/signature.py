"""Whether a file is DICOM, seen from its first bytes; needs no DICOM package."""

import struct
from pathlib import Path

SUFFIXES = (".dcm", ".ima")
"""That DICOM files may have; many have none."""
_PREAMBLE = 128
_MAGIC = b"DICM"
_SEEN = 512
"""Bytes that are looked at."""
_FIRST_GROUPS = (2, 8)
_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
)
_LONG = frozenset(b"OB OW SQ UN UT".split())
"""Value representations whose length takes four bytes, after two that are reserved."""


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM files do: 128 bytes, then DICM; or, as old
    archives write it, with its first elements. Pipes and devices are none.
    """
    if not path.is_file():
        return False  # a pipe would be waited for
    try:
        with path.open("rb") as file:
            beginning = file.read(_SEEN)
    except OSError:
        return False
    return _has_preamble(beginning) or begins_bare(beginning)


def _has_preamble(beginning: bytes) -> bool:
    return beginning[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


def is_bare(path: Path) -> bool:
    """Whether a DICOM file lacks the 128 bytes and DICM."""
    with path.open("rb") as file:
        return not _has_preamble(file.read(_SEEN))


def begins_bare(beginning: bytes) -> bool:
    """Whether bytes begin with two elements of group 2 or 8, the second after the first
    as the standard orders them.
    """
    return any(_two_elements(beginning, order) for order in "<>")


def _two_elements(beginning: bytes, order: str) -> bool:
    if len(beginning) < _SEEN // 8:
        return False
    first = struct.unpack_from(f"{order}2H", beginning)
    if first[0] not in _FIRST_GROUPS or first[1] > 0x20:
        return False
    start = _end_of_element(beginning, order)
    if start + 8 > len(beginning):
        return False
    second = struct.unpack_from(f"{order}2H", beginning, start)
    return second > first and second[0] in (*_FIRST_GROUPS, 16)


def _end_of_element(beginning: bytes, order: str) -> int:
    """Where the second element begins."""
    kind = beginning[4:6]
    if kind in _LONG:
        return 12 + int(struct.unpack_from(f"{order}I", beginning, 8)[0])
    if kind in _REPRESENTATIONS:
        return 8 + int(struct.unpack_from(f"{order}H", beginning, 6)[0])
    return 8 + int(struct.unpack_from(f"{order}I", beginning, 4)[0])
