"""Pixels and nothing else: decoded, without what compressed streams, unused bits and
padding can carry.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from trivox.volumes.dicom.native import NativeDecoder
from trivox.volumes.dicom.pixels import decode
from trivox.volumes.segmentations.seg_pixels import stored_frames

WORDS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")


def plain_pixels(
    path: Path, dataset: Any, result: Dataset, native: NativeDecoder
) -> None:
    """Put the pixels of a file into `result`, uncompressed; raises `FormatError` for
    pixels that cannot be decoded.
    """
    if "PixelData" not in dataset:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    if int(dataset.BitsAllocated) == 1:
        content = _packed(path)
    else:
        planes = decode(path, range(count), native=native)
        content = b"".join(_little_endian(plane) for plane in planes)
    for keyword in WORDS:
        result[keyword] = dataset[keyword]
    if "PhotometricInterpretation" not in result:
        result.PhotometricInterpretation = "MONOCHROME2"  # of label maps with a palette
    wide = int(dataset.BitsAllocated) > 8
    result.add_new("PixelData", "OW" if wide else "OB", content)


def _little_endian(plane: Any) -> bytes:
    array = np.ascontiguousarray(plane)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _packed(path: Path) -> bytes:
    """Frames of one bit a pixel, without the bits after the last one."""
    bits = np.concatenate([frame.ravel() for frame in stored_frames(path)])
    return np.packbits(bits, bitorder="little").tobytes()
