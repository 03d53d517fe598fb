"""Storage commitment by the node: it vouches for objects that lie on its disk (DICOM
PS3.4 annex J).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trivox.service.objects import Shelf
from trivox.service.peers.association import dicom_network, service_class
from trivox.service.rules import Node, Peer

PUSH = "StorageCommitmentPushModel"
ALL_HERE = 1
SOME_FAILED = 2
"""Types of the report (PS3.4 section J.3.3)."""
NOT_HERE = 0x0112
"""No such object instance (PS3.3 section C.14)."""
ACCEPTED = 0x0000
INVALID = 0x0115
"""Invalid argument value (PS3.7 annex C)."""
MOST = 100_000
"""Objects that are asked for at once."""
PAUSE = 0.2
"""Seconds from the answer to the report on the same association."""


@dataclass(frozen=True)
class Commitments:
    """Answers to requests for storage commitment."""

    node: Node
    shelf: Shelf
    say: Callable[[str], None]

    def handle(self, event: Any) -> tuple[int, None]:
        """An N-ACTION; the report follows when it is answered."""
        try:
            report = self._report(event.action_information)
        except Exception:  # pydicom raises nearly anything on damaged requests
            return INVALID, None
        timer = threading.Timer(PAUSE, self._send, (event.assoc, report))
        timer.daemon = True
        timer.start()
        return ACCEPTED, None

    def _report(self, request: Any) -> Any:
        """What is here of what was asked for, and what is not."""
        from pydicom.dataset import Dataset

        items = list(request.ReferencedSOPSequence)
        if not items or len(items) > MOST:
            raise ValueError("asks for nothing, or for too much")
        here: list[Any] = []
        missing: list[Any] = []
        stems = {file.stem for file in self.shelf.folder.glob("*/*/*.dcm")}
        for item in items:
            present = self.shelf.names.of(item.ReferencedSOPInstanceUID) in stems
            (here if present else missing).append(item)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        if here:
            report.ReferencedSOPSequence = here
        if missing:
            for item in missing:
                item.FailureReason = NOT_HERE
            report.FailedSOPSequence = missing
        return report

    def _send(self, association: Any, report: Any) -> None:
        """The report, to where the peer listens or else in its own association."""
        title = association.requestor.ae_title.strip()
        peer = next((p for p in self.node.peers if p.aet == title), None)
        try:
            if peer is not None and peer.port is not None:
                self._call(peer, association.requestor.address, report)
            else:
                _say_report(association, report)
        except Exception as error:  # the peer is gone, or not as it should be
            self.say(f"{title}: took no report ({type(error).__name__})")

    def _call(self, peer: Peer, address: str, report: Any) -> None:
        network = dicom_network()
        model = service_class(PUSH)
        entity = network.AE(ae_title=self.node.aet)
        entity.connection_timeout = self.node.timeout
        entity.acse_timeout = self.node.timeout
        entity.dimse_timeout = self.node.timeout
        entity.add_requested_context(model)
        role = network.build_role(model, scp_role=True)
        association = entity.associate(
            peer.host or address, peer.port, ae_title=peer.aet, ext_neg=[role]
        )
        if not association.is_established:
            raise ConnectionError("no association")
        try:
            _say_report(association, report)
        finally:
            association.release()


def _say_report(association: Any, report: Any) -> None:
    kind = SOME_FAILED if "FailedSOPSequence" in report else ALL_HERE
    association.send_n_event_report(
        report, kind, service_class(PUSH), service_class(f"{PUSH}Instance")
    )
