"""What can be wrong with a DICOM object: an element that is missing, doubled, odd, or of
another kind; a sequence that is too long, empty, or holds itself again and again.
"""

import copy
import io
import random
import warnings
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

Random = random.Random
NUMBERS = (0, 1, -1, 2, 3, 255, 256, 4096, 65535, 2**31 - 1, -(2**31), 2**32 - 1)
REALS = ("0", "-1", "1e-30", "1e30", "1e308", "nan", "inf", "-inf", "1\\2", "", "x")
WORDS = (
    "",
    " ",
    "1.2.3",
    "SEG",
    "RTSTRUCT",
    "BINARY",
    "LABELMAP",
    "é" * 20,
    "\\",
    "\x1b[2J",
)
NESTED = 12
"""Sequences in each other."""
MANY = 100
"""Items of a sequence that is too long."""


def of_dicom(data: bytes, rng: Random) -> bytes:
    """One or a few elements are odd, the rest is written as it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _alter(dataset, rng)
        if rng.random() < 0.1:
            other = rng.choice((DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian))
            dataset.file_meta.TransferSyntaxUID = other
        written = io.BytesIO()
        dataset.save_as(written, enforce_file_format=False)
    return written.getvalue()


def _alter(dataset: Dataset, rng: Random) -> None:
    holder, element = rng.choice(list(_elements(dataset)))
    kind = rng.random()
    if kind < 0.2:
        del holder[element.tag]
    elif element.VR == "SQ":
        _alter_sequence(holder, element, rng)
    elif kind < 0.9:
        _odd_value(element, rng)
    else:
        other, source = rng.choice(list(_elements(dataset)))
        del other
        holder[element.tag] = copy.deepcopy(source)


def _elements(dataset: Dataset) -> Any:
    """All elements, those of items as well, each with the dataset that holds it."""
    for element in dataset:
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _alter_sequence(holder: Dataset, element: Any, rng: Random) -> None:
    items = list(element.value)
    kind = rng.randrange(6)
    if kind == 0:
        items = []
    elif kind == 1 and items:
        items = items * rng.choice((2, MANY // len(items) + 1))
    elif kind == 2:
        items = items[:-1]
    elif kind == 3:
        items.insert(0, Dataset())
    elif kind == 4:
        rng.shuffle(items)
    else:
        inner = Dataset()
        for _ in range(rng.choice((3, NESTED))):
            outer = Dataset()
            outer.add_new(element.tag, "SQ", [inner])
            inner = outer
        items = [*items, inner]
    holder.add_new(element.tag, "SQ", items)


def _odd_value(element: Any, rng: Random) -> None:
    """Another value, written as it is given: no check of pydicom's is in the way."""
    if element.VR in ("OB", "OW", "UN"):
        value: object = _bytes(element.value or b"", rng)
    elif element.VR in ("US", "UL", "SS", "SL", "AT"):
        value = _number(element.VR, rng)
    elif element.VR in ("FL", "FD"):
        value = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    elif element.VR in ("DS", "IS"):
        element.VR = "LO"  # the same bytes, without being read as a number
        value = rng.choice((*REALS, *map(str, NUMBERS)))
    else:
        value = rng.choice(WORDS)
    try:
        element.value = value
    except (ValueError, TypeError, OverflowError):
        element.clear()


def _number(kind: str, rng: Random) -> int:
    bits = 16 if kind in ("US", "SS") else 32
    value = rng.choice(NUMBERS)
    if kind.startswith("S"):
        limit = 2 ** (bits - 1)
        return max(-limit, min(limit - 1, value))
    return abs(value) % 2**bits


def _bytes(value: bytes, rng: Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return value[: rng.randrange(len(value) + 1) // 2 * 2]
    if kind == 1:
        return value * rng.choice((2, 50))
    if kind == 2:
        return bytes(rng.randrange(256) for _ in range(len(value)))
    return b""
