"""PNG, TIFF, JPEG and BMP: single pictures as volumes of one slice, and stacks of
pictures where their spacing is declared.

As in nnU-Net, a picture has pixels of 1 mm and is 999 mm deep, colours are channels, and
`CASE.json` beside `CASE.tif` or `CASE_0000.tif` may hold `{"spacing": [z, y, x]}`.
"""

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivox.errors import FormatError, GeometryError
from trivox.volumes.header import Header, require_size
from trivox.volumes.picture_names import SPACING, SUFFIXES
from trivox.volumes.picture_spacing import Pages, pages_of, spacing_beside
from trivox.volumes.volume import Array, Spacing, Volume

DEPTH = 999.0
"""mm, of a single picture."""
UNKNOWN = "spacing: pictures do not hold any; their pixels count as 1 x 1 mm"
PALETTE = (
    "palette: pixels are numbers of colours, as label maps have them, not their "
    "brightness; save images in grey or RGB"
)
_FORMATS = ("PNG", "TIFF", "JPEG", "BMP")
_MODES: dict[str, tuple[int, type[np.generic]]] = {
    "1": (1, np.uint8),
    "L": (1, np.uint8),
    "P": (1, np.uint8),
    "I;16": (1, np.uint16),
    "I;16B": (1, np.uint16),
    "I;16L": (1, np.uint16),
    "I": (1, np.int32),
    "F": (1, np.float32),
    "LA": (1, np.uint8),
    "RGB": (3, np.uint8),
    "RGBA": (3, np.uint8),
}
"""Channels and type by Pillow's mode; an alpha channel must be opaque."""
_SCALED = {"L;2": 85, "L;4": 17}
"""By how much Pillow multiplies values of few bits; they may be labels."""
_ORIENTATION = 0x112
"""The tag of EXIF and TIFF that says how a picture is to be turned when it is shown."""
_TURNED = range(2, 9)
_NUMBER = re.compile(r"\d+(?=\D*$)")


def header(path: Path) -> Header:
    """Shape, affine, channels and type; nothing is decoded."""
    if path.is_dir():
        return _stack_header(path)
    with _opened(path) as image:
        pages = pages_of(image)
        return _described(path, image, pages)


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read a picture, a TIFF of several pages, or a folder of numbered slices with
    `spacing.json`.

    The array is `(c, z, y, x)`; palettes give their indices. Raises `FormatError` for
    pages without a declared spacing, transparent pixels, colours of 16 bits and pictures
    that are to be turned.
    """
    if path.is_dir():
        return _read_stack(path, max_bytes=max_bytes)
    with _opened(path) as image:
        pages = pages_of(image)
        described = _described(path, image, pages)
        require_size(path, described, max_bytes=max_bytes)
        slices: list[Array] = []
        for page in range(pages.count):
            image.seek(page)
            slices.append(_channels(image, described.dtype))
    array = np.stack(slices, axis=1)  # (c, page, y, x)
    if pages.channels > 1:  # pages go through the channels first
        _, _, y, x = array.shape
        array = array[0].reshape(-1, pages.channels, y, x).swapaxes(0, 1)
    array = np.ascontiguousarray(array)
    return Volume(array, described.affine, described.remarks)


def write(path: Path, volume: Volume) -> None:
    """Write a label map of one slice as PNG of 8 or 16 bits."""
    array = volume.array
    flat = volume.channels == 1 and volume.shape[0] == 1
    if path.suffix.lower() != ".png" or not flat:
        raise FormatError(
            f"{path}: only one slice of one channel can be written as a picture, and "
            "only as .png; write .nii.gz"
        )
    if array.dtype not in (np.uint8, np.uint16):
        raise FormatError(
            f"{path}: a picture holds whole numbers from 0 to 65535; write .nii.gz"
        )
    Image.fromarray(array[0, 0]).save(path, format="PNG")


def _orientation(image: Any) -> Any:
    """How a picture is to be turned; None if it says nothing. Pillow's own way decodes
    the pixels of a PNG for it.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        tags = Image.Exif()
        with suppress(SyntaxError, ValueError, KeyError, TypeError, struct.error):
            tags.load(image.info.get("exif"))  # what is damaged says nothing
    return tags.get(_ORIENTATION)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on size, which is limited here
        with Image.open(path, formats=_FORMATS) as image:
            _require_as_shown(path, image)
            yield image


def _require_as_shown(path: Path, image: Any) -> None:
    """Raise for a picture that programs turn before they show it: its label map may be
    drawn on either.
    """
    orientation = _orientation(image)
    if orientation in _TURNED:
        raise FormatError(
            f"{path}: is to be turned when it is shown (EXIF orientation {orientation}); "
            "save it as it was labelled, without that"
        )


