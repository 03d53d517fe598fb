"""Searching, fetching from, sending to and asking an archive: `trivox pacs`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trivox.errors import DataError, UsageError, few
from trivox.outputs import require_folder_place
from trivox.service.fetching import Receipt, fetch_series
from trivox.service.objects import Shelf
from trivox.service.peers.archive import (
    COUNT,
    SERIES,
    STUDY,
    Archive,
    Attributes,
    Query,
    Retry,
    number_in,
    require_uid,
)
from trivox.service.peers.choice import opened
from trivox.service.profiles import chosen_profile, read_profiles
from trivox.service.pseudonyms import pseudonyms_of
from trivox.service.sending import Sent, objects_below, send_objects
from trivox.tasks.console import Console, Quiet
from trivox.verbs.texts import described

STUDY_COLUMNS = (
    "StudyDate",
    "ModalitiesInStudy",
    "PatientID",
    "PatientName",
    "StudyDescription",
    "NumberOfStudyRelatedInstances",
    STUDY,
)
SERIES_COLUMNS = ("Modality", "SeriesNumber", "SeriesDescription", COUNT, SERIES)
HEADINGS = {
    "StudyDate": "date",
    "ModalitiesInStudy": "modalities",
    "PatientID": "patient id",
    "PatientName": "patient",
    "StudyDescription": "description",
    "NumberOfStudyRelatedInstances": "objects",
    STUDY: "study UID",
    "Modality": "modality",
    "SeriesNumber": "number",
    "SeriesDescription": "description",
    COUNT: "objects",
    SERIES: "series UID",
}


@dataclass(frozen=True)
class FoundStudies:
    """What an archive lists: studies, or their series."""

    rows: tuple[Attributes, ...] = field(repr=False)
    columns: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """A table for people."""
        cells = [self._cells(row) for row in (HEADINGS, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return [_line(row, widths) for row in cells]

    def _cells(self, row: Attributes) -> list[str]:
        return [row.get(column, "") for column in self.columns]


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(padded).rstrip()


@dataclass(frozen=True)
class Fetched:
    """What came from an archive into a folder."""

    folder: Path
    receipts: tuple[Receipt, ...]

    @property
    def lines(self) -> list[str]:
        """A line for each series."""
        return [
            f"{each.here} of {each.expected} objects in {each.folder}"
            for each in self.receipts
        ]

    def require_all(self) -> None:
        """Raise `DataError` if a series is not whole."""
        lacking = [each for each in self.receipts if not each.is_whole]
        if lacking:
            counts = few(f"{each.here} of {each.expected}" for each in lacking)
            reason = next((f"; {e.problem}" for e in lacking if e.problem), "")
            raise DataError(
                f"{self.folder}: {len(lacking)} of {len(self.receipts)} series are not "
                f"whole ({counts} objects are here){reason}; the same command fetches "
                "the rest"
            ).with_result(self)


@described
def pacs_echo(*, profiles: Path | str | None = None, pacs: str | None = None) -> str:
    """Ask an archive whether it answers.

    Returns a line that says so. Raises `UnreachableError` and `RefusedError`.
    """
    with _chosen_archive(profiles, pacs) as archive:
        archive.echo()
    return f"{archive.name} answers"


@described
def pacs_find(
    *,
    profiles: Path | str | None = None,
    pacs: str | None = None,
    patient_id: str = "",
    patient_name: str = "",
    dates: str = "",
    modality: str = "",
    description: str = "",
    accession: str = "",
    study: str = "",
    series: bool = False,
) -> FoundStudies:
    """Search an archive for studies.

    Returns what it lists. Raises `UnreachableError` and `RefusedError`.
    """
    query = Query(
        patient_id=patient_id,
        patient_name=patient_name,
        dates=_dates(dates),
        modality=modality,
        description=description,
        accession=accession,
        study=require_uid(study, "--study") if study else "",
    )
    with _chosen_archive(profiles, pacs) as archive:
        studies = archive.studies(query)
        if not series:
            return FoundStudies(tuple(studies), STUDY_COLUMNS)
        rows: list[Attributes] = []
        for row in studies:
            rows += [{**row, **each} for each in archive.series(row[STUDY])]
    return FoundStudies(tuple(rows), SERIES_COLUMNS)


@described
def pacs_fetch(
    study: str,
    out: Path | str,
    *,
    profiles: Path | str | None = None,
    pacs: str | None = None,
    series: Sequence[str] = (),
    console: Console | None = None,
) -> Fetched:
    """Fetch a study, or some of its series, and count what came.

    What is here already stays as it is.

    Raises `UnreachableError` and `RefusedError`.
    """
    uid = require_uid(study, "STUDY")
    wanted = {require_uid(each, "--series") for each in series}
    folder = Path(out)
    require_folder_place(folder)
    said = console or Quiet()
    with _chosen_archive(profiles, pacs) as archive:
        rows = _chosen(archive, uid, wanted)
        shelf = Shelf(folder, pseudonyms_of(folder))
        receipts = [
            fetch_series(archive, shelf, uid, row[SERIES], number_in(row, COUNT))
            for row in said.track(rows, len(rows), "fetching")
        ]
    return Fetched(folder, tuple(receipts))


def _chosen(archive: Archive, study: str, wanted: set[str]) -> list[Attributes]:
    """The series to fetch; raises `DataError` for one that is not there."""
    rows = archive.series(study)
    if not rows:
        raise DataError(f"{archive.name}: has no such study, or no series of it")
    missing = wanted - {row[SERIES] for row in rows}
    if missing:
        raise DataError(
            f"{archive.name}: {len(missing)} of the series asked for are not in the study"
        )
    return [row for row in rows if not wanted or row[SERIES] in wanted]


@described
def pacs_send(
    objects: Sequence[Path | str],
    *,
    profiles: Path | str | None = None,
    pacs: str | None = None,
) -> Sent:
    """Send DICOM files to an archive, and look whether they are there afterwards.

    Raises `UnreachableError` and `RefusedError`; objects that are there already are not
    sent again.
    """
    name, profile = chosen_profile(read_profiles(_path(profiles)), pacs)
    with opened(name, profile) as archive:
        files, unreadable = objects_below([Path(each) for each in objects])
        sent = send_objects(archive, files, Retry(profile.retries, profile.pause))
    return replace(sent, refused=unreadable | sent.refused)


@contextmanager
def _chosen_archive(profiles: Path | str | None, pacs: str | None) -> Iterator[Archive]:
    """The archive of a profile."""
    name, profile = chosen_profile(read_profiles(_path(profiles)), pacs)
    with opened(name, profile) as archive:
        yield archive


def _path(file: Path | str | None) -> Path | None:
    return None if file is None else Path(file)


def _dates(text: str) -> str:
    """A day or a range of days as archives know them; raises `UsageError`."""
    plain = text.replace(" ", "")
    first, dash, last = plain.partition("-")
    days = [day for day in (first, last) if day]
    if plain and (not days or not all(_is_day(day) for day in days)):
        raise UsageError(
            f"--dates {text}: give a day as 20260131, or a range as 20260101-20260131"
        )
    return f"{first}{dash}{last}"


def _is_day(text: str) -> bool:
    from datetime import datetime

    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return len(text) == 8
