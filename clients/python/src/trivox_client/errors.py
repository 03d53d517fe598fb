"""What can go wrong, by the codes of the service's problems."""

from collections.abc import Mapping
from typing import Any


class TrivoxClientError(Exception):
    """code: of the problem, empty where the service said nothing; status: of HTTP."""

    def __init__(
        self, message: str, *, code: str = "", status: int = 0, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after


class ConnectionLost(TrivoxClientError):
    """The service could not be reached, or the connection broke."""


class Unauthorized(TrivoxClientError):
    """A valid token is needed."""


class NotFound(TrivoxClientError):
    """There is no such model, job, path or result (any more)."""


class InvalidRequest(TrivoxClientError):
    """The service does not take what was sent."""


class ServerAtCapacity(TrivoxClientError):
    """The service takes no more at the moment; try again after `retry_after` seconds."""


class JobFailed(TrivoxClientError):
    """The job failed; `code` says why, as the job has it."""


class JobCancelled(TrivoxClientError):
    """The job was cancelled."""


class WrongVersion(TrivoxClientError):
    """The service is of another version; the message says which client to take."""


class ServerFailed(TrivoxClientError):
    """The service failed, or did not answer as a trivox service does."""


class WaitedTooLong(TrivoxClientError):
    """The job has not ended in the time that the caller gave it."""


class UnreadableFile(TrivoxClientError):
    """A file is no NIfTI that this package reads."""


KINDS: Mapping[str, type[TrivoxClientError]] = {
    "unauthorized": Unauthorized,
    "host-not-allowed": InvalidRequest,
    "cross-origin": InvalidRequest,
    "client-version": WrongVersion,
    "queue-full": ServerAtCapacity,
    "too-many-jobs": ServerAtCapacity,
    "too-many-images": ServerAtCapacity,
    "no-space": ServerAtCapacity,
    "not-healthy": ServerAtCapacity,
    "job-failed": JobFailed,
    "job-cancelled": JobCancelled,
    "expired": NotFound,
}
"""By code; other codes by their status."""
RETRY = 10.0
"""Seconds after which to try again where the service does not say."""


def error_of(
    status: int, content: Any, headers: Mapping[str, str]
) -> TrivoxClientError:
    """The error that an answer stands for. content: of the answer, if it is JSON."""
    problem = content if isinstance(content, dict) else {}
    code = str(problem.get("code", ""))
    title = str(problem.get("title", f"the service answered {status}"))
    detail = str(problem.get("detail", ""))
    kind = KINDS.get(code) or _kind_of_status(status)
    return kind(
        f"{title}: {detail}" if detail else title,
        code=code,
        status=status,
        retry_after=_seconds(headers.get("retry-after")),
    )


def _kind_of_status(status: int) -> type[TrivoxClientError]:
    if status in (429, 503):
        return ServerAtCapacity
    if status == 401:
        return Unauthorized
    if status == 404:
        return NotFound
    return InvalidRequest if 400 <= status < 500 else ServerFailed


def _seconds(text: str | None) -> float:
    if text is None:
        return 0.0
    return float(text) if text.isdecimal() else RETRY
