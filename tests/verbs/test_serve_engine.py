"""What a job computes is what `trivox predict` computes."""

import subprocess
import sys
from pathlib import Path

import pytest

from trivox.errors import TrivoxError
from trivox.inference.many.ready import READY
from trivox.service.serve.jobs.states import Failure, Stage
from trivox.service.serve.settings import ServedModel, WorkSettings
from trivox.service.serve.work.child import failure_of
from trivox.service.serve.work.engine import JobError, Order
from trivox.service.serve.work.supervisor import WITHOUT_THREADS
from trivox.verbs.clinic.engine import PredictEngine, formats_of
from trivox.verbs.predict import predict
from trivox.volumes.formats import read_labels, read_volume

SMALL = Path(__file__).parents[2] / "models"


def engine_of(folder, **models):
    served = tuple(ServedModel(name=name, path=path) for name, path in models.items())
    return PredictEngine(WorkSettings(folder=folder, models=served, device="cpu"))


@pytest.fixture(autouse=True)
def nothing_ready():
    yield
    READY.clear()


def compute(engine, model, source, out, **options):
    out.mkdir()
    stages = []
    engine.predict(Order(model, source, out, **options), stages.append)
    return stages


@pytest.mark.parametrize("warm", [False, True])
def test_labels_are_those_of_predict(tiny_run, tiny_data, tmp_path, warm):
    engine = engine_of(tmp_path, tiny=tiny_run)
    if warm:
        engine.warm("tiny")
    image = sorted((tiny_data / "images").iterdir())[0]
    stages = compute(engine, "tiny", image, tmp_path / "out")
    assert stages == [Stage.PREPARING, Stage.COMPUTING, Stage.WRITING]
    predict(tiny_run, image, tmp_path / "expected", device="cpu")
    (expected,) = (tmp_path / "expected").glob("*.nii.gz")
    labels = read_labels(tmp_path / "out" / expected.name)
    assert (labels.array == read_labels(expected).array).all()
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert names == {each.name for each in (tmp_path / "expected").iterdir()}


def test_volumes_are_those_of_predict(xray_run, xray_data, tmp_path):
    engine = engine_of(tmp_path, xray=xray_run)
    exam = sorted((xray_data / "patients").iterdir())[0]
    compute(engine, "xray", exam, tmp_path / "out")
    predict(xray_run, exam, tmp_path / "expected", device="cpu")
    (expected,) = (tmp_path / "expected").glob("*.nii.gz")
    volume = read_volume(tmp_path / "out" / expected.name)
    assert (volume.array == read_volume(expected).array).all()
    assert engine.channels("xray") == ()


def test_formats_that_are_asked_for_are_written(tiny_run, tiny_data, tmp_path):
    engine = engine_of(tmp_path, tiny=tiny_run)
    image = sorted((tiny_data / "images").iterdir())[0]
    assert "png" in formats_of(tiny_run)
    compute(engine, "tiny", image, tmp_path / "out", format="png")
    assert [each.suffix for each in (tmp_path / "out").iterdir()].count(".png") == 1
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_scan_that_cannot_be_read_fails_as_unusable(tiny_run, tmp_path):
    engine = engine_of(tmp_path, tiny=tiny_run)
    image = tmp_path / "case.nii.gz"
    image.write_bytes(b"damaged")
    with pytest.raises((JobError, TrivoxError)) as failed:
        compute(engine, "tiny", image, tmp_path / "out")
    code, _ = failure_of(failed.value)
    assert code is Failure.UNUSABLE_INPUT


def test_a_model_that_is_served_no_more_is_said(tmp_path):
    with pytest.raises(JobError) as failed:
        engine_of(tmp_path).channels("gone")
    assert failed.value.code is Failure.MODEL


THREADS = """
import os, sys
from pathlib import Path
from trivox.service.serve.settings import ServedModel, WorkSettings
from trivox.verbs.clinic.engine import PredictEngine
served = ServedModel(name="hippocampus", path=Path(sys.argv[1]))
settings = WorkSettings(folder=Path("."), models=(served,), device="cpu")
PredictEngine(settings).warm("hippocampus")
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="counts threads in /proc"
)
def test_a_worker_has_one_thread_when_it_forks():
    command = ["env", "-u", "OMP_NUM_THREADS", *WITHOUT_THREADS, sys.executable]
    done = subprocess.run(
        [*command, "-c", THREADS, str(SMALL / "hippocampus")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
