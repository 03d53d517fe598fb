"""Headers of NRRD files (teem.sourceforge.net/nrrd/format.html)."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.headers.promise import Encoding, Promise
from trivox.volumes.headers.text import (
    MOST_BYTES,
    files_beside,
    numbers,
    unit_mm,
    whole_numbers,
)

Fields = dict[str, str]

ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
    "txt": "text",
    "text": "text",
    "ascii": "text",
}
TO_RAS = {
    "RAS": (1, 1, 1),
    "LAS": (-1, 1, 1),
    "LPS": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
"""Signs that turn coordinates of a space into RAS."""
OTHER_SPACES = ("scanner-xyz", "3D-right-handed", "3D-left-handed")
SPATIAL = ("domain", "space", "???", "none", "")
"""Kinds of axes that may be ones in space; all others hold channels."""
NOT_CHANNELS = ("complex", "2d-masked-symmetric-matrix", "3d-masked-symmetric-matrix")
"""Kinds whose components are no channels."""
OTHER_NAMES = {
    "oldmin": "old min",
    "oldmax": "old max",
    "datafile": "data file",
    "byteskip": "byte skip",
    "lineskip": "line skip",
    "blocksize": "block size",
    "sampleunits": "sample units",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "centers": "centerings",
}
FIELDS = frozenset(
    (
        *("type", "dimension", "sizes", "encoding", "endian", "data file", "byte skip"),
        *("line skip", "space", "space dimension", "space directions", "space origin"),
        *("space units", "spacings", "units", "kinds", "axis mins", "centerings"),
        # that say nothing about values or places
        *("content", "number", "labels", "thicknesses", "min", "max", "old min"),
        *("old max", "sample units", "block size", "axis maxs", "measurement frame"),
    )
)
"""All that may stand in a header."""
VECTOR = re.compile(r"\(([^()]*)\)|none", re.IGNORECASE)

NAMES_OF_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, "
    "signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}


def parse_nrrd(path: Path) -> Promise:
    """The promise of a `.nrrd` or `.nhdr` file.

    Raises `FormatError` for a header that is damaged, names files elsewhere, or whose
    image is not 3-D with one axis of channels.
    """
    fields, rest, data_start = _fields(path)
    dimension = whole_numbers(_get(fields, "dimension"), what="dimension", count=1)[0]
    if not 1 <= dimension <= 16:
        raise FormatError(f"dimension holds {dimension}; the header is damaged")
    sizes = whole_numbers(_get(fields, "sizes"), what="sizes", count=dimension)
    affine, channel_axis, remarks = _placing(fields, sizes)
    files: tuple[Path, ...] = (path,)
    if "data file" in fields:
        data_start = 0
        files = files_beside(path, fields["data file"], rest)
    encoding = _encoding(fields)
    offset, skipped, lines = _skips(fields, data_start, encoding)
    return Promise(
        sizes=tuple(sizes),
        channel_axis=channel_axis,
        dtype=_dtype(fields, encoding),
        encoding=encoding,
        files=files,
        offset=offset,
        skipped=skipped,
        lines=lines,
        affine=affine,
        remarks=tuple(remarks),
    )


def _fields(path: Path) -> tuple[Fields, list[str], int]:
    """The fields of a header, the lines after `data file: LIST`, and where its data
    begin.
    """
    with path.open("rb") as file:
        head = file.read(MOST_BYTES)
    if not re.match(rb"NRRD000[1-5]\r?\n", head):
        raise FormatError("not an NRRD file; check which program wrote it")
    end = re.search(rb"\r?\n\r?\n", head)
    stop = len(head) if end is None else end.start()
    lines = head[:stop].decode("utf-8", "surrogateescape").splitlines()[1:]
    fields: Fields = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#") or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        name = OTHER_NAMES.get(name.strip().lower(), name.strip().lower())
        if not colon or name not in FIELDS or name in fields:
            raise FormatError(
                f"line {number + 1} of the header, '{line[:60]}', is no field of NRRD "
                "or a second one; the header is damaged"
            )
        fields[name] = value.strip()
        if name == "data file" and value.split()[:1] == ["LIST"]:
            return fields, lines[number:], 0
    if end is None and "data file" not in fields:
        raise FormatError(
            "the header has no end and names no data file; it is damaged, copy it again"
        )
    return fields, [], len(head) if end is None else end.end()


def _get(fields: Fields, name: str) -> str:
    if name not in fields:
        raise FormatError(f"the header has no '{name}'; it is damaged, copy it again")
    return fields[name]


def _encoding(fields: Fields) -> Encoding:
    name = _get(fields, "encoding").lower()
    if name not in ENCODINGS:
        raise FormatError(
            f"encoding '{name[:40]}' is not supported; save the file as raw or gzip"
        )
    return ENCODINGS[name]


def _dtype(fields: Fields, encoding: Encoding) -> np.dtype[np.generic]:
    name = " ".join(_get(fields, "type").lower().split())
    kinds = [
        kind for kind, names in NAMES_OF_TYPES.items() if name in names.split(", ")
    ]
    if not kinds:
        raise FormatError(
            f"voxels of type '{name[:40]}' are not supported; convert the file to "
            "integers or real numbers"
        )
    dtype = np.dtype(kinds[0])
    if dtype.itemsize == 1 or encoding == "text":
        return dtype
    order = {"little": "<", "big": ">"}.get(_get(fields, "endian").lower())
    if order is None:
        raise FormatError(
            f"endian holds '{fields['endian'][:40]}', not little or big; repair the "
            "header"
        )
    return dtype.newbyteorder(order)  # type: ignore[arg-type]


def _skips(fields: Fields, data_start: int, encoding: Encoding) -> tuple[int, int, int]:
    """Where the data begin, bytes to skip after decoding, and lines to skip before."""
    bytes_ = whole_numbers(fields.get("byte skip", "0"), what="byte skip", count=1)[0]
    lines = whole_numbers(fields.get("line skip", "0"), what="line skip", count=1)[0]
    if bytes_ < -1 or not 0 <= lines <= 2**16 or (bytes_ and encoding == "text"):
        raise FormatError(
            f"byte skip {bytes_} and line skip {lines} cannot be followed; repair the "
            "header"
        )
    if bytes_ == -1:
        if encoding != "raw":
            raise FormatError("byte skip -1 is for raw data alone; repair the header")
        return -1, 0, 0
    return data_start, bytes_, lines


def _placing(
    fields: Fields, sizes: list[int]
) -> tuple[NDArray[np.float64], int | None, list[str]]:
    """The affine to RAS mm, the axis of channels, and remarks."""
    spatial = _axes_by_kind(fields, len(sizes))
    if "space" in fields or "space dimension" in fields:
        steps, origin, remarks = _in_space(fields, len(sizes))
    else:
        steps, origin, remarks = _without_space(fields, spatial, len(sizes))
    spatial = [axis for axis, step in enumerate(steps) if step is not None]
    others = [axis for axis, step in enumerate(steps) if step is None]
    if len(spatial) not in (2, 3) or len(others) > 1:
        raise FormatError(
            f"an image of size {sizes} with {len(spatial)} axes in space is not 3-D "
            "with channels; split it"
        )
    affine = np.eye(4)
    affine[:3, : len(spatial)] = np.array([steps[axis] for axis in spatial]).T
    if len(spatial) == 2:
        affine[:3, 2] = _across(affine)
    affine[:3, 3] = origin
    return affine, others[0] if others else None, remarks


def _across(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """A step of 1 mm out of the plane of the first two axes, towards S (else A, R)."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = float(np.linalg.norm(normal))
    if length < 1e-12:
        raise GeometryError("the axes of the grid are parallel; repair the header")
    most = int(np.argmax(np.abs(normal)))
    return np.asarray(normal / length * np.sign(normal[most]))


