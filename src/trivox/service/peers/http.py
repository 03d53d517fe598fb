"""Requests to a web server with bounds: time, tries, and what an answer may hold.
Redirections are not followed, so that a secret goes where its profile says.
"""

import base64
import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from trivox.errors import UsageError
from trivox.service.peers.archive import RefusedError, Retry, refused, unreachable
from trivox.service.profiles import Connection, DicomWeb
from trivox.service.secret import read_secret

LARGEST_TEXT = 64 * 2**20
"""Bytes of an answer that is no object."""
LATER = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of a server that may answer later."""
ADVICE = {
    401: "the user or the secret of the profile is wrong",
    403: "the profile's user may not do that",
    404: "there is no such thing, or the profile's url is not that of DICOMweb",
    406: "it does not offer DICOM in that form",
    413: "it does not take as much at once",
    415: "it does not take this kind of object",
}


class Body(Protocol):
    """What is sent: it can be read more than once."""

    @property
    def size(self) -> int:
        """In bytes."""

    def chunks(self) -> Iterator[bytes]:
        """From the start."""


@dataclass
class Answer:
    """Status and headers of an answer, of which `read` gives the rest."""

    status: int
    headers: Mapping[str, str]
    response: http.client.HTTPResponse = field(repr=False)

    @property
    def kind(self) -> str:
        """Its media type, in small letters."""
        return (self.headers.get("content-type") or "").strip()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        return self.response.read(size)

    def text(self, name: str) -> bytes:
        """All of an answer that is no object; raises `RefusedError` if it is huge."""
        content = self.response.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise refused(name, "its answer is larger than any list of objects")
        return content


@dataclass
class WebServer:
    """A server as its profile has it; one connection, made anew when it breaks."""

    name: str
    profile: DicomWeb
    connection: http.client.HTTPConnection | None = field(default=None, repr=False)
    response: http.client.HTTPResponse | None = field(default=None, repr=False)

    @property
    def retry(self) -> Retry:
        """How failed requests are tried again."""
        return Retry(self.profile.retries, self.profile.pause)

    @contextmanager
    def asked(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        kind: str | None = None,
        body: Body | None = None,
    ) -> Iterator[Answer]:
        """The answer to a request, whatever its status; what is not read of it is
        thrown away. Raises `UnreachableError` where none comes.
        """
        try:
            yield self._answer(method, path, self._headers(accept, kind, body), body)
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self.name, _reason(error)) from error
        finally:
            self._finish()

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: Body | None
    ) -> Answer:
        base = urlsplit(self.profile.url).path.rstrip("/")
        connection = self._connected()
        content = None if body is None else body.chunks()
        connection.request(method, base + path, body=content, headers=headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        self.response = response
        return Answer(response.status, names, response)

    def _finish(self) -> None:
        """Keep the connection only where the answer was read to its end."""
        whole = self.response is not None and self.response.isclosed()
        if not whole:
            self.close()
        self.response = None

    def close(self) -> None:
        """Close the connection; the next request makes one anew."""
        if self.response is not None:
            self.response.close()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _headers(
        self, accept: str, kind: str | None, body: Body | None
    ) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "trivox"}
        headers |= self._authorization()
        if kind is not None and body is not None:
            headers |= {"Content-Type": kind, "Content-Length": str(body.size)}
        return headers

    def _authorization(self) -> dict[str, str]:
        profile = self.profile
        where = f"profile {self.name}"
        token = read_secret(profile.token_file, profile.token_env, where=where)
        if token is not None:
            return {"Authorization": f"Bearer {token}"}
        password = read_secret(profile.password_file, profile.password_env, where=where)
        if password is None:
            return {}
        pair = base64.b64encode(f"{profile.user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def _connected(self) -> http.client.HTTPConnection:
        if self.connection is not None:
            return self.connection
        parts = urlsplit(self.profile.url)
        timeout = self.profile.timeout
        host = parts.hostname or ""
        if parts.scheme == "https":
            self.connection = http.client.HTTPSConnection(
                host,
                parts.port,
                timeout=timeout,
                context=client_tls(self.name, self.profile),
            )
        else:
            self.connection = http.client.HTTPConnection(
                host, parts.port, timeout=timeout
            )
        return self.connection


def client_tls(name: str, profile: Connection) -> ssl.SSLContext:
    """How a server's certificate is judged; raises `UsageError` for bad files."""
    try:
        context = ssl.create_default_context(cafile=profile.ca_file)
        if profile.cert_file is not None:
            context.load_cert_chain(profile.cert_file, profile.key_file)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"profile {name}: ca_file, cert_file or key_file cannot be used "
            f"({_reason(error)})"
        ) from error
    if not profile.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def require_good(name: str, answer: Answer, *good: int) -> None:
    """Raise unless an answer has one of these statuses: `UnreachableError` where it may
    have later.
    """
    if answer.status in good:
        return
    raise failure(name, answer)


def failure(name: str, answer: Answer) -> Exception:
    """What an answer of another status means; its text is not shown."""
    if answer.status in LATER:
        return unreachable(name, f"status {answer.status}")
    if 300 <= answer.status < 400:
        return refused(name, "sends elsewhere; put the final url into its profile")
    advice = ADVICE.get(answer.status, "its log says more")
    return RefusedError(f"{name}: answers with status {answer.status}; {advice}")


def _reason(error: Exception) -> str:
    """Why there is no answer, without what was asked for."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}".lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(type(error).__name__)
