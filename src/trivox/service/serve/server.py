"""The server process: it answers requests, keeps workers alive and cleans up."""

import logging
import os
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from trivox.errors import ResourceError, UsageError
from trivox.files import write_json
from trivox.locks import claimed
from trivox.service.serve.api.app import make_app
from trivox.service.serve.api.desk import Desk
from trivox.service.serve.api.limits import ServerLimits
from trivox.service.serve.api.protocols.shelf import Shelf
from trivox.service.serve.api.schemas import ModelView
from trivox.service.serve.api.security import Gate
from trivox.service.serve.janitor import Janitor
from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.store import JobStore, Limits
from trivox.service.serve.page.files import PageFiles, viewer_archives
from trivox.service.serve.settings import WorkSettings
from trivox.service.serve.work.supervisor import Supervisor
from trivox.service.serve.work.worker import settings_text

VERB = "serve"
WORKERS_FILE = "workers.json"
LOG_FORMAT = "%(asctime)s %(message)s"
GRACEFUL = 5
"""Seconds for requests that are being answered when the server stops."""
CONNECTIONS = 512
HEADER_BYTES = 32_768
IDLE = 15
"""Seconds that a connection may stay open without a request."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Address:
    """Where the server listens. certificate, key: files of TLS; none: plain HTTP."""

    host: str = "127.0.0.1"
    port: int = 8470
    certificate: Path | None = None
    key: Path | None = None

    @property
    def url(self) -> str:
        """As clients write it."""
        scheme = "http" if self.certificate is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class Service:
    """All that a server is. command: starts a worker, given a file of settings;
    assets: folder with what the page takes of others, None: it is fetched once.
    """

    work: WorkSettings
    models: Sequence[ModelView]
    command: Sequence[str]
    workers: int = 1
    limits: ServerLimits = field(default_factory=ServerLimits)
    gate: Gate = field(default_factory=Gate)
    address: Address = field(default_factory=Address)
    data: Path | None = None
    assets: Path | None = None


def run(service: Service, say: Say) -> None:
    """Serve until SIGTERM or Ctrl-C; raises `BusyError` where another server has the
    folder, `ResourceError` where the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    os.umask(0o077)
    folders = Folders(service.work.folder)
    folders.make()
    with (
        claimed(folders.root, VERB),
        listening(service.address) as listener,
        running(service) as desk,
    ):
        page = PageFiles(viewer_archives(service.assets))
        app = make_app(desk, service.gate, page)
        server = Server(server_config(app, service.address), desk)
        port = listener.getsockname()[1]
        address = replace(service.address, port=port)
        say(f"serving {_names(service.models)} at {address.url}")
        server.run(sockets=[listener])


@contextmanager
def running(service: Service) -> Iterator[Desk]:
    """The desk of a service whose workers run."""
    folders = Folders(service.work.folder)
    folders.make()
    limits = service.limits
    open_jobs = Limits(queue=limits.queue, per_client=limits.per_client)
    store = JobStore(folders.root, limits=open_jobs, lease=service.work.lease)
    file = folders.root / WORKERS_FILE
    write_json(file, settings_text(service.work))
    command = (*service.command, str(file))
    supervisor = Supervisor(command, service.workers, store, folders)
    janitor = Janitor(store, folders, limits.keep, Shelf(folders, limits).sweep)
    desk = Desk(
        store,
        folders,
        supervisor,
        service.models,
        limits,
        data=service.data,
        archives=service.work.archives,
        workers=service.workers,
        job_limits=service.work.limits,
    )
    supervisor.start()
    janitor.start()
    try:
        yield desk
    finally:
        desk.stopping.set()
        janitor.stop()
        supervisor.stop()


class Server(uvicorn.Server):
    """Ends the streams of events before it waits for requests."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM or Ctrl-C."""
        self.desk.stopping.set()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server, and are not raised again once it has ended."""
        before = {
            each: signal.signal(each, self.handle_exit)
            for each in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def server_config(app: Any, address: Address) -> uvicorn.Config:
    """How requests are taken."""
    return uvicorn.Config(
        app,
        http="h11",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACEFUL,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        proxy_headers=False,
        ws="none",
    )


@contextmanager
def listening(address: Address) -> Iterator[Any]:
    """A socket at the address; raises in one line where there can be none."""
    _require_certificate(address)
    import socket

    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sends at once only what goes through sockets that say they are TCP's
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise ResourceError(
            f"{address.host}:{address.port}: cannot be listened at "
            f"({error.strerror or error}); choose another --port or --host"
        ) from error
    try:
        yield listener
    finally:
        listener.close()


def _require_certificate(address: Address) -> None:
    if address.certificate is None:
        return
    try:
        ssl.create_default_context().load_cert_chain(address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{address.certificate}: is no certificate with its key ({error}); give "
            "--tls-cert and --tls-key as PEM files"
        ) from error


def _names(models: Sequence[ModelView]) -> str:
    return ", ".join(model.name for model in models)
