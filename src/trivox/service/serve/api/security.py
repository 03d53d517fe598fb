"""Who may ask: the first thing that every request passes.

A page of another server may make a browser ask this one; the names in `Host` and `Origin`
betray it. A token is compared in a time that says nothing of it.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.work.child import places_of
from trivox.version import __version__

LOG = logging.getLogger("trivox.serve.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Note = Callable[[str, str, int, float], None]
"""Is called with method, route, status and seconds of each answer."""
UNROUTED = "other"
LINGER = 5.0
PAUSE = 0.5
LINGER_BYTES = 1 << 26
"""Seconds in all and between two pieces, and bytes, for which an upload is read on that
was refused.
"""
METHODS = ("GET", "POST", "PUT", "DELETE")
OPEN = (
    *("/healthz", "/openapi.json", "/"),
    *("/v2/health/live", "/v2/health/ready"),
    *("/auth/", "/auth/token"),
)
"""Paths that need no token: they say nothing of anybody."""
PAGE = "/page/"
"""What the paths of the page's own files begin with."""
NOBODY = "local"
"""The client where no token is needed."""
CLIENT_VERSION = "trivox-client"
"""Header in which a client says of which version it is."""
LOOPBACK_NAMES = ("localhost",)
FAILED = ProblemError("internal", "the operator has to look at its log")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Trivox-Version": __version__,
}
"""Of every answer that does not bring its own."""


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can reach a host."""
    if host in LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def host_name(host: str) -> str:
    """A host as browsers write it, without port and brackets."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    return name.rstrip(".").lower()


def token_digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True)
class Gate:
    """Whom the server answers. tokens: digests, none: nobody is asked for one; hosts:
    names that it has; addresses: whether any IP address is one of its names, which no
    page can pretend.
    """

    tokens: tuple[bytes, ...] = ()
    hosts: frozenset[str] = frozenset(LOOPBACK_NAMES)
    addresses: bool = False

    def client(self, headers: Headers, path: str) -> str:
        """The pseudonym of who asks; raises `ProblemError` for whom is not answered."""
        self._require_name(headers.get("host", ""))
        self._require_no_stranger(headers)
        _require_version(headers.get(CLIENT_VERSION))
        if not self.tokens or path in OPEN or path.startswith(PAGE):
            return NOBODY
        digest = self._digest(headers.get("authorization", ""))
        return hashlib.sha256(b"client" + digest).hexdigest()[:16]

    def knows_token(self, token: str) -> bool:
        """Whether a token is one of those that are answered."""
        given = token_digest(token)
        matches = [hmac.compare_digest(given, each) for each in self.tokens]
        return any(matches)

    def _digest(self, authorization: str) -> bytes:
        scheme, _, token = authorization.partition(" ")
        given = token_digest(token.strip())
        is_known = self.knows_token(token.strip())
        if scheme.lower() != "bearer" or not is_known:
            raise ProblemError(
                "unauthorized",
                "send the header 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": 'Bearer realm="trivox"'},
            )
        return given

    def knows(self, host: str) -> bool:
        """Whether a host, with or without a port, is this server."""
        name = host_name(host)
        address = _address(name)
        if address is not None and (self.addresses or address.is_loopback):
            return True
        return name in self.hosts

    def _require_name(self, host: str) -> None:
        if not self.knows(host):
            raise ProblemError(
                "host-not-allowed",
                "start the server with --allow-host NAME for each name that it has",
            )

    def _require_no_stranger(self, headers: Headers) -> None:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        mode = headers.get("sec-fetch-mode", "")
        strange = origin is not None and not self._is_here(origin, headers)
        if strange or (site == "cross-site" and mode != "navigate"):
            raise ProblemError(
                "cross-origin", "ask from a page of this server, or from a program"
            )

    def _is_here(self, origin: str, headers: Headers) -> bool:
        """Whether a page came from this server, port included."""
        place = origin.partition("://")[2]
        return place.lower() == headers.get("host", "").lower() and self.knows(place)


def _require_version(client: str | None) -> None:
    if client is None or _major_minor(client) == _major_minor(__version__):
        return
    wanted = ".".join(_major_minor(__version__))
    raise ProblemError(
        "client-version",
        f"this server is trivox {__version__}; install a client {wanted}.*",
        {"Upgrade": f"trivox/{wanted}", "Connection": "Upgrade"},
    )


def _major_minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _has_body(scope: Scope) -> bool:
    """Whether something follows the headers of a request."""
    headers = Headers(scope=scope)
    if "expect" in headers:  # it waits to be asked
        return False
    announced = headers.get("content-length", "0") != "0"
    return announced or "transfer-encoding" in headers


class Exchange:
    """One request and its answer, as the guard lets them pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        self.scope = scope
        self.begun = False
        self._receive = receive
        self._send = send
        self._note = note
        self._began = time.perf_counter()
        self._unread = _has_body(scope)

    async def receive(self) -> Message:
        """The next piece of the request."""
        message = await self._receive()
        self._unread = self._unread and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """The next piece of the answer; the first one has the headers."""
        if message["type"] == "http.response.start":
            self.begun = True
            self._measure(message["status"])
            await self._drain()
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._unread:  # nobody wants the rest
                headers["Connection"] = "close"
        await self._send(message)

    def _measure(self, status: int) -> None:
        """Note an answer by its route, which has the names of ids and not their values."""
        route = getattr(self.scope.get("route"), "path", UNROUTED)
        method = self.scope["method"]
        seconds = time.perf_counter() - self._began
        self._note(method if method in METHODS else UNROUTED, route, status, seconds)

    async def _drain(self) -> None:
        """Let a client finish that reads no answer before, if it does so soon."""
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self._unread and left > 0:
                    message = await asyncio.wait_for(self.receive(), PAUSE)
                    left -= len(message.get("body", b""))


class Guard:
    """The outermost layer: asks the gate, adds headers, and lets no error out."""

    def __init__(self, app: App, gate: Gate, note: Note) -> None:
        self.app = app
        self.gate = gate
        self.note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":  # nothing else is spoken here
            await self._answer(Exchange(scope, receive, send, self.note))

    async def _answer(self, exchange: Exchange) -> None:
        scope = exchange.scope
        try:
            scope.setdefault("state", {})
            client = self.gate.client(Headers(scope=scope), scope["path"])
            scope["state"]["client"] = client
            await self.app(scope, exchange.receive, exchange.send)
        except ProblemError as problem:
            await problem.response()(scope, exchange.receive, exchange.send)
        except Exception as error:
            LOG.error("a request failed: %s", places_of(error))
            if not exchange.begun:
                await FAILED.response()(scope, exchange.receive, exchange.send)
