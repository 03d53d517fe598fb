"""What is sent for a job: files as they lie on the disk, or arrays as NIfTI."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from trivox_client.nifti import Array, nifti_bytes

Source = str | Path | Sequence[str | Path]
ENDING = ".nii.gz"


def files_of(source: Source) -> list[Path]:
    """The files of a scan; raises `FileNotFoundError`."""
    several = [source] if isinstance(source, str | Path) else list(source)
    files = [Path(each) for each in several]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: is no file; give the files of one scan")
    if not files:
        raise ValueError("give at least one file")
    return files


def images_of(array: Array, affine: Array) -> list[bytes]:
    """The channels of an array, (x, y, z) or (channel, x, y, z), as NIfTI files."""
    channels = np.asarray(array)
    if channels.ndim == 3:
        channels = channels[None]
    if channels.ndim != 4:
        shape = np.shape(array)
        raise ValueError(f"the array has the axes (channel,) x, y, z, not {shape}")
    return [nifti_bytes(channel, affine) for channel in channels]


class Form:
    """The form of a job, which may be sent several times. Names of files are not sent:
    they may be names of patients.
    """

    def __init__(
        self, contents: Sequence[Path | bytes], fields: dict[str, str]
    ) -> None:
        self.contents = contents
        self.fields = fields
        self._opened: list[IO[bytes]] = []

    def content(self) -> dict[str, Any]:
        """What httpx sends, with the files at their beginning."""
        self.close()
        # httpx sends fields alone as another kind of form
        parts: list[tuple[str, tuple[str | None, Any]]] = [
            (name, (None, value)) for name, value in self.fields.items()
        ]
        for number, each in enumerate(self.contents):
            name = f"{number:04d}{_suffix(each)}"
            parts.append(("file", (name, self._open(each))))
        return {"files": parts}

    def close(self) -> None:
        """Close the files."""
        for file in self._opened:
            file.close()
        self._opened.clear()

    def _open(self, content: Path | bytes) -> IO[bytes]:
        if isinstance(content, bytes):
            return BytesIO(content)
        self._opened.append(content.open("rb"))
        return self._opened[-1]


def _suffix(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return ENDING
    name = content.name.lower()
    return ENDING if name.endswith(ENDING) else content.suffix.lower()
