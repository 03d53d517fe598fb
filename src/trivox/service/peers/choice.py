"""From a profile to an archive."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from trivox.service.peers.archive import Archive
from trivox.service.peers.association import Caller, dicom_network
from trivox.service.peers.dicomweb import DicomWebArchive
from trivox.service.peers.dimse import DimseArchive
from trivox.service.peers.http import WebServer
from trivox.service.profiles import DicomWeb, Dimse
from trivox.volumes.dicom.files import quiet


@contextmanager
def opened(name: str, profile: DicomWeb | Dimse) -> Iterator[Archive]:
    """The archive that a profile describes, closed afterwards; pydicom's warnings, which
    quote objects, are kept away. Raises as `archive_of` does.
    """
    with closing(archive_of(name, profile)) as archive, quiet():
        yield archive


def archive_of(name: str, profile: DicomWeb | Dimse) -> Archive:
    """The archive that a profile describes; raises `ResourceError` where the package
    that speaks DIMSE is missing.
    """
    if isinstance(profile, DicomWeb):
        return DicomWebArchive(WebServer(name, profile))
    dicom_network()
    return DimseArchive(Caller(name, profile))