def _described(path: Path, image: Any, pages: Pages) -> Header:
    columns, rows = image.size
    channels, kind = _kind(image)
    spacing = spacing_beside(path) or pages.spacing
    remarks: tuple[str, ...] = ()
    slices = pages.count // pages.channels
    if spacing is None and slices > 1:
        raise FormatError(
            f"{path}: {slices} slices without a spacing; put it beside them as "
            f'{path.stem}.json: {{"spacing": [z, y, x]}} in mm'
        )
    if spacing is None:
        spacing = (DEPTH, 1.0, 1.0)
        remarks = (UNKNOWN,)
    if _has_colours_by_number(image):
        remarks += (PALETTE,)
    size = (slices, rows, columns)
    return Header(
        size, _affine(spacing), channels * pages.channels, np.dtype(kind), remarks
    )


def _kind(image: Any) -> tuple[int, type[np.generic]]:
    if image.mode not in _MODES:
        raise FormatError(
            f"pictures of mode {image.mode} are not read; save it in grey or RGB"
        )
    channels, kind = _MODES[image.mode]
    if channels == 3 and "16" in _raw_mode(image):
        raise FormatError(
            "colours of 16 bits are not read; save 8 bits, or each channel in grey"
        )
    return channels, kind


def _has_colours_by_number(image: Any) -> bool:
    """Whether numbers of a palette are no brightness."""
    if image.mode != "P":
        return False
    colours = image.getpalette("RGB") or []
    levels = np.arange(len(colours) // 3).repeat(3)
    return not np.array_equal(colours, levels)


def _raw_mode(image: Any) -> str:
    """How pixels lie in the file, in Pillow's words."""
    tile: Any = image.tile[0] if image.tile else ()
    details = tile[3] if len(tile) > 3 else ""
    return str(details[0] if isinstance(details, tuple) else details)


def _channels(image: Any, kind: np.dtype[Any]) -> Array:
    """The pixels `(c, y, x)`."""
    channels, _ = _kind(image)
    scale = _SCALED.get(_raw_mode(image), 1)
    values: NDArray[Any] = np.asarray(image)
    if values.ndim == 2:
        plane: Array = (values // scale if scale > 1 else values).astype(kind)
        return plane[None]
    if values.shape[2] > channels and (values[..., -1] != 255).any():
        raise FormatError("has transparent pixels; save it without transparency")
    return np.moveaxis(values[..., :channels], -1, 0).astype(kind)


def _affine(spacing: Spacing) -> NDArray[np.float64]:
    """Pictures are shown as a radiologist looks at slices: rows go to the patient's
    back, columns to the left.
    """
    z, y, x = spacing
    return np.diag([-x, -y, z, 1.0])


def slices_in(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the last number in their names.

    Raises `FormatError` unless the numbers follow each other.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        match = _NUMBER.search(path.stem)
        if match is None:
            raise FormatError(f"{path}: has no number in its name, as slices have")
        earlier = numbered.setdefault(int(match[0]), path)
        if earlier != path:
            raise FormatError(
                f"{folder}: {earlier.name} and {path.name} have one number; remove one"
            )
    numbers = sorted(numbered)
    if not numbers:
        raise FormatError(f"{folder}: no pictures beside {SPACING}")
    absent = set(range(numbers[0], numbers[-1])) - set(numbers)
    if absent:
        raise FormatError(
            f"{folder}: {len(absent)} slices are missing, the first is number "
            f"{min(absent)}; complete them"
        )
    return [numbered[number] for number in numbers]


def _stack_header(folder: Path) -> Header:
    files = slices_in(folder)
    spacing = spacing_beside(folder / SPACING, itself=True)
    if spacing is None:
        raise FormatError(
            f'{folder / SPACING}: holds no {{"spacing": [z, y, x]}} in mm; correct it'
        )
    with _opened(files[0]) as image:
        first = _described(files[0], image, Pages())
    size = (len(files), *first.shape[1:])
    return Header(size, _affine(spacing), first.channels, first.dtype)


def _read_stack(folder: Path, *, max_bytes: int) -> Volume:
    described = _stack_header(folder)
    require_size(folder, described, max_bytes=max_bytes)
    array = np.empty((described.channels, *described.shape), described.dtype)
    for z, file in enumerate(slices_in(folder)):
        with _opened(file) as image:
            if pages_of(image).count > 1:
                raise FormatError(f"{file}: is a stack itself; move it away")
            plane = _channels(image, described.dtype)
        if plane.shape != array[:, z].shape:
            raise GeometryError(
                f"{file}: is {plane.shape} (c, y, x), the first slice is "
                f"{array[:, z].shape}; move it away"
            )
        array[:, z] = plane
    return Volume(array, described.affine)