Steps = list[NDArray[np.float64] | None]


def _in_space(
    fields: Fields, axes: int
) -> tuple[Steps, NDArray[np.float64], list[str]]:
    """The step of each axis in RAS mm, None of those that are not in space."""
    space = fields.get("space", "")
    name = space.removesuffix("-time") if "-" in space else space.removesuffix("T")
    known = {key.lower(): signs for key, signs in TO_RAS.items()}
    remarks = []
    signs = known.get(name.lower())
    if signs is None:
        if space and name.lower() not in [other.lower() for other in OTHER_SPACES]:
            raise FormatError(f"space '{space[:40]}' is not known; repair the header")
        signs = TO_RAS["LPS"]
        remarks.append(
            f"space '{space or 'without a name'}' does not say where right and "
            "left are: taken for left-posterior-superior, as ITK does"
        )
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    length = unit_mm(units[:3])
    if length is None:
        remarks.append(f"unknown unit: space units are {units[:3]}; taken for mm")
    scale = np.array(signs) * (length or 1.0)
    steps: Steps = []
    for match in VECTOR.finditer(_get(fields, "space directions")):
        steps.append(None if match[1] is None else _step(match[1], scale))
    if len(steps) != axes:
        raise FormatError(
            f"space directions has {len(steps)} axes where there are {axes}; the "
            "header is damaged"
        )
    origin = fields.get("space origin", "(0,0,0)").strip("() ")
    return steps, np.array(_vector(origin, "space origin")[:3]) * scale, remarks


