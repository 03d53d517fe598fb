"""Storage commitment: asking an archive to vouch for what it was sent (DICOM PS3.4 annex
J).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event
from typing import Any

from trivox.optional import optional_package
from trivox.service.objects import DicomObject
from trivox.service.peers.archive import unreachable
from trivox.service.peers.association import Caller, require_success, service_class
from trivox.service.peers.receiver import listening

PUSH = "StorageCommitmentPushModel"
REQUEST = 1
"""The one action of the class."""
NOT_VOUCHED = "not vouched for by storage commitment"


class Report:
    """What is heard of one transaction."""

    def __init__(self, transaction: str) -> None:
        self.transaction = transaction
        self.came = Event()
        self.failed: set[str] = set()

    def handle(self, event: Any) -> tuple[int, None]:
        """An N-EVENT-REPORT."""
        said = event.event_information
        if str(said.get("TransactionUID")) == self.transaction:
            items = said.get("FailedSOPSequence") or []
            self.failed = {str(item.ReferencedSOPInstanceUID) for item in items}
            self.came.set()
        return 0x0000, None


def request_of(files: Sequence[DicomObject], transaction: str) -> Any:
    """What is asked: a dataset that lists the objects."""
    from pydicom.dataset import Dataset

    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [_reference(each) for each in files]
    return request


def _reference(each: DicomObject) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = each.kind
    item.ReferencedSOPInstanceUID = each.instance
    return item


def vouched(caller: Caller, files: Sequence[DicomObject]) -> dict[str, str]:
    """Objects that the archive does not vouch for, with why, by UID. The report comes
    in the same association, or to the profile's receiver.
    """
    from pydicom.uid import generate_uid

    if not files:
        return {}
    report = Report(generate_uid())
    events = optional_package("pynetdicom.events", extra="dicom")
    handlers = [(events.EVT_N_EVENT_REPORT, report.handle)]
    model = service_class(PUSH)
    with ExitStack() as held:
        if caller.profile.receive_port is not None:
            receiver = listening(caller.profile, caller.name, handlers, None)
            held.enter_context(receiver)
        peer = held.enter_context(caller.calling([(model, None)], handlers=handlers))
        request = request_of(files, report.transaction)
        instance = service_class(f"{PUSH}Instance")
        answer, _ = peer.send_n_action(request, REQUEST, model, instance)
        require_success(answer, caller.name, "storage commitment")
        if not report.came.wait(caller.profile.timeout):
            raise unreachable(caller.name, "no report of the storage commitment")
    return dict.fromkeys(report.failed, NOT_VOUCHED)
