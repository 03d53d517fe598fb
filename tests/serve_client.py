"""What tests of the service share: a server in this process whose workers are real."""

import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from trivox.service.serve.api.app import make_app
from trivox.service.serve.api.limits import ServerLimits
from trivox.service.serve.api.schemas import ModelView
from trivox.service.serve.server import (
    Address,
    Service,
    listening,
    running,
    server_config,
)
from trivox.service.serve.settings import JobLimits, ServedModel, WorkSettings

WORKER = (sys.executable, str(Path(__file__).with_name("serve_engine.py")))
LIMITS = ServerLimits(reserve=0, upload=1 << 20, queue=64, per_client=64)
JOB_LIMITS = JobLimits(memory=1 << 28, seconds=30.0, unpacked=1 << 20)


def model_view(name, channels):
    return ModelView(
        name=name,
        task="segmentation",
        labels={"liver": 1},
        channels=channels,
        classes=[],
        formats=["nifti", "dicom-seg"],
        version="0",
        identity="0",
        sha256={},
        card=None,
    )


MODELS = [model_view("one", ["T1"]), model_view("two", ["T1", "T2"])]


def service_in(folder, **changes):
    """A service with two models that do what the scan says."""
    served = tuple(ServedModel(name=each.name, path=folder) for each in MODELS)
    limits = changes.pop("job_limits", JOB_LIMITS)
    archives = changes.pop("archives", None)
    work = WorkSettings(
        folder=folder,
        models=served,
        limits=limits,
        pause=0.02,
        grace=0.2,
        archives=archives,
    )
    worker = changes.pop("worker", WORKER)
    settings = {"limits": LIMITS, "workers": 1, **changes}
    return Service(work, MODELS, worker, **settings)


@contextmanager
def served(folder, **changes):
    """A client of a service, and its desk."""
    service = service_in(folder, **changes)
    with (
        running(service) as desk,
        answering(make_app(desk, service.gate)) as url,
        httpx.Client(base_url=url, timeout=60.0) as client,
    ):
        yield client, desk


@contextmanager
def answering(app):
    """The address at which an application answers."""
    with listening(Address(port=0)) as listener:
        server = uvicorn.Server(server_config(app, Address()))
        work = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        work.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            work.join()


def send(client, data, *, model="one", name="Doe_Jane.mha", headers=None, **fields):
    """Queue a scan; returns the answer, wherever it leads."""
    files = [("file", (name, data))]
    form = {"model": model, **fields}
    return client.post(
        "/v1/jobs", files=files, data=form, headers=headers or {}, follow_redirects=True
    )


def ended(client, name, *, patience=60.0, headers=None):
    """The job at its end."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        answer = client.get(f"/v1/jobs/{name}", headers=headers or {})
        if answer.json()["state"] in ("done", "failed", "cancelled"):
            return answer.json()
        time.sleep(0.02)
    raise AssertionError(f"job {name} did not end: {answer.json()}")


def until(condition, *, patience=30.0):
    """Wait until something holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
