"""NRRD and MetaImage: LPS becomes RAS, vector pixels and a fourth axis become channels.

They are read here and written by SimpleITK, whose readers end the process on some
damaged headers.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its name everywhere
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.header import Header, kept_dtype, require_size, require_voxels
from trivox.volumes.headers.metaimage import parse_metaimage
from trivox.volumes.headers.nrrd import parse_nrrd
from trivox.volumes.headers.promise import Promise
from trivox.volumes.volume import Volume

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def header(path: Path) -> Header:
    """Shape, affine, channels and type; a file without spatial information gets spacing
    1 and origin 0, as in ITK.
    """
    promise = _promise(path)
    described = _described(promise)
    require_voxels(path, described)
    promise.require_kept()
    return described


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read `.nrrd`, `.nhdr`, `.mha` or `.mhd`; raises `GeometryError` for axes that are
    not at right angles.
    """
    promise = _promise(path)
    described = _described(promise)
    itemsize = promise.dtype.itemsize
    require_size(path, described, max_bytes=max_bytes, itemsize=itemsize)
    promise.require_kept()
    array = promise.read(described.dtype)
    size = (described.channels, *described.shape)
    return Volume(array.reshape(size), described.affine, described.remarks)


def write(path: Path, volume: Volume) -> None:
    """Write `.nrrd` or `.mha`, compressed; several channels become vector pixels."""
    directions = _directions(
        volume.affine, hint="write .nii.gz, which can hold such a grid"
    )
    several = volume.channels > 1
    array = np.moveaxis(volume.array, 0, -1) if several else volume.array[0]
    image = sitk.GetImageFromArray(array, isVector=several)
    image.SetSpacing(volume.spacing[::-1])
    image.SetOrigin((volume.affine[:3, 3] * _LPS_TO_RAS).tolist())
    image.SetDirection((directions * _LPS_TO_RAS[:, None]).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
    # where the disk is full as ITK closes the file, only reading it says so
    try:
        read(path, max_bytes=2**63)
    except FormatError as error:
        raise RuntimeError("only a part of it was kept") from error


def _promise(path: Path) -> Promise:
    if not path.is_file():
        raise FileNotFoundError(path)
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        return parse_nrrd(path)
    return parse_metaimage(path)


def _described(promise: Promise) -> Header:
    """What a promise means: axes in space, and one of channels."""
    axes = list(promise.sizes)
    channels = 1 if promise.channel_axis is None else axes.pop(promise.channel_axis)
    x, y, z = [*axes, *([1] * (3 - len(axes)))]
    _directions(
        promise.affine,
        hint="resample the image to a rectangular grid, or convert it to NIfTI",
    )
    dtype = kept_dtype(promise.dtype)
    return Header((z, y, x), promise.affine, channels, dtype, promise.remarks)


def _directions(affine: NDArray[np.float64], *, hint: str) -> NDArray[np.float64]:
    """The unit axes of the grid as columns; raises `GeometryError` unless they stand at
    right angles.
    """
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or lengths.min() < 1e-9:
        raise GeometryError(
            "the header holds a spacing or direction of 0 or NaN; repair the header"
        )
    directions = affine[:3, :3] / lengths
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-4:
        raise GeometryError(
            f"the axes of the grid are not at right angles (sheared); {hint}"
        )
    return np.asarray(directions)
