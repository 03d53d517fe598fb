"""Arrays of prepared cases on disk, which can be read in part.

blosc2 takes 0.3 s to load: it is when an array is opened, and not with every command.
"""

from pathlib import Path
from typing import Any

import numpy as np

from trivox.errors import ResourceError
from trivox.files import atomic_path
from trivox.volumes.volume import Array

CHUNK = 96
"""Edge of a chunk, which is read from disk as a whole."""
BLOCK = 32
"""Edge of a block, which is decompressed as a whole."""


def open_array(path: Path) -> Any:
    """An array on disk; what is read of it is what is indexed."""
    import blosc2

    return blosc2.open(str(path), mode="r")


def write_array(path: Path, array: Array) -> None:
    """Write an array `(..., z, y, x)` as one blosc2 file, atomically; raises
    `ResourceError` if that fails.
    """
    import blosc2

    array = np.ascontiguousarray(array)
    chunk = [min(CHUNK, size) for size in array.shape[-3:]]
    block = [min(BLOCK, size) for size in chunk]
    lead = [1] * (array.ndim - 3)
    try:
        with atomic_path(path) as temporary:
            blosc2.asarray(
                array,
                urlpath=str(temporary),
                mode="w",
                chunks=(*lead, *chunk),
                blocks=(*lead, *block),
                cparams={"codec": blosc2.Codec.ZSTD, "clevel": 3, "nthreads": 1},
            )
    except (RuntimeError, UnicodeError) as error:
        raise ResourceError(
            f"{path}: cannot be written ({error}); check the free disk space"
        ) from error
