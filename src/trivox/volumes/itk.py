"""NRRD and MetaImage through SimpleITK: LPS becomes RAS, vector pixels and a fourth
axis become channels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its name everywhere
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.header import Header, kept_dtype, require_size
from trivox.volumes.volume import Shape, Volume

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_TYPES = {
    sitk.sitkUInt8: np.uint8,
    sitk.sitkInt8: np.int8,
    sitk.sitkUInt16: np.uint16,
    sitk.sitkInt16: np.int16,
    sitk.sitkUInt32: np.uint32,
    sitk.sitkInt32: np.int32,
    sitk.sitkUInt64: np.uint64,
    sitk.sitkInt64: np.int64,
    sitk.sitkFloat32: np.float32,
    sitk.sitkFloat64: np.float64,
    sitk.sitkVectorUInt8: np.uint8,
    sitk.sitkVectorInt8: np.int8,
    sitk.sitkVectorUInt16: np.uint16,
    sitk.sitkVectorInt16: np.int16,
    sitk.sitkVectorUInt32: np.uint32,
    sitk.sitkVectorInt32: np.int32,
    sitk.sitkVectorUInt64: np.uint64,
    sitk.sitkVectorInt64: np.int64,
    sitk.sitkVectorFloat32: np.float32,
    sitk.sitkVectorFloat64: np.float64,
}


def header(path: Path) -> Header:
    """Shape, affine, channels and type; a file without spatial information gets spacing
    1 and origin 0, as in ITK.
    """
    return _describe(_informed(path))


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read `.nrrd`, `.nhdr`, `.mha` or `.mhd`; raises `GeometryError` for axes that are
    not at right angles.
    """
    reader = _informed(path)
    described = _describe(reader)
    itemsize = _stored(reader).itemsize
    require_size(path, described, max_bytes=max_bytes, itemsize=itemsize)
    image = reader.Execute()
    # (t, z, y, x, c), with t and c only where they exist
    view = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        view = np.moveaxis(view, -1, 0)
    with np.errstate(over="ignore"):
        # a copy: the view dies with the image
        array = np.array(view, dtype=described.dtype, order="C")
    return Volume(array.reshape(described.channels, *described.shape), described.affine)


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
    _informed(path).Execute()


def _informed(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(path)
    reader = sitk.ImageFileReader()
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    # else ITK tries all formats on a misnamed file
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _stored(reader: Any) -> np.dtype[Any]:
    if reader.GetPixelID() not in _TYPES:
        name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise FormatError(
            f"voxels of type '{name}' are not supported; "
            "convert the file to integers or real numbers"
        )
    return np.dtype(_TYPES[reader.GetPixelID()])


def _describe(reader: Any) -> Header:
    size = [int(n) for n in reader.GetSize()]
    dimension = int(reader.GetDimension())
    components = int(reader.GetNumberOfComponents())
    if not 2 <= dimension <= 4 or (dimension == 4 and components > 1):
        raise FormatError(
            f"an image of size {size} with {components} components is not 3-D with "
            "channels; split it"
        )
    x, y, z, times = [*size, *([1] * (4 - dimension))]
    shape: Shape = (z, y, x)
    affine = _affine(reader, dimension)
    return Header(shape, affine, times * components, kept_dtype(_stored(reader)))


def _affine(reader: Any, dimension: int) -> NDArray[np.float64]:
    spatial = min(dimension, 3)
    directions = np.array(reader.GetDirection()).reshape(dimension, dimension)
    spacing = np.array(reader.GetSpacing()[:spatial])
    step = np.eye(3)
    step[:spatial, :spatial] = directions[:spatial, :spatial] * spacing
    origin = np.zeros(3)
    origin[:spatial] = reader.GetOrigin()[:spatial]
    affine = np.eye(4)
    affine[:3, :3] = step * _LPS_TO_RAS[:, None]
    affine[:3, 3] = origin * _LPS_TO_RAS
    _directions(
        affine, hint="resample the image to a rectangular grid, or convert it to NIfTI"
    )
    return affine


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
