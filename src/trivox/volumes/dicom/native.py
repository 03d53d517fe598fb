"""The JPEG family of DICOM, decoded by GDCM (in SimpleITK) in a process of its own.

Of the file only what describes its pixels is handed on: no rescaling, no geometry.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from trivox.errors import FormatError
from trivox.scratch import scratch_folder
from trivox.volumes.header import one_line
from trivox.volumes.volume import Array

SECONDS = 120.0
"""How long the frames of a file may take."""
_CHILD = Path(__file__).with_name("native_child.py")
_DESCRIBING = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "PixelData",
)
"""What a decoder has to know."""


class NativeDecoder:
    """A decoder process, started when it is first needed."""

    def __init__(self, folder: Path, *, seconds: float = SECONDS) -> None:
        self._folder = folder
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, dataset: Any) -> Array:
        """The stored values `(frame, row, column)`; raises `FormatError` where they
        cannot be decoded, or end the process, or take too long.
        """
        file = self._folder / "pixels.dcm"
        _only_pixels(dataset).save_as(file, enforce_file_format=True)
        process = self._running()
        watch = Timer(self._seconds, process.kill)
        watch.start()
        try:
            return self._asked(process, file)
        finally:
            late = watch.finished.is_set()
            watch.cancel()
            file.unlink(missing_ok=True)
            if late or process.poll() is not None:
                self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], file: Path) -> Array:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(str(file)).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise FormatError(self._death(process)) from error
        line = process.stdout.readline()
        if not line:
            raise FormatError(self._death(process))
        answer = json.loads(line)
        if "error" in answer:
            reason = one_line(RuntimeError(answer["error"]))
            raise FormatError(f"the pixels cannot be decoded ({reason})")
        kind = np.dtype(answer["type"])
        shape = answer["shape"]
        size = int(np.prod(shape)) * kind.itemsize
        content = process.stdout.read(size)
        if len(content) < size:
            raise FormatError(self._death(process))
        return np.frombuffer(content, kind).reshape(-1, *shape[-2:])

    def _death(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        how = f"exit {code}"
        if code < 0:
            how = signal.Signals(-code).name
        return (
            f"its pixels end the decoder ({how}; at most {self._seconds:g} s and a few "
            "GiB are allowed); the file is damaged, export it again"
        )


@contextmanager
def native_decoder() -> Iterator[NativeDecoder]:
    """A decoder that ends with the block."""
    with scratch_folder() as folder:
        decoder = NativeDecoder(folder)
        try:
            yield decoder
        finally:
            decoder.close()


def _only_pixels(dataset: Any) -> Dataset:
    """A DICOM object of the pixels alone."""
    alone = Dataset()
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    alone.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    alone.SOPClassUID = SecondaryCaptureImageStorage
    alone.SOPInstanceUID = generate_uid()
    alone.file_meta.MediaStorageSOPInstanceUID = alone.SOPInstanceUID
    for keyword in _DESCRIBING:
        if keyword in dataset:
            alone[keyword] = dataset[keyword]
    return alone
