"""A small receiver for what an archive sends in answer to C-MOVE, and for what it vouches
for in a storage commitment.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from trivox.errors import ResourceError, TrivoxError
from trivox.optional import optional_package
from trivox.service.peers.archive import Place
from trivox.service.peers.association import (
    at_once,
    dicom_network,
    files_received_in,
    service_class,
)
from trivox.service.profiles import Dimse

CANNOT_KEEP = 0xA700
CANNOT_UNDERSTAND = 0xC000
"""Statuses of a C-STORE (DICOM PS3.4 table B.2-1)."""


def storing(place: Place) -> Callable[[Any], int]:
    """A handler of C-STORE that keeps objects at a place."""

    def store(event: Any) -> int:
        try:
            place.take(Path(event.dataset_path))
        except ResourceError:
            return CANNOT_KEEP
        except TrivoxError:
            return CANNOT_UNDERSTAND
        return 0x0000

    return store


@contextmanager
def listening(
    profile: Dimse, name: str, handlers: list[tuple[Any, Any]], folder: Path | None
) -> Iterator[None]:
    """Accept what the profile's archive sends to its receiver.

    folder: where objects are written first; None: only reports of commitments come.
    """
    network = dicom_network()
    events = optional_package("pynetdicom.events", extra="dicom")
    entity = network.AE(ae_title=profile.calling_aet)
    entity.require_called_aet = True
    entity.require_calling_aet = [profile.aet]
    entity.network_timeout = profile.timeout
    if folder is not None:
        _expect_objects(entity)
    commitment = service_class("StorageCommitmentPushModel")
    entity.add_supported_context(commitment, scu_role=True, scp_role=True)
    entity.add_supported_context(service_class("Verification"))
    address = (profile.receive_host, profile.receive_port)
    with nullcontext() if folder is None else files_received_in(folder):
        try:
            server = entity.start_server(
                address,
                block=False,
                evt_handlers=[(events.EVT_CONN_OPEN, at_once), *handlers],
            )
        except OSError as error:
            raise ResourceError(
                f"profile {name}: receive_port {profile.receive_port} cannot be "
                f"listened at ({error.strerror}); choose another one"
            ) from error
        try:
            yield
        finally:
            server.shutdown()


def _expect_objects(entity: Any) -> None:
    syntaxes = all_syntaxes()
    for context in dicom_network().AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, syntaxes)


def all_syntaxes() -> list[Any]:
    """All transfer syntaxes in which objects are kept as they come."""
    return list(dicom_network().ALL_TRANSFER_SYNTAXES)
