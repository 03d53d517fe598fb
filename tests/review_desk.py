"""What tests of reviews share: a desk whose jobs are done, without any process."""

import hashlib
from contextlib import contextmanager
from secrets import token_hex

import httpx
import numpy as np

from serve_client import answering
from trivox.service.serve.api import app as apps
from trivox.service.serve.api.desk import Desk
from trivox.service.serve.api.limits import ServerLimits
from trivox.service.serve.api.schemas import ModelView
from trivox.service.serve.api.security import NOBODY, Gate, token_digest
from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.states import NewJob, ResultFile
from trivox.service.serve.jobs.store import JobStore
from trivox.service.serve.page.files import PageFiles
from trivox.service.serve.review import reader
from trivox.service.serve.review.process import said_of
from trivox.service.serve.work.supervisor import Supervisor
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

LABELS = {"liver": 1, "tumour": 7}
SHAPE = (5, 6, 7)
AFFINE = np.array([[-0.8, 0, 0, 3], [0, 0.9, 0, 5], [0, 0, 2.5, 7], [0, 0, 0, 1]])


def model_view(name, channels=("CT",), labels=LABELS):
    return ModelView(
        name=name,
        task="a task",
        labels=labels,
        channels=list(channels),
        classes=[],
        formats=["nifti"],
        version="0",
        identity="a1b2c3",
        sha256={},
        card=None,
    )


ASKED = reader._asked
"""Reads a scan in a process of its own."""
MODELS = [
    model_view("one"),
    model_view("two", ("T1", "T2")),
    model_view("views", (), {}),
]


def drawn_labels(seed=0, shape=SHAPE):
    values = np.array([0, *LABELS.values()], np.uint8)
    return np.random.default_rng(seed).choice(values, (1, *shape))


def drawn_image(seed=0, shape=SHAPE):
    draw = np.random.default_rng(seed)
    return draw.integers(-1000, 1000, (1, *shape)).astype(np.int16)


class Reviewed:
    """A desk, its client, and jobs that are done."""

    def __init__(self, folder, page, tokens=()):
        self.folders = Folders(folder)
        self.folders.make()
        self.store = JobStore(folder)
        limits = ServerLimits(reserve=0, upload=1 << 20)
        supervisor = Supervisor(["true"], 0, self.store, self.folders)
        self.desk = Desk(self.store, self.folders, supervisor, MODELS, limits)
        gate = Gate(tuple(token_digest(each) for each in tokens))
        self.app = apps.make_app(self.desk, gate, page)

    def done(
        self, files, *, model="one", client=NOBODY, seed=0, series=None, results=None
    ):
        """The job of a job that was sent these files (name -> volume or bytes)."""
        job = token_hex(16)
        folder = self.folders.of(job)
        (folder / "input").mkdir(parents=True)
        for name, content in files.items():
            put(folder / "input" / name, content)
        new = NewJob(job, client, model, format=None, series=series, body="", size=1)
        self.store.add(new)
        claim = self.store.claim(1)
        out = self.folders.results(job, claim.lease)
        out.mkdir()
        labels = Volume(drawn_labels(seed), AFFINE)
        for name, content in (results or {"case.nii.gz": labels}).items():
            put(out / name, content)
        listed = tuple(result_file(each) for each in sorted(out.iterdir()))
        self.store.finish(claim, out.name, listed, 1.0)
        return job


def put(file, content):
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        write_volume(file, content)


def result_file(file):
    content = file.read_bytes()
    return ResultFile(file.name, len(content), hashlib.sha256(content).hexdigest())


def scan(seed=0):
    """What was sent for a job."""
    return {"0000.nii.gz": Volume(drawn_image(seed), AFFINE)}


@contextmanager
def reviewed(folder, *, tokens=(), real=False):
    """A desk and its client. real: scans are read in processes with limits."""
    page = PageFiles(None)
    reader._asked = ASKED if real else said_of
    try:
        desk = Reviewed(folder, page, tokens)
        with (
            answering(desk.app) as url,
            httpx.Client(base_url=url, timeout=60.0) as client,
        ):
            yield client, desk
    finally:
        reader._asked = ASKED


def put_review(client, job, decision="accept", *, file=None, headers=None, **fields):
    """Send a review; returns the answer."""
    files = {"file": ("labels.nii.gz", file)} if file is not None else {}
    form = {"decision": decision, "who": "Dr. A", **fields}
    parts = [(name, (None, value)) for name, value in form.items()]
    return client.put(
        f"/v1/jobs/{job}/review", files=[*parts, *files.items()], headers=headers or {}
    )
