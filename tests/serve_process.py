"""`trivox serve` as a process of its own, for tests that kill it."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import httpx
import psutil

START = 120.0
"""Seconds that a server may take to answer on a busy machine."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A server that can be killed and started again."""

    def __init__(self, state, *models, options=()):
        self.port = free_port()
        self.state = state
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = state.with_name(f"{state.name}.log")
        self.command = [sys.executable, "-m", "trivox", "serve", *models]
        self.command += ["--port", str(self.port), "--state", str(state), *options]
        self.process = None
        self.client = httpx.Client(base_url=self.url, timeout=30.0)

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def wait(self):
        """Until it answers."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(httpx.TransportError):
                if self.client.get("/healthz").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    @property
    def workers(self):
        """The processes that compute, and their children."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self):
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def ask(self, method, path, *, patience=180.0, **content):
        """An answer, whatever happens to the server meanwhile."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                answer = self.client.request(method, path, **content)
                if answer.status_code not in (429, 503, 507):
                    return answer
            time.sleep(0.1)
        raise AssertionError(f"no answer to {method} {path}")


@contextmanager
def serving(state, *models, options=()):
    """A server that is there while this lasts; nothing of it is left afterwards."""
    server = Process(state, *models, options=options)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        left = server.workers
        with suppress(subprocess.TimeoutExpired):
            server.stop()
        if server.process.poll() is None:
            server.kill()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        server.client.close()
