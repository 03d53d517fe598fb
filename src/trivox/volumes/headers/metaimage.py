"""Headers of MetaImage files (itk.org/Wiki/ITK/MetaIO/Documentation)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError
from trivox.volumes.headers.promise import Encoding, Promise
from trivox.volumes.headers.text import (
    MOST_BYTES,
    files_beside,
    numbers,
    unit_mm,
    whole_numbers,
)

Fields = dict[str, str]

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
ORIGINS = ("Offset", "Position", "Origin")
DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
"""Names that mean the same."""


def parse_metaimage(path: Path) -> Promise:
    """The promise of a `.mha` or `.mhd` file.

    Lines that say nothing about the image are left alone: ITK writes what else it knows
    of it between them. Raises `FormatError` for a header that is damaged, names files
    elsewhere, or whose image is not 3-D with one axis of channels.
    """
    fields, rest, data_start = _fields(path)
    dimension = _whole(fields, "NDims", count=1)[0]
    components = _whole(fields, "ElementNumberOfChannels", count=1, default="1")[0]
    sizes = _whole(fields, "DimSize", count=max(dimension, 0))
    if not 2 <= dimension <= 4 or (dimension == 4 and components != 1):
        raise FormatError(
            f"an image of size {sizes} with {components} components is not 3-D with "
            "channels; split it"
        )
    affine, remarks = _affine(fields, dimension)
    channel_axis = 3 if dimension == 4 else None
    if components != 1:
        sizes = [components, *sizes]
        channel_axis = 0
    files: tuple[Path, ...] = (path,)
    if fields["ElementDataFile"].upper() != "LOCAL":
        files = files_beside(path, fields["ElementDataFile"], rest)
        data_start = 0
    encoding = _encoding(fields)
    return Promise(
        sizes=tuple(sizes),
        channel_axis=channel_axis,
        dtype=_dtype(fields),
        encoding=encoding,
        files=files,
        offset=_offset(fields, data_start, encoding),
        affine=affine,
        remarks=tuple(remarks),
    )


def _fields(path: Path) -> tuple[Fields, list[str], int]:
    """The fields of a header, the lines after `ElementDataFile = LIST`, and where data
    in the same file begin.
    """
    fields: Fields = {}
    with path.open("rb") as file:
        while file.tell() < MOST_BYTES:
            line = file.readline(MOST_BYTES)
            name, sign, value = line.decode("utf-8", "surrogateescape").partition("=")
            if not line:
                break
            if sign:
                fields[name.strip()] = value.strip()
            if name.strip() != "ElementDataFile":
                continue
            _require_image(fields)
            start = file.tell()
            if not value.startswith("LIST", len(value) - len(value.lstrip())):
                return fields, [], start
            rest = file.read(MOST_BYTES).decode("utf-8", "surrogateescape")
            return fields, rest.splitlines(), start
    raise FormatError(
        "no MetaImage header (it names no ElementDataFile); check which program wrote "
        "the file"
    )


def _require_image(fields: Fields) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise FormatError(f"holds a {fields['ObjectType'][:40]}, not an image")
    if _number(fields, "HeaderSizePerSlice") not in (0, -1):
        raise FormatError("HeaderSizePerSlice is not supported; write .mha instead")


def _whole(
    fields: Fields, name: str, *, count: int, default: str | None = None
) -> list[int]:
    text = fields.get(name, default)
    if text is None:
        raise FormatError(f"the header has no {name}; it is damaged, copy it again")
    return whole_numbers(text, what=name, count=count)


def _number(fields: Fields, name: str) -> int:
    """A whole number, 0 where it is not given."""
    return _whole(fields, name, count=1, default="0")[0]


def _flag(fields: Fields, *names: str) -> bool:
    return any(fields.get(name, "")[:1] in ("T", "t", "1") for name in names)


def _encoding(fields: Fields) -> Encoding:
    if "BinaryData" in fields and not _flag(fields, "BinaryData"):
        return "text"
    return "zlib" if _flag(fields, "CompressedData") else "raw"


def _offset(fields: Fields, data_start: int, encoding: Encoding) -> int:
    """Where the data begin, -1 if they are the end of the file."""
    size = _number(fields, "HeaderSize")
    if size == -1 and encoding == "raw":
        return -1
    if size < 0 or (size and data_start):
        raise FormatError(
            f"HeaderSize holds {size}, which cannot be followed; repair the header"
        )
    return size or data_start


def _dtype(fields: Fields) -> np.dtype[np.generic]:
    name = fields.get("ElementType", "none")
    if name not in TYPES:
        raise FormatError(
            f"voxels of type '{name[:40]}' are not supported; convert the file to "
            "integers or real numbers"
        )
    big = _flag(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    order = ">" if big else "<"
    return np.dtype(TYPES[name]).newbyteorder(order)  # type: ignore[arg-type]


def _affine(fields: Fields, dimension: int) -> tuple[NDArray[np.float64], list[str]]:
    """The affine to RAS mm, and a remark on a unit that is not known."""
    spatial = min(dimension, 3)
    spacing = _vector(fields, ("ElementSpacing", "ElementSize"), dimension, 1.0)
    origin = _vector(fields, ORIGINS, dimension, 0.0)
    identity = np.eye(dimension).ravel().tolist()
    matrix = next((fields[name] for name in DIRECTIONS if name in fields), None)
    if matrix is not None:
        identity = numbers(matrix, what="TransformMatrix", count=dimension**2)
    # a row for each axis of the image
    directions = np.array(identity).reshape(dimension, dimension)
    length = unit_mm([fields.get("DistanceUnits", "")])
    remarks = []
    if length is None:
        unit = fields["DistanceUnits"][:40]
        remarks.append(f"unknown unit: DistanceUnits holds '{unit}'; taken for mm")
    scale = LPS_TO_RAS * (length or 1.0)
    step = np.eye(3)
    step[:spatial, :spatial] = directions[:spatial, :spatial].T * spacing[:spatial]
    place = np.zeros(3)
    place[:spatial] = origin[:spatial]
    affine = np.eye(4)
    affine[:3, :3] = step * scale[:, None]
    affine[:3, 3] = place * scale
    return affine, remarks


def _vector(
    fields: Fields, names: tuple[str, ...], count: int, default: float
) -> NDArray[np.float64]:
    """Numbers under the first of some names that is there."""
    for name in names:
        if name in fields:
            return np.array(numbers(fields[name], what=name, count=count))
    return np.full(count, default)
