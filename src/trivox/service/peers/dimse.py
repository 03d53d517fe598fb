"""An archive that speaks DIMSE: C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE and storage
commitment (DICOM PS3.4 annexes A, B, C, J), study root.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from trivox.optional import optional_package
from trivox.service.objects import DicomObject, looked_up
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
from trivox.service.peers.association import (
    CONTEXTS,
    PENDING,
    SUCCESS,
    WARNINGS,
    Caller,
    dicom_network,
    failed,
    files_received_in,
    require_success,
    service_class,
    status_of,
)
from trivox.service.peers.commitment import vouched
from trivox.service.peers.receiver import all_syntaxes, listening, storing

CLASS = "SOPClassUID"
FIND = "StudyRootQueryRetrieveInformationModelFind"
GET = "StudyRootQueryRetrieveInformationModelGet"
MOVE = "StudyRootQueryRetrieveInformationModelMove"
SOME_FAILED = 0xB000
"""Status of a retrieval of which some objects did not come (PS3.4 section C.4.2.1.4)."""


@dataclass(frozen=True)
class DimseArchive:
    """See `archive.Archive`."""

    caller: Caller

    @property
    def name(self) -> str:
        """Of its profile."""
        return self.caller.name

    @property
    def must_show(self) -> bool:
        """A peer may store and have no search; then its statuses count."""
        return False

    def echo(self) -> None:
        """C-ECHO."""
        self.caller.retry.of(self._echo)

    def close(self) -> None:
        """Nothing: each request has an association of its own."""

    def studies(self, query: Query) -> list[Attributes]:
        """Studies that match."""
        keys = dict.fromkeys(STUDY_ATTRIBUTES, "") | query.attributes
        return distinct(self._find("STUDY", keys), STUDY, self.name)

    def series(self, study: str) -> list[Attributes]:
        """All series of a study."""
        keys = dict.fromkeys(SERIES_ATTRIBUTES, "") | {STUDY: study}
        return distinct(self._find("SERIES", keys), SERIES, self.name)

    def instances(self, study: str, series: str) -> set[str]:
        """UIDs of all objects of a series."""
        return {row[INSTANCE] for row in self._images(study, series)}

    def fetch(
        self, study: str, series: str, wanted: Collection[str], place: Place
    ) -> None:
        """Bring objects of a series by C-GET or C-MOVE."""
        if not wanted:
            return
        move = self.caller.profile.retrieve == "move"
        identifier = _identifier("IMAGE", {STUDY: study, SERIES: series})
        identifier.SOPInstanceUID = sorted(wanted)
        if move:
            self.caller.retry.of(partial(self._move, identifier, place))
            return
        rows = self._images(study, series)
        kinds = {row[CLASS] for row in rows if row.get(CLASS)}
        self.caller.retry.of(partial(self._get, identifier, kinds, place))

    def send(self, files: Sequence[DicomObject]) -> dict[str, str]:
        """Store objects; returns why, by UID, where one was refused."""
        reasons: dict[str, str] = {}
        for batch in _batches(files):
            reasons |= self.caller.retry.of(partial(self._store, batch))
        if self.caller.profile.commitment:
            stored = [each for each in files if each.instance not in reasons]
            reasons |= vouched(self.caller, stored)
        return reasons

    # -- searches ----------------------------------------------------------------------
    def _echo(self) -> None:
        with self.caller.calling([(service_class("Verification"), None)]) as peer:
            require_success(peer.send_c_echo(), self.name, "C-ECHO")

    def _images(self, study: str, series: str) -> list[Attributes]:
        keys = {STUDY: study, SERIES: series, INSTANCE: "", CLASS: ""}
        return distinct(self._find("IMAGE", keys), INSTANCE, self.name)

    def _find(self, level: str, keys: Mapping[str, str]) -> list[Attributes]:
        return self.caller.retry.of(partial(self._search, level, keys))

    def _search(self, level: str, keys: Mapping[str, str]) -> list[Attributes]:
        model = service_class(FIND)
        rows: list[Attributes] = []
        with self.caller.calling([(model, None)]) as peer:
            for answer, row in peer.send_c_find(_identifier(level, keys), model):
                status = status_of(answer, self.name)
                if status not in (*PENDING, SUCCESS):
                    raise failed(self.name, "C-FIND", status)
                if row is not None and status in PENDING:
                    rows.append(_attributes(row))
                if len(rows) > MOST:
                    peer.abort()
                    raise refused(
                        self.name, f"more than {MOST} matches; search for less"
                    )
        return rows

    # -- objects -----------------------------------------------------------------------
    def _get(self, identifier: Any, kinds: set[str], place: Place) -> None:
        network = dicom_network()
        events = optional_package("pynetdicom.events", extra="dicom")
        model = service_class(GET)
        classes = sorted(kinds) or _usual_classes()
        contexts = [(model, None), *_separately(classes)]
        roles = [network.build_role(kind, scp_role=True) for kind in classes]
        handlers = [(events.EVT_C_STORE, storing(place))]
        with (
            files_received_in(place.new_part().parent),
            self.caller.calling(contexts, roles=roles, handlers=handlers) as peer,
        ):
            self._watch(peer.send_c_get(identifier, model), "C-GET")

    def _move(self, identifier: Any, place: Place) -> None:
        events = optional_package("pynetdicom.events", extra="dicom")
        model = service_class(MOVE)
        profile = self.caller.profile
        handlers = [(events.EVT_C_STORE, storing(place))]
        folder = place.new_part().parent
        with (
            listening(profile, self.name, handlers, folder),
            self.caller.calling([(model, None)]) as peer,
        ):
            answers = peer.send_c_move(identifier, profile.calling_aet, model)
            self._watch(answers, "C-MOVE")

    def _watch(self, answers: Any, what: str) -> None:
        """Follow a retrieval to its end; which objects came is counted elsewhere."""
        for answer, _ in answers:
            status = status_of(answer, self.name)
            if status not in (*PENDING, SUCCESS, SOME_FAILED):
                raise failed(self.name, what, status)

    def _store(self, batch: Sequence[DicomObject]) -> dict[str, str]:
        reasons: dict[str, str] = {}
        with self.caller.calling(_store_contexts(batch)) as peer:
            for each in batch:
                reason = self._store_one(peer, each)
                if reason:
                    reasons[each.instance] = reason
        return reasons

    def _store_one(self, peer: Any, each: DicomObject) -> str:
        """Why an object was refused, blank if it was stored."""
        try:
            answer = peer.send_c_store(each.path)
        except ValueError:  # no context for its transfer syntax
            try:
                answer = peer.send_c_store(_uncompressed(each))
            except ValueError:
                return "refused (its class or transfer syntax is not taken)"
        status = status_of(answer, self.name)
        if status in (SUCCESS, *WARNINGS):
            return ""
        return f"refused (status {status:#06x})"


def _identifier(level: str, keys: Mapping[str, str]) -> Any:
    """What a search or a retrieval asks for."""
    from pydicom.dataset import Dataset

    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value or None)
    return identifier


def _attributes(row: Any) -> Attributes:
    """An answer as text by keyword; what cannot be read is left out."""
    named: dict[str, str] = {}
    for tag in row.keys():  # noqa: SIM118  # values are only made when asked for
        try:
            keyword = row[tag].keyword
            if keyword:
                named[keyword] = looked_up(row, keyword)
        except Exception:  # pydicom raises nearly anything on damaged values
            continue
    return named


def _usual_classes() -> list[str]:
    contexts = dicom_network().StoragePresentationContexts
    return [str(context.abstract_syntax) for context in contexts[: CONTEXTS - 1]]


def _separately(classes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A context for each class and transfer syntax where they fit, so that objects come
    as they are stored; else one for each class.
    """
    syntaxes = [str(each) for each in all_syntaxes()]
    room = (CONTEXTS - 1) // len(classes)
    if room < 2:
        return [(kind, syntaxes) for kind in classes]
    contexts: list[tuple[str, list[str]]] = []
    for kind in classes:
        contexts += [(kind, [each]) for each in syntaxes[:room]]
    return contexts


def _store_contexts(batch: Sequence[DicomObject]) -> list[tuple[str, list[str]]]:
    """A context for each kind of object as it is, and one for it uncompressed."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    pairs = dict.fromkeys((each.kind, each.syntax) for each in batch)
    kinds = dict.fromkeys(each.kind for each in batch)
    simple = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    contexts = [(kind, [syntax]) for kind, syntax in pairs]
    return contexts + [(kind, simple) for kind in kinds]


def _batches(files: Sequence[DicomObject]) -> list[list[DicomObject]]:
    """Files in portions whose contexts fit into an association."""
    batches: list[list[DicomObject]] = [[]]
    pairs: set[tuple[str, str]] = set()
    for each in files:
        pairs.add((each.kind, each.syntax))
        kinds = {kind for kind, _ in pairs}
        if len(pairs) + len(kinds) > CONTEXTS:
            batches.append([])
            pairs = {(each.kind, each.syntax)}
        batches[-1].append(each)
    return [batch for batch in batches if batch]


def _uncompressed(each: DicomObject) -> Any:
    """An object whose pixels every archive takes; its UID stays: no pixel changes."""
    from pydicom import dcmread

    dataset = dcmread(each.path)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    return dataset
