"""What an archive can do, whichever way it is spoken to, and how it fails."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from trivox.errors import DataError, ResourceError, TrivoxError, UsageError
from trivox.service.objects import DicomObject

T = TypeVar("T")
MOST = 10_000
"""Studies, or series of one, that a search may bring."""

Attributes = Mapping[str, str]
"""Values as text by keyword; several are joined by a backslash. A keyword that is not
there is one of which the archive said nothing.
"""
STUDY = "StudyInstanceUID"
SERIES = "SeriesInstanceUID"
INSTANCE = "SOPInstanceUID"
COUNT = "NumberOfSeriesRelatedInstances"

STUDY_ATTRIBUTES = (
    STUDY,
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "PatientName",
    "PatientID",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
SERIES_ATTRIBUTES = (
    SERIES,
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "BodyPartExamined",
    "ProtocolName",
    COUNT,
)
"""What searches ask for."""


class UnreachableError(ResourceError):
    """An archive does not answer; later it may."""

    kind = "unreachable"


class RefusedError(DataError):
    """An archive does not do what it was asked, or answers what makes no sense."""

    kind = "refused"


@dataclass(frozen=True)
class Query:
    """Which studies are looked for; blank: any. Words may hold * and ?.

    dates: of the study, YYYYMMDD or a range YYYYMMDD-YYYYMMDD; study: its UID.
    """

    patient_id: str = ""
    patient_name: str = ""
    dates: str = ""
    modality: str = ""
    description: str = ""
    accession: str = ""
    study: str = ""

    @property
    def attributes(self) -> dict[str, str]:
        """What must match, by keyword."""
        named = {
            "PatientID": self.patient_id,
            "PatientName": self.patient_name,
            "StudyDate": self.dates,
            "ModalitiesInStudy": self.modality,
            "StudyDescription": self.description,
            "AccessionNumber": self.accession,
            STUDY: self.study,
        }
        return {keyword: value for keyword, value in named.items() if value}


class Archive(Protocol):
    """An archive. Errors: `UnreachableError` and `RefusedError`, in one line without
    anything of a patient.
    """

    @property
    def name(self) -> str:
        """Of its profile."""

    @property
    def must_show(self) -> bool:
        """Whether what was stored counts only once a search shows it."""

    def echo(self) -> None:
        """Raise unless it answers."""

    def close(self) -> None:
        """Leave no connection open; the next request makes one anew."""

    def studies(self, query: Query) -> list[Attributes]:
        """Studies that match."""

    def series(self, study: str) -> list[Attributes]:
        """All series of a study."""

    def instances(self, study: str, series: str) -> set[str]:
        """UIDs of all objects of a series."""

    def fetch(
        self, study: str, series: str, wanted: Collection[str], place: "Place"
    ) -> None:
        """Bring objects of a series to a place; some may stay out."""

    def send(self, files: Sequence[DicomObject]) -> dict[str, str]:
        """Store objects; returns why, by UID, where one was refused."""


class Place(Protocol):
    """Where fetched objects go."""

    def new_part(self) -> Path:
        """The name of a file to write an object to, in the place itself."""

    def take(self, part: Path) -> None:
        """Keep what was written, under a name of its own."""


@dataclass(frozen=True)
class Retry:
    """How often a failed request is tried again, and after how long."""

    retries: int
    pause: float
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def of(self, request: Callable[[], T]) -> T:
        """The answer of a request; what cannot be reached is tried again."""
        for number in range(self.retries):
            try:
                return request()
            except UnreachableError:
                self.sleep(self.pause * 2**number)
        return request()


def unreachable(name: str, reason: object) -> UnreachableError:
    """That an archive does not answer."""
    return UnreachableError(
        f"{name}: cannot be reached ({reason}); check its profile, the network and "
        "whether it runs"
    )


def refused(name: str, reason: str) -> RefusedError:
    """That an archive answers something else than what was asked."""
    return RefusedError(f"{name}: {reason}")


def distinct(rows: Sequence[Attributes], key: str, name: str) -> list[Attributes]:
    """Rows that have a UID, once each; raises `RefusedError` for too many."""
    by_uid: dict[str, Attributes] = {}
    for row in rows:
        uid = row.get(key, "").strip()
        if uid:
            by_uid.setdefault(uid, row)
    if rows and not by_uid:
        raise refused(name, f"its answer to a search names no {key}")
    if len(by_uid) > MOST:
        raise refused(name, f"more than {MOST} matches; search for less")
    return list(by_uid.values())


def number_in(row: Attributes, keyword: str) -> int | None:
    """A whole number of an answer, None where there is none."""
    value = row.get(keyword, "").strip()
    return int(value) if value.isdecimal() and len(value) < 10 else None


def require_uid(uid: str, what: str) -> str:
    """The UID; raises `UsageError` for what is none (DICOM PS3.5 section 9.1)."""
    plain = uid.strip()
    numbers = plain.split(".")
    if len(plain) <= 64 and all(n.isascii() and n.isdigit() for n in numbers):
        return plain
    raise UsageError(f"{what}: is no UID; 'trivox pacs find --series' shows them")


def in_one_line(name: str, error: Exception) -> TrivoxError:
    """Whatever a library made of an answer, in one line that shows none of it."""
    if isinstance(error, TrivoxError):
        return error
    return refused(name, f"its answer cannot be read ({type(error).__name__})")
