"""Asks a trivox service: scans in, label maps out."""

from trivox_client.client import TrivoxClient
from trivox_client.errors import (
    ConnectionLost,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotFound,
    ServerAtCapacity,
    ServerFailed,
    TrivoxClientError,
    Unauthorized,
    UnreadableFile,
    WaitedTooLong,
    WrongVersion,
)
from trivox_client.records import Failure, Job, Model
from trivox_client.transport import Retries, Timeouts
from trivox_client.version import __version__

__all__ = [
    "ConnectionLost",
    "Failure",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobFailed",
    "Model",
    "NotFound",
    "Retries",
    "ServerAtCapacity",
    "ServerFailed",
    "Timeouts",
    "TrivoxClient",
    "TrivoxClientError",
    "Unauthorized",
    "UnreadableFile",
    "WaitedTooLong",
    "WrongVersion",
    "__version__",
]
