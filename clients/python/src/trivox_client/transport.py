"""Requests, repeated where that does no harm.

A request that was not sent (no connection, none free) may always be repeated. One that
may have been sent is repeated only if the service takes it for the same one: GET and
DELETE, and POST with an Idempotency-Key.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from trivox_client.errors import ConnectionLost, error_of
from trivox_client.version import __version__

T = TypeVar("T")

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
PERHAPS_SENT = (httpx.TransportError,)
REPEATABLE = ("GET", "DELETE")
KEY = "Idempotency-Key"


@dataclass(frozen=True)
class Timeouts:
    """Seconds for each phase of a request. read: between two pieces of an answer; pool:
    until one of the connections is free.
    """

    connect: float = 10.0
    read: float = 60.0
    write: float = 60.0
    pool: float = 10.0

    def for_httpx(self) -> httpx.Timeout:
        """The same for httpx."""
        return httpx.Timeout(
            connect=self.connect, read=self.read, write=self.write, pool=self.pool
        )


@dataclass(frozen=True)
class Retries:
    """times: that a request is repeated; pause: seconds before the first repetition,
    doubled for each further one.
    """

    times: int = 3
    pause: float = 0.5


class Transport:
    """Sends requests to one service."""

    def __init__(
        self,
        url: str,
        token: str | None,
        timeouts: Timeouts,
        retries: Retries,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Trivox-Client": __version__}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.retries = retries
        self.sleep = sleep
        self.http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=timeouts.for_httpx(),
            transport=transport,
        )

    def json(self, method: str, path: str) -> Any:
        """The JSON that is answered; raises `TrivoxClientError`."""
        return self.repeated(lambda: self._answer(method, path), method in REPEATABLE)

    def post(self, path: str, key: str, make: Callable[[], Mapping[str, Any]]) -> Any:
        """Post a form that `make` makes anew for each try; returns the JSON."""
        headers = {KEY: key}

        def send() -> Any:
            return self._answer("POST", path, headers=headers, **make())

        return self.repeated(send, True)

    def repeated(self, send: Callable[[], T], repeatable: bool) -> T:
        """What `send` returns, tried again where that does no harm; raises
        `ConnectionLost`.
        """
        pause = self.retries.pause
        for left in range(self.retries.times, -1, -1):
            try:
                return send()
            except PERHAPS_SENT as error:
                may_repeat = repeatable or isinstance(error, NOT_SENT)
                if not left or not may_repeat:
                    raise ConnectionLost(_lost(self.http, error)) from error
            self.sleep(pause)
            pause *= 2
        raise AssertionError("a request is sent at least once")

    @contextmanager
    def streamed(self, path: str) -> Iterator[httpx.Response]:
        """An answer that is read while it comes; raises `TrivoxClientError`, and what
        httpx raises where the connection breaks.
        """
        with self.http.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
                raise error_of(answer.status_code, _content(answer), answer.headers)
            yield answer

    def close(self) -> None:
        """Close all connections."""
        self.http.close()

    def _answer(self, method: str, path: str, **content: Any) -> Any:
        answer = self.http.request(method, path, **content)
        if not answer.is_success:
            raise error_of(answer.status_code, _content(answer), answer.headers)
        return _content(answer)


def _content(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _lost(http: httpx.Client, error: httpx.TransportError) -> str:
    kind = type(error).__name__
    return f"{http.base_url}: no answer ({kind}: {error}); is the service running?"
