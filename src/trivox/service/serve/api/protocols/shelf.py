"""Images that clients send once and ask about several times, and the last job of each.

STATE/shelf/KEY/entry.json  input/0000.nii.gz

KEY is a hash of the client and of the name that it gave the image.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trivox.errors import DataError
from trivox.files import read_json, write_json
from trivox.schema import Frozen
from trivox.service.serve.api.limits import ServerLimits
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.uploads import Part, Upload
from trivox.service.serve.jobs.folders import Folders, sync_folder

FOLDER = "shelf"
RECORD = "entry.json"
INPUT = "input"
KEY_LETTERS = 32

Kind = Literal["image", "session", "path"]
"""Sent under a name; sent for a while; a scan of the data folder."""


class SentFile(Frozen):
    """A file of an image. size: bytes."""

    name: str
    size: int
    sha256: str


class Entry(Frozen):
    """What is known of an image. name: that the client calls it; created, used: seconds
    since 1970; keep: seconds after its last use for which it stays; job: the newest.
    """

    client: str
    name: str
    kind: Kind
    created: float
    used: float
    keep: float
    files: tuple[SentFile, ...] = ()
    job: str | None = None

    @property
    def suffix(self) -> str:
        """Of its file, by which the format is known; of several, none."""
        if len(self.files) != 1:
            return ""
        return "".join(Path(self.files[0].name).suffixes)


@dataclass
class Shelf:
    """The images of all clients; what nobody has used for long goes."""

    folders: Folders
    limits: ServerLimits
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def root(self) -> Path:
        """Where they lie."""
        return self.folders.root / FOLDER

    def add(
        self, client: str, name: str, kind: Kind, upload: Upload, keep: float
    ) -> Entry:
        """Keep what was sent, in place of what had the name; raises `ProblemError`."""
        now = self.clock()
        entry = Entry(
            client=client,
            name=name,
            kind=kind,
            created=now,
            used=now,
            keep=min(keep, self.limits.keep),
            files=tuple(map(_sent_file, upload.parts)),
        )
        with self._lock:
            self._require_room(client)
            self._clear(client, name)
            folder = self._folder(client, name)
            folder.mkdir(parents=True)
            upload.folder.rename(folder / INPUT)
            write_json(folder / RECORD, entry.model_dump())
            sync_folder(folder)
        return entry

    def entry(self, client: str, name: str) -> Entry | None:
        """What a client calls so, None where there is nothing of that name any more."""
        entry = _read(self._folder(client, name))
        if entry is None or self._is_over(entry):
            return None
        return entry

    def touch(self, entry: Entry) -> Entry:
        """Note that an image is in use."""
        return self._write(entry.model_copy(update={"used": self.clock()}))

    def note_job(self, client: str, name: str, job: str) -> None:
        """Remember the newest job of an image."""
        now = self.clock()
        entry = self.entry(client, name)
        if entry is None:
            entry = Entry(
                client=client,
                name=name,
                kind="path",
                created=now,
                used=now,
                keep=self.limits.keep,
            )
        self._write(entry.model_copy(update={"job": job, "used": now}))

    def entries(self, client: str) -> list[Entry]:
        """All images of a client, the oldest first."""
        entries = [each for each in self._all() if each.client == client]
        return sorted(entries, key=lambda each: each.created)

    def remove(self, entry: Entry) -> None:
        """Forget an image and its files."""
        with self._lock:
            self._clear(entry.client, entry.name)

    def sweep(self) -> None:
        """Remove what nobody has used for long."""
        for folder in self._places():
            entry = _read(folder)
            if entry is None or self._is_over(entry):
                with self._lock:
                    shutil.rmtree(folder, ignore_errors=True)

    def file(self, entry: Entry) -> Path:
        """The one file of an image; raises `ProblemError` for one of several."""
        if len(entry.files) != 1:
            raise ProblemError("no-such-path", "the image is made of several files")
        return self._input(entry) / entry.files[0].name

    def upload(self, entry: Entry, folder: Path) -> Upload:
        """The image as it was sent, in another folder, for a job."""
        upload = Upload(folder)
        for sent in entry.files:
            place = folder / sent.name
            _link(self._input(entry) / sent.name, place)
            upload.parts.append(Part(place, sent.size, sent.sha256))
        sync_folder(folder)
        return upload

    # -- files -------------------------------------------------------------------------
    def _folder(self, client: str, name: str) -> Path:
        key = hashlib.sha256(f"{client} {name}".encode()).hexdigest()
        return self.root / key[:KEY_LETTERS]

    def _input(self, entry: Entry) -> Path:
        return self._folder(entry.client, entry.name) / INPUT

    def _clear(self, client: str, name: str) -> None:
        shutil.rmtree(self._folder(client, name), ignore_errors=True)

    def _write(self, entry: Entry) -> Entry:
        folder = self._folder(entry.client, entry.name)
        with self._lock:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / RECORD, entry.model_dump())
        return entry

    def _places(self) -> Sequence[Path]:
        return list(self.root.iterdir()) if self.root.is_dir() else []

    def _all(self) -> Iterator[Entry]:
        for folder in self._places():
            entry = _read(folder)
            if entry is not None and not self._is_over(entry):
                yield entry

    def _is_over(self, entry: Entry) -> bool:
        return self.clock() > entry.used + entry.keep

    def _require_room(self, client: str) -> None:
        if len(self.entries(client)) >= self.limits.per_client:
            raise ProblemError(
                "too-many-images", "remove sessions, or wait until they expire"
            )


def _sent_file(part: Part) -> SentFile:
    return SentFile(name=part.path.name, size=part.size, sha256=part.sha256)


def _read(folder: Path) -> Entry | None:
    try:
        return Entry(**read_json(folder / RECORD))
    except (OSError, DataError, ValueError, TypeError):
        return None


def _link(source: Path, place: Path) -> None:
    """The file in another folder, without a copy where the disk can do so."""
    try:
        os.link(source, place)
    except FileNotFoundError as error:
        raise ProblemError("expired", "send the image again") from error
    except OSError:
        shutil.copyfile(source, place)
