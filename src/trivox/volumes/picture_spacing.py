"""What is known of the spacing of pictures: in a JSON file beside them, in the words of
ImageJ, in those of OME.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.errors import FormatError
from trivox.files import read_json
from trivox.volumes.volume import Spacing

_DESCRIPTION = 270
_X_RESOLUTION = 282
_Y_RESOLUTION = 283
_CHANNEL = re.compile(r"_\d{4}$")
_MILLIMETRES = {
    "mm": 1.0,
    "millimeter": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "nm": 1e-6,
    "um": 1e-3,
    "µm": 1e-3,
    "\\u00b5m": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
}
"""Of a unit, as ImageJ and OME write it."""


@dataclass(frozen=True)
class Pages:
    """What a file of several pictures says: how many there are, how many of them are
    channels of one slice (which follow each other), and the spacing in mm if known.
    """

    count: int = 1
    channels: int = 1
    spacing: Spacing | None = None


def pages_of(image: Any) -> Pages:
    """What a picture says of its pages; raises `FormatError` for series in time."""
    count = int(getattr(image, "n_frames", 1))
    tags = getattr(image, "tag_v2", None) or {}
    description = str(tags.get(_DESCRIPTION, ""))
    if description.startswith("ImageJ="):
        return _of_imagej(count, description, tags)
    if "<OME" in description:
        return _of_ome(count, description)
    return Pages(count)


def spacing_beside(path: Path, *, itself: bool = False) -> Spacing | None:
    """The spacing in `CASE.json` beside `CASE.tif` or `CASE_0000.tif`, mm `(z, y, x)`;
    None without. itself: `path` is the JSON file.

    Raises `FormatError` for a spacing that is not three numbers above 0.
    """
    names = [path.stem, _CHANNEL.sub("", path.stem)]
    files = [path] if itself else [path.with_name(f"{name}.json") for name in names]
    for file in files:
        content = read_json(file) if file.is_file() else None
        if isinstance(content, dict) and "spacing" in content:
            return _three(content["spacing"], file)
    return None


def _three(given: Any, file: Path) -> Spacing:
    try:
        z, y, x = (float(mm) for mm in given)
    except (TypeError, ValueError, OverflowError):
        z = y = x = 0.0
    if not all(0 < mm < float("inf") for mm in (z, y, x)):
        raise FormatError(
            f"{file}: 'spacing' must be three numbers above 0 (z, y, x in mm), found "
            f"{given!r:.60}; correct it there"
        )
    return z, y, x


def _of_imagej(count: int, description: str, tags: Any) -> Pages:
    pairs = (line.partition("=") for line in description.splitlines())
    words = {name.strip(): value.strip() for name, _, value in pairs}
    if int(_number(words.get("frames", "1"))) > 1:
        raise FormatError("is a series in time (ImageJ frames); save one time each")
    images = int(_number(words.get("images", "1")))
    if images not in (1, count):
        raise FormatError(
            f"says that it holds {images} pictures, and holds {count}; save it again"
        )
    channels = max(1, int(_number(words.get("channels", "1"))))
    if count % channels:
        raise FormatError(
            f"{count} pictures are not {channels} channels; save it again"
        )
    unit = _MILLIMETRES.get(words.get("unit", "").lower(), 0.0)
    depth = _number(words.get("spacing", "0"))
    across = [_number(tags.get(tag, 0)) for tag in (_Y_RESOLUTION, _X_RESOLUTION)]
    if not unit or not depth or not all(across):
        return Pages(count, channels)
    y, x = (unit / pixels for pixels in across)
    return Pages(count, channels, (unit * depth, y, x))


def _of_ome(count: int, description: str) -> Pages:
    times = _attribute(description, "SizeT")
    if _number(times or "1") > 1:
        raise FormatError("is a series in time (OME SizeT); save one time each")
    channels = int(_number(_attribute(description, "SizeC") or "1"))
    order = _attribute(description, "DimensionOrder")
    if channels > 1 and (count % channels or not order.startswith("XYC")):
        raise FormatError(
            f"is OME-TIFF of {channels} channels in the order {order}; save each channel "
            "as a file of its own"
        )
    sizes = [_ome_size(description, axis) for axis in "ZYX"]
    channels = channels if count > 1 else 1
    if not all(sizes):
        return Pages(count, channels)
    z, y, x = sizes
    return Pages(count, channels, (z, y, x))


def _ome_size(description: str, axis: str) -> float:
    """mm, 0 where it is not known; OME means micrometres where it names no unit."""
    size = _number(_attribute(description, f"PhysicalSize{axis}") or "0")
    unit = _attribute(description, f"PhysicalSize{axis}Unit") or "um"
    return size * _MILLIMETRES.get(unit, 0.0)


def _attribute(description: str, name: str) -> str:
    """The first value of an XML attribute, blank without; nothing else is parsed."""
    match = re.search(rf'\b{name}="([^"]{{0,60}})"', description)
    return match[1] if match else ""


def _number(value: Any) -> float:
    """A number above 0; 0 for all else."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if 0 < number < float("inf") else 0.0
