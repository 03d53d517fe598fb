"""An archive that speaks DICOMweb: QIDO-RS, WADO-RS, STOW-RS (DICOM PS3.18 chapter 10)."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from trivox.errors import DataError
from trivox.service.objects import DicomObject
from trivox.service.peers.archive import (
    INSTANCE,
    MOST,
    SERIES,
    SERIES_ATTRIBUTES,
    STUDY,
    STUDY_ATTRIBUTES,
    Attributes,
    Place,
    Query,
    distinct,
    refused,
)
from trivox.service.peers.http import Answer, WebServer, require_good
from trivox.service.peers.multipart import (
    BrokenAnswerError,
    Parts,
    boundary_of,
    files_body,
)

JSON = "application/dicom+json"
OBJECTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'
PAGE = 500
BATCH_BYTES = 64 * 10**6
BATCH_FILES = 100


@dataclass
class DicomWebArchive:
    """See `archive.Archive`."""

    server: WebServer

    @property
    def name(self) -> str:
        """Of its profile."""
        return self.server.name

    @property
    def must_show(self) -> bool:
        """Servers have answered with 200 though nothing was stored."""
        return True

    def echo(self) -> None:
        """Ask for a single study."""
        self._page("/studies", {"limit": "1"})

    def close(self) -> None:
        """Close the connection."""
        self.server.close()

    def studies(self, query: Query) -> list[Attributes]:
        """Studies that match."""
        rows = self._search("/studies", query.attributes, STUDY_ATTRIBUTES, STUDY)
        return distinct(rows, STUDY, self.name)

    def series(self, study: str) -> list[Attributes]:
        """All series of a study."""
        path = f"/studies/{quote(study)}/series"
        rows = self._search(path, {}, SERIES_ATTRIBUTES, SERIES)
        return distinct(rows, SERIES, self.name)

    def instances(self, study: str, series: str) -> set[str]:
        """UIDs of all objects of a series."""
        path = f"/studies/{quote(study)}/series/{quote(series)}/instances"
        rows = self._search(path, {}, (), INSTANCE)
        return {row[INSTANCE] for row in rows if row.get(INSTANCE)}

    def fetch(
        self, study: str, series: str, wanted: Collection[str], place: Place
    ) -> None:
        """Bring objects one by one, so that what is here stays here."""
        folder = f"/studies/{quote(study)}/series/{quote(series)}/instances"
        failures: list[DataError] = []
        for instance in sorted(wanted):
            path = f"{folder}/{quote(instance)}"
            try:
                self.server.retry.of(partial(self._fetch, path, place))
            except DataError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def send(self, files: Sequence[DicomObject]) -> dict[str, str]:
        """Store objects; returns why, by UID, where one was refused."""
        reasons: dict[str, str] = {}
        for batch in _batches(files):
            reasons |= self.server.retry.of(partial(self._store, batch))
        return reasons

    # -- searches ----------------------------------------------------------------------
    def _search(
        self,
        path: str,
        matching: Mapping[str, str],
        fields: Sequence[str],
        key: str,
    ) -> list[Attributes]:
        """All pages of an answer; servers that know no pages give all at once."""
        rows: list[Attributes] = []
        known: set[str] = set()
        while True:
            values = {"limit": str(PAGE), "offset": str(len(rows)), **matching}
            page = self._page(path, values, fields)
            new = [row for row in page if row.get(key, "") not in known]
            known |= {row.get(key, "") for row in new}
            rows += new
            if len(page) != PAGE or not new or len(rows) > MOST:
                return rows

    def _page(
        self, path: str, values: Mapping[str, str], fields: Sequence[str] = ()
    ) -> list[Attributes]:
        pairs = [*values.items(), *(("includefield", name) for name in fields)]
        return self.server.retry.of(partial(self._rows, f"{path}?{urlencode(pairs)}"))

    def _rows(self, path: str) -> list[Attributes]:
        with self.server.asked("GET", path, accept=JSON) as answer:
            if answer.status == 404 and path.startswith("/studies/"):
                return []  # of a study that is not there
            require_good(self.name, answer, 200, 204)
            content = answer.text(self.name)
            if answer.status == 204 or not content.strip():
                return []
            return rows_of(content, answer, self.name)

    # -- objects -----------------------------------------------------------------------
    def _fetch(self, path: str, place: Place) -> None:
        largest = self.server.profile.largest
        with self.server.asked("GET", path, accept=OBJECTS) as answer:
            if answer.status == 404:
                return  # listed, but not there: who counts will notice
            require_good(self.name, answer, 200)
            try:
                parts = Parts(answer.read, boundary_of(answer.kind), largest)
                for part in parts.write_each(place.new_part):
                    place.take(part)
            except BrokenAnswerError as error:
                raise refused(self.name, f"an object that it sent {error}") from error

    def _store(self, batch: Sequence[DicomObject]) -> dict[str, str]:
        body = files_body([each.path for each in batch], [each.size for each in batch])
        path = "/studies"
        with self.server.asked(
            "POST", path, accept=JSON, kind=body.kind, body=body
        ) as answer:
            # 202 and 409: some or all objects were refused, the answer says which
            require_good(self.name, answer, 200, 202, 409)
            reasons = refusals(answer.text(self.name))
        if answer.status == 409 and not reasons:
            return {each.instance: "refused (status 409)" for each in batch}
        return reasons


def _batches(files: Sequence[DicomObject]) -> Iterator[list[DicomObject]]:
    """Files in portions that a server takes at once."""
    batch: list[DicomObject] = []
    size = 0
    for each in files:
        full = len(batch) >= BATCH_FILES or size + each.size > BATCH_BYTES
        if batch and full:
            yield batch
            batch = []
            size = 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


def rows_of(content: bytes, answer: Answer, name: str) -> list[Attributes]:
    """The rows of an answer in DICOM JSON (PS3.18 annex F); raises `RefusedError`."""
    kind = answer.kind.partition(";")[0].strip().lower()
    if kind and "json" not in kind:
        raise refused(name, "answers a search with something else than DICOM JSON")
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refused(name, "its answer to a search is no JSON") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise refused(name, "its answer to a search is no DICOM JSON")
    return [_attributes(row) for row in rows]


def _attributes(row: Mapping[str, Any]) -> Attributes:
    """Values as text by keyword, without what makes no sense."""
    from pydicom.datadict import keyword_for_tag

    named: dict[str, str] = {}
    for tag, element in row.items():
        if len(tag) != 8 or not isinstance(element, dict):
            continue
        try:
            keyword = keyword_for_tag(int(tag, 16))
        except ValueError:
            continue
        values = element.get("Value")
        if keyword and isinstance(values, list):
            named[keyword] = "\\".join(_text(value) for value in values)
        elif keyword:
            named[keyword] = ""
    return named


def _text(value: Any) -> str:
    if isinstance(value, dict):  # a person's name, in several scripts
        value = value.get("Alphabetic")
    if value is None or isinstance(value, dict | list):
        return ""
    return str(value)


def refusals(content: bytes) -> dict[str, str]:
    """Why objects were refused, by UID, as an answer to STOW says (PS3.18 table
    I.2-2); nothing where it is none: what is there is asked afterwards.
    """
    try:
        answer = json.loads(content)
        items = answer["00081198"]["Value"]
        return dict(_refusal(item) for item in items)
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        return {}


def _refusal(item: Mapping[str, Any]) -> tuple[str, str]:
    uid = str(item["00081155"]["Value"][0])
    reason = item.get("00081197", {}).get("Value", [None])[0]
    shown = f"{reason:#06x}" if isinstance(reason, int) else "none given"
    return uid, f"refused (reason {shown})"
