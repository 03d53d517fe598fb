"""The node's ear: associations that are taken, and what is heard in them (DICOM PS3.8).

A peer that is not named in the rules, or calls another title, is turned away before it
says anything.
"""

import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivox.errors import ResourceError, UsageError
from trivox.files import remove_leftovers, temporary_name
from trivox.optional import optional_package
from trivox.service.node.commitments import PUSH, Commitments
from trivox.service.node.intake import Intake
from trivox.service.peers.archive import in_one_line
from trivox.service.peers.association import (
    at_once,
    close_unfinished,
    dicom_network,
    files_received_in,
    service_class,
)
from trivox.service.peers.receiver import all_syntaxes
from trivox.service.profiles import is_this_machine
from trivox.service.rules import Node

REJECTED_FOR_GOOD = 1
BY_THE_USER = 1
CALLING_NOT_KNOWN = 3
"""Why an association is rejected (PS3.8 section 9.3.4)."""
REFUSED = 0xA700
GREETING_SECONDS = 10.0
"""Time in which a peer that connects has to ask for an association."""


@dataclass
class Listener:
    """Takes what peers send, within limits.

    sizes: bytes of the message that is coming, by association.
    """

    node: Node
    intake: Intake
    commitments: Commitments
    say: Callable[[str], None]
    sizes: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Listen until this ends; yields the port."""
        folder = self.intake.shelf.folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        coming = temporary_name(folder / "coming")
        with files_received_in(coming):
            server = self._started()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                shutil.rmtree(coming, ignore_errors=True)

    def _started(self) -> Any:
        node = self.node
        try:
            return self._entity().start_server(
                (node.bind, node.port),
                block=False,
                ssl_context=server_tls(node),
                evt_handlers=self._handlers(),
            )
        except OSError as error:
            raise ResourceError(
                f"{node.bind} port {node.port}: cannot be listened at "
                f"({error.strerror}); choose another --port"
            ) from error

    def _entity(self) -> Any:
        """An application entity that takes storage, echoes and commitments."""
        network = dicom_network()
        entity = network.AE(ae_title=self.node.aet)
        entity.require_called_aet = True
        entity.maximum_associations = self.node.associations
        entity.acse_timeout = min(self.node.timeout, GREETING_SECONDS)
        entity.dimse_timeout = self.node.timeout
        entity.network_timeout = self.node.timeout
        syntaxes = all_syntaxes()
        for context in network.AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, syntaxes)
        entity.add_supported_context(service_class("Verification"))
        entity.add_supported_context(service_class(PUSH))
        return entity

    def _handlers(self) -> list[tuple[Any, Any]]:
        events = optional_package("pynetdicom.events", extra="dicom")
        return [
            (events.EVT_CONN_OPEN, at_once),
            (events.EVT_REQUESTED, self._admit),
            (events.EVT_DATA_RECV, self._count),
            (events.EVT_DIMSE_RECV, self._count_anew),
            (events.EVT_CONN_CLOSE, self._count_anew),
            (events.EVT_CONN_CLOSE, close_unfinished),
            (events.EVT_C_STORE, self._store),
            (events.EVT_N_ACTION, self.commitments.handle),
        ]

    def _admit(self, event: Any) -> None:
        """Turn away peers that are not named."""
        requestor = event.assoc.requestor
        title = requestor.primitive.calling_ae_title.strip()
        if self.knows(title, requestor.address):
            return
        self.say(
            "an association was rejected: its title or address is not among the peers"
        )
        event.assoc.acse.send_reject(REJECTED_FOR_GOOD, BY_THE_USER, CALLING_NOT_KNOWN)
        event.assoc.kill()

    def knows(self, title: str, address: str) -> bool:
        """Whether a peer may send; without any peers this machine may."""
        if not self.node.peers:
            return is_this_machine(address)
        return any(
            peer.aet == title and peer.host in (None, address)
            for peer in self.node.peers
        )

    def _count(self, event: Any) -> None:
        """Bytes of an object that is coming; one that is too large is cut off."""
        key = id(event.assoc)
        size = self.sizes.get(key, 0) + len(event.data)
        self.sizes[key] = size
        if size > self.node.largest_gb * 1e9 * 1.01 + 2**20:
            self.say("an association was cut off: its object is larger than largest_gb")
            self.sizes.pop(key, None)
            event.assoc.abort(block=False)

    def _count_anew(self, event: Any) -> None:
        self.sizes.pop(id(event.assoc), None)

    def _store(self, event: Any) -> int:
        sender = event.assoc.requestor.ae_title.strip()
        try:
            return self.intake.stored(
                Path(event.dataset_path),
                kind=str(event.request.AffectedSOPClassUID),
                instance=str(event.request.AffectedSOPInstanceUID),
                sender=sender,
            )
        except Exception as error:  # nothing that a peer sends ends the node
            self.say(str(in_one_line(sender, error)))
            return REFUSED


class PatientTls(ssl.SSLContext):
    """TLS in which a peer that says nothing holds up nobody else: hands are shaken in
    the thread of its own association, within a time.

    patience: seconds.
    """

    patience = 10.0

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> ssl.SSLSocket:
        """A socket whose first reading shakes hands."""
        sock.settimeout(self.patience)
        options["do_handshake_on_connect"] = False
        return super().wrap_socket(sock, *args, **options)


def server_tls(node: Node) -> ssl.SSLContext | None:
    """How the node proves who it is, and asks peers to; raises `UsageError`."""
    if node.cert_file is None:
        return None
    context = PatientTls(ssl.PROTOCOL_TLS_SERVER)
    context.patience = min(node.timeout, GREETING_SECONDS)
    try:
        context.load_cert_chain(node.cert_file, node.key_file)
        if node.ca_file is not None:
            context.load_verify_locations(node.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        raise UsageError(
            "node: cert_file, key_file or ca_file cannot be used; check them"
        ) from error
    return context
