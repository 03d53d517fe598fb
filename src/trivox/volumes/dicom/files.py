"""One DICOM file, opened with care."""

import mmap
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from trivox.errors import FormatError
from trivox.volumes.dicom.attributes import text
from trivox.volumes.dicom.elements import WORTH_COUNTING, require_countable
from trivox.volumes.dicom.signature import is_bare, is_dicom

STORAGE = "1.2.840.10008.5.1.4.1.1."
_NOT_IMAGES = {
    "1.2.840.10008.1.3.10": "directory",
    STORAGE + "11.": "presentation state",
    STORAGE + "9.": "waveform",
    STORAGE + "66": "segmentation or raw data",
    STORAGE + "67": "mapping of values",
    STORAGE + "68": "surface scan",
    STORAGE + "88.": "report",
    STORAGE + "104.": "document",
    STORAGE + "481.": "radiotherapy object",
    STORAGE + "78.": "measurement of an eye",
    STORAGE + "79.": "measurement of an eye",
    STORAGE + "80.": "measurement of an eye",
    STORAGE + "30": "parametric map",
}
"""How the class UIDs of objects without images begin, and what they are."""
_NO_IMAGE_MODALITIES = (
    "SEG",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "RTRECORD",
    "SR",
    "PR",
    "KO",
    "REG",
    "DOC",
    "FID",
)
DIRECTORY = "directory"
_INFLATED = 2**28
"""Bytes that a deflated file may become."""
_META_START = 144
"""Where the elements after the length of group 2 begin."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, which warns about every malformed value; what matters becomes an
    error here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def no_image(dataset: Any) -> str:
    """What an object is that holds no image: SEG, RTSTRUCT, a report; blank for images
    and for what is not known.
    """
    modality = text(dataset, "Modality")
    if modality in _NO_IMAGE_MODALITIES:
        return modality
    kinds = (class_of(dataset), text(dataset, "SOPClassUID"))
    for start, name in _NOT_IMAGES.items():
        if any(kind.startswith(start) for kind in kinds):
            return name
    return ""


def class_of(dataset: Any) -> str:
    """The class UID, in the header of the file or in the object; blank if unknown."""
    meta = getattr(dataset, "file_meta", None) or {}
    kind = meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID")
    return str(kind or "")


def load(path: Path, *, pixels: bool) -> Any:
    """The pydicom dataset, with or without its pixels.

    Files without the 128 bytes and DICM are read where their first elements are those
    of DICOM. Raises `FormatError` for what is no DICOM, and for what would fill the
    memory.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    if not is_dicom(path):
        raise FormatError(
            f"{path}: not a DICOM file (DICM is missing at byte 128, and it does not "
            "begin with DICOM's first elements); check the file"
        )
    _require_countable(path)
    if is_bare(path):
        return _with_meta(dcmread(path, stop_before_pixels=not pixels, force=True))
    meta = read_file_meta_info(str(path))
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _inflated(path, meta, pixels=pixels)
    return dcmread(path, stop_before_pixels=not pixels)


def _require_countable(path: Path) -> None:
    """Raise `FormatError` for a large file of too many elements; what is deflated is
    looked at when it is inflated.
    """
    if path.stat().st_size < WORTH_COUNTING:
        return
    syntax = ImplicitVRLittleEndian
    start = 0
    if not is_bare(path):
        meta = read_file_meta_info(str(path))
        syntax = UID(meta.get("TransferSyntaxUID") or syntax)
        start = _META_START + int(meta.get("FileMetaInformationGroupLength") or 0)
    if syntax == DeflatedExplicitVRLittleEndian or not syntax.is_transfer_syntax:
        return
    implicit = syntax == ImplicitVRLittleEndian
    little = syntax != ExplicitVRBigEndian
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        require_countable(view, start, implicit=implicit, little=little)


def _with_meta(dataset: Any) -> Any:
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    return dataset


def _inflated(path: Path, meta: Any, *, pixels: bool) -> Any:
    """A deflated object; it may not become larger than `_INFLATED`, since a few
    kilobytes can inflate without end.
    """
    start = _META_START + int(meta.FileMetaInformationGroupLength)
    packed = path.read_bytes()[start:]
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflating.decompress(packed, _INFLATED)
    if inflating.unconsumed_tail:
        raise FormatError(
            f"{path}: its deflated content is larger than {_INFLATED / 2**20:g} MiB; "
            "store it uncompressed"
        )
    require_countable(content, 0, implicit=False, little=True)
    dataset = dcmread(BytesIO(content), stop_before_pixels=not pixels, force=True)
    dataset.file_meta = meta
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
