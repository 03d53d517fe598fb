"""Errors as RFC 9457 has them: `application/problem+json` with a stable `code`. None says
anything of what was sent, or of the inside of the program.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 10


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its HTTP status, and what it is called."""

    status: int
    title: str


KINDS = {
    "invalid-request": Kind(422, "The request is not as the API describes it"),
    "unauthorized": Kind(401, "A valid token is needed"),
    "host-not-allowed": Kind(400, "The server is not called so"),
    "cross-origin": Kind(403, "Pages of other servers may not ask"),
    "not-found": Kind(404, "There is no such thing"),
    "no-such-job": Kind(404, "There is no such job"),
    "no-such-result": Kind(404, "The job has no such result"),
    "no-such-session": Kind(404, "There is no such session"),
    "no-such-model": Kind(404, "No such model is served"),
    "no-such-archive": Kind(404, "The server knows no such archive"),
    "no-such-path": Kind(404, "There is no such scan in the data folder"),
    "method-not-allowed": Kind(405, "The method is not allowed here"),
    "timeout": Kind(408, "Nothing came for too long"),
    "not-ready": Kind(409, "The job has not ended yet"),
    "job-failed": Kind(409, "The job failed"),
    "not-reviewed": Kind(409, "Nobody has said anything of it"),
    "job-cancelled": Kind(409, "The job was cancelled"),
    "expired": Kind(404, "The results are kept no longer"),
    "too-large": Kind(413, "The upload is larger than the server takes"),
    "unsupported-media-type": Kind(415, "The body must be multipart/form-data"),
    "idempotency-key-reused": Kind(422, "The key belongs to another request"),
    "client-version": Kind(426, "Client and server are of different versions"),
    "too-many-jobs": Kind(429, "Too many jobs of this client are open"),
    "too-many-images": Kind(429, "Too many images of this client are kept"),
    "internal": Kind(500, "The server failed"),
    "no-inline-inference": Kind(404, "Volumes are not sent as numbers in one request"),
    "archive-unreachable": Kind(502, "The archive does not answer"),
    "archive-refused": Kind(502, "The archive answered something else"),
    "too-many-searches": Kind(503, "Too many searches at a time"),
    "queue-full": Kind(503, "The server takes no more jobs at the moment"),
    "not-healthy": Kind(503, "The server cannot work at the moment"),
    "no-space": Kind(507, "The disk of the server is full"),
}
"""All problems by code."""
LATER = (
    "too-many-jobs",
    "too-many-images",
    "too-many-searches",
    "queue-full",
    "no-space",
    "not-healthy",
    "archive-unreachable",
)
"""Of which the client may try again."""
BY_STATUS = {
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}
"""What the framework itself says."""


@dataclass(eq=False)
class ProblemError(Exception):
    """A problem to answer with. code: one of `KINDS`; detail: what to do, for people."""

    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """HTTP status."""
        return KINDS[self.code].status

    def response(self) -> JSONResponse:
        """The answer."""
        headers = dict(self.headers)
        if self.code in LATER:
            headers.setdefault("Retry-After", str(RETRY_SECONDS))
        return JSONResponse(
            self.content(), self.status, headers=headers, media_type=MEDIA_TYPE
        )

    def content(self) -> dict[str, Any]:
        """Fields of RFC 9457, and `code`."""
        return {
            "type": f"urn:trivox:problem:{self.code}",
            "title": KINDS[self.code].title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }


def problem_of_status(status: int, headers: Mapping[str, str] | None) -> ProblemError:
    """What the framework answers, as a problem."""
    usual = "invalid-request" if status < 500 else "internal"
    code = BY_STATUS.get(status, usual)
    return ProblemError(code, "see docs/reference/service.md", headers or {})
