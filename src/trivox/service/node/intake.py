"""What the node does with an object that it is sent."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivox.errors import ResourceError, TrivoxError
from trivox.service.fetching import lack_of
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import Job
from trivox.service.jobs.work import RECEIVED, Arrival
from trivox.service.objects import (
    DicomObject,
    Shelf,
    looked_up,
    object_of,
    objects_in,
    read_header,
)
from trivox.service.peers.archive import COUNT, SERIES, Archive, number_in
from trivox.service.rules import Rules

STORED = 0x0000
OUT_OF_RESOURCES = 0xA700
WRONG_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
OTHER_OBJECT = 0xC001
"""Statuses of a C-STORE (DICOM PS3.4 table B.2-1)."""
NO_RULE = "no rule is for it"


class NotTakenError(Exception):
    """An object is refused. status: of the C-STORE."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Intake:
    """Objects that were sent here become series of the queue.

    count: archive that knows how many objects a series has, if one does.
    """

    rules: Rules
    queue: Queue
    shelf: Shelf
    say: Callable[[str], None]
    count: Archive | None = None
    uids: dict[str, tuple[str, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def stored(self, file: Path, *, kind: str, instance: str, sender: str) -> int:
        """Keep an object on the disk and in the queue; the status to answer with.

        kind, instance: class and UID as the request gave them.
        """
        try:
            self._require_room(file)
            self._keep(file, kind, instance, sender)
        except NotTakenError as error:
            self.say(f"{sender}: an object was refused: {error}")
            return error.status
        except ResourceError as error:
            self.say(f"{sender}: an object was refused: {error}")
            return OUT_OF_RESOURCES
        except Exception as error:  # whatever a peer sends, the node goes on
            self.say(f"{sender}: an object was refused ({type(error).__name__})")
            return CANNOT_UNDERSTAND
        return STORED

    def _require_room(self, file: Path) -> None:
        node = self.rules.node
        if file.stat().st_size > node.largest_gb * 1e9:
            raise NotTakenError(OUT_OF_RESOURCES, "it is larger than largest_gb")
        if shutil.disk_usage(self.shelf.folder).free < node.free_gb * 1e9:
            raise NotTakenError(OUT_OF_RESOURCES, "the disk has less than free_gb left")

    def _keep(self, file: Path, kind: str, instance: str, sender: str) -> None:
        with self.lock:
            try:
                dataset = read_header(file)
                each = object_of(file, dataset)
            except TrivoxError as error:
                reason = "it cannot be read, or lacks its UIDs"
                raise NotTakenError(CANNOT_UNDERSTAND, reason) from error
            if each.kind != kind:
                raise NotTakenError(
                    WRONG_CLASS, "it is of another class than announced"
                )
            if each.instance != instance:
                raise NotTakenError(OTHER_OBJECT, "it has another UID than announced")
            self.shelf.put(each)
            self._note(each, dataset, sender)

    def _note(self, each: DicomObject, dataset: Any, sender: str) -> None:
        names = self.shelf.names
        key = names.of(each.series)
        self.uids[key] = (each.study, each.series)
        rule = self.rules.candidate(lambda name: looked_up(dataset, name))
        study = names.of(each.study)
        if rule is None:
            self.queue.ignore(key, study, sender, NO_RULE)
            return
        self.queue.seen(key, study, sender, rule=rule.name, rank=rule.rank)
        here = len(objects_in(self.shelf.series_folder(each.study, each.series)))
        self.queue.arrived(key, here, stable=self.rules.intake.stable)

    def receive(self, job: Job) -> Arrival:
        """Whether a series that came to rest is whole; see `Worker.arrivals`."""
        folder = self.shelf.folder / job.entry.study / job.key
        here = len(objects_in(folder))
        if not here:
            return Arrival(0, None, "its objects are not here any more")
        expected = self._expected(job.key, folder)
        lack = "" if expected in (None, here) else lack_of(here, expected or 0)
        return Arrival(here, expected, lack)

    def _expected(self, key: str, folder: Path) -> int | None:
        """How many objects the archive says there are, None if none is asked."""
        if self.count is None:
            return None
        if key not in self.uids:
            each = object_of(folder, read_header(objects_in(folder)[0]))
            self.uids[key] = (each.study, each.series)
        study, series = self.uids[key]
        rows = self.count.series(study)
        row = next((r for r in rows if r[SERIES] == series), None)
        return 0 if row is None else number_in(row, COUNT)

    def recover(self) -> None:
        """Take up what lies on the disk and was not noted when the node was killed."""
        for folder in sorted(self.shelf.folder.glob("*/*")):
            files = objects_in(folder)
            known = self.queue.entry(folder.name)
            if files and (known is None or known.received < len(files)):
                self._take_up(files)

    def _take_up(self, files: list[Path]) -> None:
        try:
            dataset = read_header(files[0])
            self._note(object_of(files[0], dataset), dataset, "unknown")
        except TrivoxError as error:
            self.say(str(error))


def received_folder(folder: Path) -> Path:
    """Where the objects lie that the service received."""
    return folder / RECEIVED
