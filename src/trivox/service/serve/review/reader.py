"""The server's side of reading scans: a process with limits for each, few at a time."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from trivox.errors import BusyError, DataError
from trivox.files import read_json, write_json
from trivox.service.serve.jobs.folders import Folders, sync_folder
from trivox.service.serve.review.scans import ScanAnswer, ScanOrder, view_name
from trivox.service.serve.settings import JobLimits

COMMAND = (sys.executable, "-m", "trivox.service.serve.review.process")
AT_ONCE = 2
"""Scans that are read at a time."""
LONGEST = 600.0
PATIENCE = 30.0
"""Seconds that a scan waits for its turn."""
RECORD = "view.json"
VIEW = "view"
"""Folder of a job with what people look at; it goes with the job."""


@dataclass(frozen=True)
class Sent:
    """A scan as it was sent. id: of its job; channels: of the model; words: that may be
    said of it; series: which one of a DICOM folder; result: file of the job that is
    meant in its place.
    """

    id: str
    channels: Sequence[str]
    words: Sequence[str]
    series: str | None = None
    result: Path | None = None

    @property
    def place(self) -> str:
        """A name for what is made of it."""
        return "sent" if self.result is None else f"result-{self.result.name}"


@dataclass
class ScanReader:
    """Reads the scans of jobs."""

    folders: Folders
    limits: JobLimits
    _turns: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(AT_ONCE)
    )

    def view(self, sent: Sent, channel: int) -> tuple[Path, ScanAnswer]:
        """A NIfTI file to look at, made when it is first asked for; raises `DataError` in
        one line, `BusyError` where too many others wait.
        """
        folder = self.folders.of(sent.id) / VIEW / f"{sent.place}-{channel:04d}"
        record = folder / RECORD
        if not record.exists():
            with self.scratch() as out:
                answer = self.read(sent, out, channel=channel)
                write_json(out / RECORD, json.loads(answer.model_dump_json()))
                with suppress(OSError):  # somebody else made it meanwhile
                    folder.parent.mkdir(exist_ok=True)
                    out.rename(folder)
        if not record.exists():
            raise DataError("the scan is no longer there; send it again")
        return folder / view_name(channel), ScanAnswer(**read_json(record))

    def read(self, sent: Sent, out: Path, **what: Any) -> ScanAnswer:
        """Write images of a scan into `out`, all in full unless a channel is named, and a
        corrected label map on its grid; raises as `view`.
        """
        with self._turn(), self.scratch() as scratch:
            files = (
                self.folders.parts(sent.id) if sent.result is None else [sent.result]
            )
            order = ScanOrder(
                parts=tuple(files),
                scratch=scratch,
                channels=tuple(sent.channels),
                unpacked=self.limits.unpacked,
                out=out,
                words=tuple(sent.words),
                series=sent.series,
                memory=self.limits.memory,
                seconds=min(self.limits.seconds, LONGEST),
                **what,
            )
            answer = _asked(order)
        sync_folder(out)
        if "failed" in answer:
            raise DataError(answer["detail"])
        return ScanAnswer(**answer["done"])

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=PATIENCE):
            raise BusyError("too many scans are being read; try again later")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        folder = self.folders.uploads / token_hex(16)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _asked(order: ScanOrder) -> dict[str, Any]:
    """What the process says; raises `DataError` where it ends without a word."""
    try:
        done = subprocess.run(
            COMMAND,
            input=order.model_dump_json().encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=order.seconds,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise DataError(
            "the scan could not be read within the limits of the server; send a smaller one"
        ) from error
    return answer
