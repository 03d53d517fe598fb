"""From a profile to an archive."""

from trivox.service.peers.archive import Archive
from trivox.service.peers.association import Caller, dicom_network
from trivox.service.peers.dicomweb import DicomWebArchive
from trivox.service.peers.dimse import DimseArchive
from trivox.service.peers.http import WebServer
from trivox.service.profiles import DicomWeb, Dimse


def archive_of(name: str, profile: DicomWeb | Dimse) -> Archive:
    """The archive that a profile describes; raises `ResourceError` where the package
    that speaks DIMSE is missing.
    """
    if isinstance(profile, DicomWeb):
        return DicomWebArchive(WebServer(name, profile))
    dicom_network()
    return DimseArchive(Caller(name, profile))
