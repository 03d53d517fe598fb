"""How many elements a DICOM object consists of, counted without building any of them.

Each becomes some hundred bytes of memory, and each item of a sequence a thousand, for
the eight bytes that it takes in a file.
"""

import struct
from typing import Final

from trivox.errors import FormatError

WORTH_COUNTING = 2**21
"""Bytes from which on elements are counted; below, they cannot fill a memory."""
MOST_ITEMS = 1_000_000
MOST_ELEMENTS = 8_000_000
"""That an object may hold; those of 20,000 frames stay far below."""
_DELIMITERS: Final = 0xFFFE
_PIXELS = (0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes four bytes, after two that are reserved."""


def require_countable(
    content: bytes | memoryview, start: int, *, implicit: bool, little: bool
) -> None:
    """Raise `FormatError` for more elements than are read, up to the pixels.

    start: of the first element in `content`; sequences are walked through, so that
    those in each other count as well.
    """
    if len(content) - start < WORTH_COUNTING:
        return
    order = "<" if little else ">"
    items = 0
    elements = 0
    end = len(content)
    tag = struct.Struct(f"{order}HH")
    length = struct.Struct(f"{order}I")
    short = struct.Struct(f"{order}H")
    while start + 8 <= end:
        group, element = tag.unpack_from(content, start)
        elements += 1
        if group == _DELIMITERS:
            items += 1
            start += 8
        elif (group, element) == _PIXELS:
            return
        else:
            start = _after(content, start, implicit, length, short)
        if items > MOST_ITEMS or elements > MOST_ELEMENTS:
            raise FormatError(
                f"holds more than {MOST_ITEMS} items of sequences, or "
                f"{MOST_ELEMENTS} elements, as no image or segmentation does; it is "
                "damaged, export it again"
            )


def _after(
    content: bytes | memoryview,
    start: int,
    implicit: bool,
    length: struct.Struct,
    short: struct.Struct,
) -> int:
    """Where the element after that at `start` begins: of a sequence, its first item."""
    kind = b"" if implicit else bytes(content[start + 4 : start + 6])
    header = 8
    if implicit:
        (size,) = length.unpack_from(content, start + 4)
    elif kind in _LONG:
        if start + 12 > len(content):
            return len(content)
        header = 12
        (size,) = length.unpack_from(content, start + 8)
    else:
        (size,) = short.unpack_from(content, start + 6)
    opens = kind == b"SQ" or size == _UNDEFINED
    if implicit and not opens:
        opens = bytes(content[start + 8 : start + 12]) == b"\xfe\xff\x00\xe0"
    return start + header + (0 if opens else size)
