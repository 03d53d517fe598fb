"""Reading and writing volumes: the file name's suffix says which format, a folder is a
DICOM series or a stack of pictures.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trivox.errors import DataError, FormatError, LabelError, ResourceError
from trivox.files import atomic_path
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.dicom.signature import SUFFIXES as DICOM
from trivox.volumes.dicom.signature import is_dicom
from trivox.volumes.header import (
    MAX_BYTES,
    Header,
    about_spacing,
    one_line,
    reading,
    require_voxels,
)
from trivox.volumes.picture_names import LOSSY, is_picture_stack
from trivox.volumes.picture_names import SUFFIXES as PICTURES
from trivox.volumes.placeholders import require_fetched
from trivox.volumes.segmentations.signature import is_segmentation, segmentation_in
from trivox.volumes.volume import Array, Volume

if TYPE_CHECKING:
    from trivox.volumes.segmentations.painting import Meaning
    from trivox.volumes.segmentations.segments import Grid

NIFTI = (".nii.gz", ".nii", ".hdr", ".img")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
ARRAYS = (".npy", ".npz")
HDF5 = (".h5", ".hdf5")
VOLUMES: tuple[str, ...] = (*NIFTI, *ITK, *ARRAYS, *HDF5, *DICOM)
SUFFIXES: tuple[str, ...] = (*VOLUMES, *PICTURES)
"""Every suffix that can be read, lower case; a folder is a DICOM series, or a stack of
pictures that says their spacing.
"""

PAIRED = (".hdr", ".img", ".nhdr", ".mhd")


class _Format(Protocol):
    def header(self, path: Path) -> Header: ...
    def read(self, path: Path, *, max_bytes: int) -> Volume: ...


class _WritableFormat(Protocol):
    def write(self, path: Path, volume: Volume) -> None: ...


def read_header(path: Path, *, choice: SeriesChoice = NO_CHOICE) -> Header:
    """Shape, affine, channels and type of a volume, without loading its voxels; errors
    as `read_volume`.
    """
    path = Path(path)
    with reading(path):
        header = _reader(path, choice).header(path)
        require_voxels(path, header)
        Volume(np.empty((1, 1, 1, 1)), header.affine)  # refuses a damaged affine
        remarks = about_spacing(header.shape, header.affine)
        return replace(header, remarks=(*header.remarks, *remarks))


def read_volume(
    path: Path, *, choice: SeriesChoice = NO_CHOICE, max_bytes: int = MAX_BYTES
) -> Volume:
    """Read NIfTI, NRRD, MetaImage, NPY, NPZ, HDF5, PNG, TIFF, JPEG, BMP or a DICOM
    series (a folder or a file of it).

    choice: which DICOM series of a folder, and how uneven its slices may be.

    The array `(c, z, y, x)` keeps the type of the file; it becomes float32 where the
    file scales its values or holds float64. NaN is passed on. Raises `FormatError` for
    a file that is missing, damaged, of an unknown format, or whose header declares more
    than `max_bytes` (then nothing has been allocated yet), and `GeometryError` for a
    grid that is impossible.
    """
    path = Path(path)
    with reading(path):
        volume = _reader(path, choice).read(path, max_bytes=max_bytes)
        remarks = about_spacing(volume.shape, volume.affine)
        return replace(volume, remarks=(*volume.remarks, *remarks))


def read_labels(
    path: Path,
    *,
    onto: "Grid | None" = None,
    meaning: "Meaning | None" = None,
    share: float = 0.5,
) -> Volume:
    """Read a label map: int32, one channel, values within 1e-3 of a whole number;
    raises `LabelError` for any other.

    DICOM SEG, RTSTRUCT and segmentations of 3D Slicer name their segments. meaning: what
    the dataset calls its labels, whose values these then get; None: the numbers of the
    segments are the values. share: of the fractions of a SEG, from which on a voxel
    belongs to a segment. onto: the grid of the image; what marks but a part of it is
    brought onto all of it. `GeometryError` for segments that do not lie on it; a label
    map of plain values that does not is returned as it lies.
    """
    path = segmentation_in(Path(path))
    if is_segmentation(path):
        from trivox.volumes.segmentations.reading import label_map

        return label_map(path, onto=onto, meaning=meaning, share=share)
    volume = _whole(path, read_volume(path))
    if onto is None:
        return volume
    from trivox.volumes.segmentations.parts import brought_onto

    background = 0 if meaning is None else meaning.background
    return brought_onto(volume, onto, background=background)


def segment_values(path: Path) -> dict[str, int]:
    """The names of a segmentation's segments and the values that `read_labels` gives
    them where no dataset says otherwise.
    """
    from trivox.volumes.segmentations.reading import values_in

    return values_in(path)


def label_grid(path: Path) -> "Grid":
    """The voxels of a label map, without reading them; of a segmentation those that it
    marks, of an RTSTRUCT those of the image beside it.
    """
    path = segmentation_in(Path(path))
    if is_segmentation(path):
        from trivox.volumes.segmentations.reading import grid_of

        return grid_of(path)
    from trivox.volumes.segmentations.segments import Grid

    header = read_header(path)
    return Grid(header.shape, header.affine)


def _whole(path: Path, volume: Volume) -> Volume:
    """A label map of plain values."""
    if _suffix(path) in LOSSY:
        raise LabelError(
            f"{path}: JPEG changes values, so that it holds no label map; save it as PNG"
        )
    if volume.channels != 1:
        raise LabelError(
            f"{path}: a label map has one channel, this file has {volume.channels}; "
            "is it an image? Overlapping segments must be merged into one label map"
        )
    result = np.empty(volume.array.shape, dtype=np.int32)
    offending: set[float] = set()
    # plane by plane: no copy of the whole volume
    for plane, source in zip(result[0], volume.array[0], strict=True):
        offending.update(_whole_numbers(source, plane))
    if offending:
        shown = ", ".join(f"{value:g}" for value in sorted(offending, key=str)[:5])
        raise LabelError(
            f"{path}: a label map holds whole numbers (32 bit), "
            f"this one also holds {shown}; is it an image?"
        )
    return volume.with_array(result)


def write_volume(path: Path, volume: Volume) -> None:
    """Write `volume` in the format that the suffix names, atomically and reproducibly
    (same input, same bytes).

    Integers keep their type (64-bit ones the smallest that holds them), bool becomes
    uint8, float16 and float64 become float32. NRRD and MetaImage cannot hold sheared
    grids, NPY no grid at all: `GeometryError`. Header-and-data pairs are only read:
    `FormatError`.
    """
    path = Path(path)
    array = volume.with_array(_writable(path, volume.array))
    writer = _writer(path)
    with atomic_path(path) as temporary:
        try:
            writer.write(temporary, array)
        except DataError as error:
            raise type(error)(str(error).replace(str(temporary), str(path))) from error
        except (RuntimeError, ValueError) as error:
            raise ResourceError(
                f"{path}: cannot be written ({one_line(error)}); "
                "check the disk and its rights"
            ) from error


def case_stem(path: Path) -> str:
    """The file's name without its known suffix: `a.b.nii.gz` becomes `a.b`; a folder's
    name stays whole.
    """
    name = Path(path).name
    suffix = _suffix(path)
    return name[: -len(suffix)] if suffix else name


def _suffix(path: Path) -> str:
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def is_dicom_image(path: Path) -> bool:
    """Whether an image is read as DICOM: a folder that is no stack of pictures, or a
    file of DICOM.
    """
    if path.is_dir():
        return not is_picture_stack(path)
    suffix = _suffix(path)
    return suffix in DICOM or (not suffix and path.is_file() and is_dicom(path))


def _reader(path: Path, choice: SeriesChoice) -> _Format:
    require_fetched(path)
    if path.is_dir() and is_picture_stack(path):
        stack: _Format = _pictures()
        return stack
    if is_dicom_image(path):
        from trivox.volumes.dicom.reading import DicomSeries

        return DicomSeries(choice)
    reader: _Format = _module(path)
    return reader


def _writer(path: Path) -> _WritableFormat:
    if _suffix(path) in (*PAIRED, *DICOM):
        raise FormatError(
            f"{path}: {_suffix(path)} files are only read; "
            "write .nii.gz, .nrrd, .mha, .npz or .h5"
        )
    writer: _WritableFormat = _module(path)
    return writer


def _module(path: Path) -> Any:
    """The module of a format, loaded only when it is needed: they import nibabel,
    SimpleITK, h5py and pydicom.
    """
    suffix = _suffix(path)
    if suffix in NIFTI:
        from trivox.volumes import nifti

        return nifti
    if suffix in ITK:
        from trivox.volumes import itk

        return itk
    if suffix in ARRAYS:
        from trivox.volumes import arrays

        return arrays
    if suffix in HDF5:
        from trivox.volumes import hdf5

        return hdf5
    if suffix in PICTURES:
        return _pictures()
    missing = "" if path.exists() else "file not found, and "
    raise FormatError(
        f"{path}: {missing}the name ends in no known suffix; "
        f"known are {', '.join(SUFFIXES)}"
    )


def _pictures() -> Any:
    from trivox.volumes import pictures

    return pictures


def _writable(path: Path, array: Array) -> Array:
    if array.dtype.kind not in "biuf":
        raise FormatError(
            f"{path}: voxels of type {array.dtype} cannot be written; "
            "convert them to numbers first"
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.itemsize < 8 or array.size == 0:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    low = int(array.min())
    high = int(array.max())
    for kind in (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def _whole_numbers(source: Array, target: NDArray[np.int32]) -> list[float]:
    """Round `source` into `target`; returns up to 5 values that are no whole numbers of
    32 bits.
    """
    if source.dtype.kind in "iu" and source.dtype.itemsize < 4:
        target[...] = source
        return []
    if source.dtype.kind in "iu":
        limits = np.iinfo(np.int32)
        wrong = (source < limits.min) | (source > limits.max)
        rounded = source
    else:
        rounded = np.rint(source)
        with np.errstate(invalid="ignore"):  # inf - inf
            whole = np.abs(source - rounded) <= 1e-3
            wrong = ~(whole & (np.abs(rounded) < 2.0**31))  # NaN compares false
    if wrong.any():
        return [float(value) for value in np.unique(source[wrong])[:5]]
    target[...] = rounded
    return []