def _step(text: str, scale: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """A step in RAS mm; None of the axis of time, which is the fourth."""
    values = _vector(text, "space directions")
    if len(values) == 4 and not any(values[:3]):
        return None
    return np.array(values[:3]) * scale


def _vector(text: str, what: str) -> list[float]:
    """The numbers of a vector in space, or in space and time."""
    values = numbers(text.replace(",", " "), what=what)
    if len(values) not in (3, 4):
        raise FormatError(
            f"{what} holds ({text[:40]}), no vector of 3 numbers; repair the header"
        )
    return values


def _without_space(
    fields: Fields, spatial: list[int], axes: int
) -> tuple[Steps, NDArray[np.float64], list[str]]:
    """Axes along L, P and S, with the spacings and beginnings that are given."""
    units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    length = unit_mm([units[axis] for axis in spatial if axis < len(units)]) or 1.0
    spacings = _per_axis(fields, "spacings", axes)
    starts = _per_axis(fields, "axis mins", axes)
    centres = fields.get("centerings", "").split()
    steps: Steps = [None] * axes
    origin = np.zeros(3)
    for world, axis in enumerate(spatial[:3]):
        length_mm = TO_RAS["LPS"][world] * length
        spacing = spacings[axis]
        start = starts[axis]
        step = np.zeros(3)
        step[world] = length_mm * (1.0 if spacing is None else spacing)
        steps[axis] = step
        if start is not None and spacing is not None:
            inset = 0.0 if centres[axis : axis + 1] == ["node"] else spacing / 2
            origin[world] = length_mm * (start + inset)
    return steps, origin, []


def _axes_by_kind(fields: Fields, axes: int) -> list[int]:
    """Which axes may be ones in space; without other signs, the last of four is not."""
    kinds = fields.get("kinds", "").split() or [""] * axes
    if len(kinds) != axes:
        raise FormatError(
            f"kinds names {len(kinds)} axes where there are {axes}; the header is "
            "damaged"
        )
    if any(kind.lower() in NOT_CHANNELS for kind in kinds):
        raise FormatError(
            f"holds complex numbers or masked matrices (kinds {kinds}); convert the file "
            "to real numbers"
        )
    spatial = [axis for axis, kind in enumerate(kinds) if kind.lower() in SPATIAL]
    return spatial[:3] if axes == 4 else spatial


def _per_axis(fields: Fields, name: str, axes: int) -> list[float | None]:
    """A number for each axis, None where it is `nan` or not given."""
    if name not in fields:
        return [None] * axes
    values: list[float | None] = []
    for word in fields[name].split():
        nothing = word.lower() in ("nan", "none", "???")
        values.append(None if nothing else numbers(word, what=name)[0])
    if len(values) != axes:
        raise FormatError(
            f"{name} holds {len(values)} numbers where {axes} belong; the header is "
            "damaged"
        )
    return values
