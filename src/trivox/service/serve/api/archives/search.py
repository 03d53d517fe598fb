"""Looking for a series in the archives of the server, a few searches at a time."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trivox.errors import TrivoxError, UsageError
from trivox.service.peers.archive import (
    COUNT,
    SERIES,
    STUDY,
    Archive,
    Attributes,
    Query,
    UnreachableError,
    number_in,
)
from trivox.service.peers.choice import opened
from trivox.service.profiles import DicomWeb, Dimse, chosen_profile, read_profiles
from trivox.service.serve.api.archives.schemas import (
    SeriesList,
    SeriesView,
    StudyList,
    StudyQuery,
    StudyView,
)
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.work.references import Reference

MOST = 200
"""Matches of an answer."""
AT_ONCE = 4
"""Searches: each keeps a thread of the server until the archive answers."""


def archive_names(profiles: Path | None) -> list[str]:
    """The archives that may be searched."""
    return [] if profiles is None else sorted(_read(profiles))


def require_archive(name: str, profiles: Path | None) -> DicomWeb | Dimse:
    """The profile of an archive; raises `ProblemError` where there is none."""
    known = {} if profiles is None else _read(profiles)
    try:
        return chosen_profile(known, name)[1]
    except UsageError as error:
        raise ProblemError(
            "no-such-archive", "/v1/archives lists those of this server"
        ) from error


def _read(profiles: Path) -> Mapping[str, DicomWeb | Dimse]:
    """Read anew each time: who runs the server may change them."""
    try:
        return read_profiles(profiles)
    except TrivoxError as error:
        raise ProblemError(
            "not-healthy", "the operator has to look at the profiles of the archives"
        ) from error


class Searches:
    """Searches the archives of one server."""

    def __init__(self, profiles: Path | None) -> None:
        self.profiles = profiles
        self._places = threading.Semaphore(AT_ONCE)

    def studies(self, name: str, asked: StudyQuery) -> StudyList:
        """Studies that match; raises `ProblemError`."""
        query = Query(**asked.model_dump())
        with self._opened(name) as archive:
            rows = archive.studies(query)
        shown = [_study(row) for row in rows[:MOST]]
        return StudyList(studies=shown, more=len(rows) > MOST)

    def series(self, name: str, study: str) -> SeriesList:
        """The series of a study; raises `ProblemError`."""
        with self._opened(name) as archive:
            rows = archive.series(study)
        shown = list(_series(name, study, rows))
        return SeriesList(series=shown[:MOST], more=len(shown) > MOST)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Archive]:
        profile = require_archive(name, self.profiles)
        if not self._places.acquire(blocking=False):
            raise ProblemError("too-many-searches", "search again a little later")
        try:
            with opened(name, profile) as archive:
                yield archive
        except UnreachableError as error:
            raise ProblemError("archive-unreachable", str(error)) from error
        except TrivoxError as error:
            raise ProblemError("archive-refused", str(error)) from error
        finally:
            self._places.release()


def _study(row: Attributes) -> StudyView:
    return StudyView(
        study=row[STUDY],
        date=row.get("StudyDate", ""),
        modalities=row.get("ModalitiesInStudy", "").replace("\\", ", "),
        patient_id=row.get("PatientID", ""),
        patient_name=row.get("PatientName", ""),
        description=row.get("StudyDescription", ""),
        objects=number_in(row, "NumberOfStudyRelatedInstances"),
    )


def _series(name: str, study: str, rows: Sequence[Attributes]) -> Iterator[SeriesView]:
    """Those that have a UID that can be referred to."""
    for row in rows:
        try:
            reference = Reference(archive=name, study=study, series=row[SERIES])
        except ValueError:
            continue
        yield SeriesView(
            reference=reference.text,
            modality=row.get("Modality", ""),
            number=row.get("SeriesNumber", ""),
            description=row.get("SeriesDescription", ""),
            objects=number_in(row, COUNT),
        )
