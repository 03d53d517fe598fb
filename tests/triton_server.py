"""A real Triton server from PyPI (`nvidia-pytriton`), which has the Python backend alone,
in a virtual environment of its own: `make test-triton`.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "TRIVOX_TRITON"
"""Environment variable: the folder of the virtual environment."""
SECONDS = 120


def environment():
    """The folder of the virtual environment, None where there is none."""
    folder = os.environ.get(VARIABLE)
    return Path(folder).absolute() if folder else None


class Server:
    def __init__(self, process, log, http, grpc):
        self.process = process
        self.log = log
        self.http = http
        self.url = f"127.0.0.1:{grpc}"

    def get(self, path):
        """What the server says, None for another answer than 200."""
        address = f"http://127.0.0.1:{self.http}/v2/{path}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.loads(answer.read() or b"{}")
        except (urllib.error.URLError, ConnectionError):
            return None

    def wait(self, path):
        """Until the server answers with 200."""
        end = time.monotonic() + SECONDS
        while self.get(path) is None:
            said = self.log.read_text()[-2000:]
            assert self.process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.2)


@contextmanager
def serving(models, folder, *options):
    """A server of a model repository, on this machine alone; its files lie in `folder`."""
    place = environment()
    package = next(place.glob("lib/python3.*/site-packages/pytriton"))
    backends = _backends(package / "tritonserver", folder)
    http, grpc = _free_ports(2)
    log = folder / "server.log"
    command = [
        package / "tritonserver" / "bin" / "tritonserver",
        f"--model-repository={models}",
        f"--backend-directory={backends}",
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
        "--allow-metrics=false",
        *options,
    ]
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    libraries = package.parent / "nvidia_pytriton.libs"
    variables |= {"PATH": path, "LD_LIBRARY_PATH": str(libraries)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=variables)
    try:
        yield Server(process, log, http, grpc)
    finally:
        process.terminate()
        process.wait(SECONDS)


def _backends(server, folder):
    """The backends with the stub of the environment's Python beside them."""
    backends = folder / "backends"
    shutil.copytree(server / "backends", backends)
    version = server.parents[1].parent.name.removeprefix("python")
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    return backends


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
