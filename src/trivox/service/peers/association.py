"""Associations with a DIMSE peer: how they are opened, and how they fail (DICOM PS3.7,
PS3.8). pynetdicom is imported when one is made.
"""

import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.optional import optional_package
from trivox.service.peers.archive import RefusedError, Retry, refused, unreachable
from trivox.service.peers.http import client_tls
from trivox.service.profiles import Dimse

SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
WARNINGS = (0xB000, 0xB006, 0xB007)
"""Statuses of a C-STORE that stored the object, with a remark (PS3.4 table B.2-1)."""
CONTEXTS = 128
"""Presentation contexts that an association has at most (PS3.8 section 7.1.1.13)."""
REJECTED = {
    (1, 1, 3): "it does not know the calling title of the profile",
    (1, 1, 7): "it is not called as the profile says (aet)",
    (2, 3, 2): "it has as many connections as it takes",
}


def dicom_network() -> Any:
    """pynetdicom, which writes what it receives to files piece by piece; raises
    `ResourceError` where it is not installed.
    """
    package = optional_package("pynetdicom", extra="dicom")
    settings = optional_package("pynetdicom._config", extra="dicom")
    settings.STORE_RECV_CHUNKED_DATASET = True
    settings.STORE_SEND_CHUNKED_DATASET = True
    settings.LOG_HANDLER_LEVEL = "none"
    return package


def service_class(name: str) -> Any:
    """A class of pynetdicom by its keyword."""
    classes = optional_package("pynetdicom.sop_class", extra="dicom")
    return getattr(classes, name)


@contextmanager
def files_received_in(folder: Path) -> Iterator[None]:
    """Let what comes in be written to a folder first, from where it is only moved."""
    folder.mkdir(parents=True, exist_ok=True)
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def close_unfinished(event: Any) -> None:
    """Let go of the file of an object of which no more will come."""
    message = event.assoc.dimse.message
    file = getattr(message, "_data_set_file", None)
    if file is not None:
        file.close()


def at_once(event: Any) -> None:
    """Let small pieces go without waiting for more: it makes storing twice as fast."""
    with suppress(OSError, AttributeError):
        event.assoc.dul.socket.socket.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )


@dataclass(frozen=True)
class Caller:
    """How a peer is called by this program."""

    name: str
    profile: Dimse

    @property
    def retry(self) -> Retry:
        """How failed associations are tried again."""
        return Retry(self.profile.retries, self.profile.pause)

    def entity(self) -> Any:
        """An application entity with the profile's title and patience."""
        entity = dicom_network().AE(ae_title=self.profile.calling_aet)
        entity.connection_timeout = self.profile.timeout
        entity.acse_timeout = self.profile.timeout
        entity.dimse_timeout = self.profile.timeout
        entity.network_timeout = self.profile.timeout
        return entity

    @contextmanager
    def calling(
        self,
        contexts: Sequence[tuple[Any, Sequence[str] | None]],
        *,
        roles: Iterable[Any] = (),
        handlers: Sequence[tuple[Any, Any]] = (),
    ) -> Iterator[Any]:
        """An association; contexts: classes and transfer syntaxes (None: the usual
        ones) that are proposed. Raises `UnreachableError` and `RefusedError`.
        """
        entity = self.entity()
        for kind, syntaxes in contexts[:CONTEXTS]:
            entity.add_requested_context(kind, syntaxes)
        association = self._associate(entity, list(roles), list(handlers))
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _associate(
        self, entity: Any, roles: list[Any], handlers: list[tuple[Any, Any]]
    ) -> Any:
        events = optional_package("pynetdicom.events", extra="dicom")
        profile = self.profile
        tls = (client_tls(self.name, profile), profile.host) if profile.tls else None
        association = entity.associate(
            profile.host,
            profile.port,
            ae_title=profile.aet,
            ext_neg=roles,
            evt_handlers=[(events.EVT_CONN_OPEN, at_once), *handlers],
            tls_args=tls,
        )
        if association.is_established:
            return association
        raise self._failure(association)

    def _failure(self, association: Any) -> Exception:
        """Why there is no association."""
        if association.is_rejected:
            answer = association.acceptor.primitive
            said = (answer.result, answer.result_source, answer.diagnostic)
            reason = REJECTED.get(said, "the association is rejected")
            if answer.result == 2:  # for now
                return unreachable(self.name, reason)
            return refused(self.name, f"{reason}; correct the profile or ask there")
        if association.acceptor.primitive is not None:
            return refused(self.name, "takes nothing of what was proposed")
        return unreachable(self.name, "no association")


def status_of(answer: Any, name: str) -> int:
    """The status of a response; raises `UnreachableError` where none came."""
    if not answer or "Status" not in answer:
        raise unreachable(name, "it broke off, or allows this to other titles only")
    return int(answer.Status)


def require_success(answer: Any, name: str, what: str) -> None:
    """Raise `RefusedError` for another status than success."""
    status = status_of(answer, name)
    if status != SUCCESS:
        raise failed(name, what, status)


def failed(name: str, what: str, status: int) -> RefusedError:
    """That a request was answered by another status."""
    return refused(name, f"{what} ended with status {status:#06x}")
