"""What a file says about its volume, and how a reader fails: the part that all formats
share.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError, ResourceError, TrivoxError
from trivox.volumes.volume import Shape, Volume, spacing_of

MAX_BYTES = 16 * 2**30
"""What a file may ask for at most, unless the caller allows more."""
WORTH_A_LOOK = 2**28
"""Bytes from which on it is asked how many are free."""

FINEST_MM = 0.005
COARSEST_MM = 100.0
LONGEST_MM = 10_000.0
"""Edges of voxels that scanners make, and what no scanner is as long as."""


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says about its volume before any voxel is read.

    shape: voxels `(z, y, x)`; affine: 4x4, voxel index `(x, y, z, 1)` to RAS mm; dtype:
    that of the array that `read_volume` returns; remarks: what its reader has to say,
    a sentence each that begins with its subject and a colon.
    """

    shape: Shape
    affine: NDArray[np.float64]
    channels: int
    dtype: np.dtype[Any]
    remarks: tuple[str, ...] = ()

    @property
    def grid(self) -> Volume:
        """Where the voxels lie; a volume `(1, z, y, x)` of a single broadcast value."""
        nothing = np.broadcast_to(np.uint8(0), (1, *self.shape))
        return Volume(nothing, self.affine)


def about_spacing(shape: Shape, affine: NDArray[np.float64]) -> tuple[str, ...]:
    """A remark on voxels `(z, y, x)` that no scanner makes; raises `GeometryError`
    where they add up to more than a scanner holds. Axes of a single voxel say nothing.
    """
    spacing = spacing_of(affine)
    axes = [(mm, n) for mm, n in zip(spacing, shape, strict=True) if n > 1]
    shown = " x ".join(f"{mm:.4g}" for mm in spacing)
    advice = "correct the header's unit or voxel size"
    longest = max((mm * n for mm, n in axes if mm > COARSEST_MM), default=0.0)
    if longest > LONGEST_MM:
        raise GeometryError(
            f"voxels of {shown} mm (z y x) make an image of {longest / 1000:.3g} m; "
            f"{advice}"
        )
    if any(not FINEST_MM <= mm <= COARSEST_MM for mm, _ in axes):
        return (f"implausible spacing: {shown} mm (z y x), as of no scanner; {advice}",)
    return ()


def kept_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which values stored as `stored` are kept: as is, but native order, no
    float64, no bool.
    """
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind == "f" and stored.itemsize > 4:
        return np.dtype(np.float32)
    if stored.kind in "iuf":
        return stored.newbyteorder("=")
    raise FormatError(
        f"voxels of type {stored} are not supported; "
        "convert the file to integers or real numbers"
    )


def require_voxels(path: Path, header: Header) -> None:
    """Raise `FormatError` if the header declares none."""
    size = (header.channels, *header.shape)
    if min(size) < 1:
        raise FormatError(
            f"{path}: the header declares a size of {size} (c, z, y, x); "
            "the file is damaged"
        )


def require_size(
    path: Path, header: Header, *, max_bytes: int, itemsize: int = 0
) -> None:
    """Raise `FormatError` if the header declares no voxels, or more than `max_bytes` or
    than is free in memory, as kept or as stored.
    """
    require_voxels(path, header)
    size = (header.channels, *header.shape)
    needed = math.prod(size) * max(header.dtype.itemsize, itemsize)
    if needed > max_bytes:
        raise FormatError(
            f"{path}: the header declares {size} voxels (c, z, y, x), "
            f"{needed / 2**30:.3g} GiB, more than the limit of "
            f"{max_bytes / 2**30:.3g} GiB; crop or resample the file, or raise max_bytes"
        )
    if needed > WORTH_A_LOOK:
        free = psutil.virtual_memory().available
        if needed > free:
            raise FormatError(
                f"{path}: the header declares {size} voxels (c, z, y, x), "
                f"{needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB of memory are "
                "free; crop or resample the file, or use a larger machine"
            )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a parser raises into one line that names `path`."""
    try:
        yield
    except (FormatError, GeometryError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except TrivoxError:
        raise
    except FileNotFoundError as error:
        raise FormatError(f"{path}: file not found; check the path") from error
    except MemoryError as error:
        raise ResourceError(
            f"{path}: not enough memory to read the file; free memory, or crop the file"
        ) from error
    except Exception as error:
        # parsers of damaged files raise nearly everything, RecursionError included
        raise FormatError(
            f"{path}: damaged, or not what its suffix says ({one_line(error)}); "
            "check the file"
        ) from error


def one_line(error: BaseException) -> str:
    """The last line of an error's message, which for ITK is the one that says
    something; at most 200 characters.
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
