import json
import os
import subprocess
import sys

import pytest
import torch

from trivox.learning.checkpoints import load_weights
from trivox.learning.tracking import read_records
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without distributed"
)

# Plain SGD: AdamW turns rounding noise in vanishing gradients into whole steps, so no
# two summation orders would agree.
SETTINGS = {
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "batch_size": 4,
    "weight_decay": 0.0,
}

RUNS = {
    "sample": {"batch_dice": False},
    "pooled": {"batch_dice": True},
    "one head": {"deep_supervision": False},
    "features": {
        "pretrained": "sample",
        "freeze_encoder": 0.7,
        "unfreezing": "staged",
        "weights_ema": 0.8,
        "micro_batch": 1,
        "keep_best": 2,
        "final_weights": "average",
        "loss_options": {"adaptive": "uncertainty"},
    },
}
"""Dice a sample, Dice over the batch, and all that has to be the same on every rank."""

WORKER = """
import hashlib, json, sys
from pathlib import Path
import torch
import torch.distributed as dist
import trivox.tasks.labels.segmentation as segmentation
import trivox.tasks.run as training

torch.set_num_threads(1)
dist.init_process_group("gloo")  # once for all runs
networks = []
build = segmentation.build_network

def remember(*args, **kwargs):
    networks.append(build(*args, **kwargs))
    return networks[-1]

segmentation.build_network = remember
data = Path(sys.argv[1])
folder = Path(sys.argv[2])
settings = json.loads(sys.argv[3])
for run, extras in json.loads(sys.argv[4]).items():
    if "pretrained" in extras:
        extras["pretrained"] = str(folder / extras["pretrained"])
    request = training.RunRequest(data, folder / run, "quick_test", settings | extras)
    training.run_request(request)
    network = networks[0]  # the first that a run builds is the one it trains
    joined = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    (folder / f"{run}-{dist.get_rank()}.txt").write_text(hashlib.sha256(joined).hexdigest())
    networks.clear()
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, tiny_data, tiny_settings):
    """`RUNS`, trained by two processes under torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    settings = json.dumps({**tiny_settings, **SETTINGS})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        str(folder / "worker.py"),
        str(tiny_data),
        str(folder),
        settings,
        json.dumps(RUNS),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_equal_each_other_and_one_process(
    ranks, tmp_path, tiny_data, tiny_settings, name
):
    first, second = ((ranks / f"{name}-{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    settings = {**tiny_settings, **SETTINGS, **RUNS[name]}
    if "pretrained" in settings:
        settings["pretrained"] = str(ranks / settings["pretrained"])
    run = ranks / name
    run_request(RunRequest(tiny_data, tmp_path / "one", "quick_test", settings))
    files = (
        x / "checkpoints" / "latest" / "weights.safetensors"
        for x in (tmp_path / "one", run)
    )
    expected, result = (load_weights(file) for file in files)
    for key, value in expected.items():
        assert torch.allclose(value, result[key], rtol=0, atol=1e-5), key
    one, two = (read_records(x / "metrics.jsonl") for x in (tmp_path / "one", run))
    assert [r["step"] for r in two] == [r["step"] for r in one]  # rank 0 alone writes
    for a, b in zip(one, two, strict=True):
        assert b["validation_dice"] == pytest.approx(a["validation_dice"], abs=1e-4)
        assert b["validation_loss"] == pytest.approx(a["validation_loss"], abs=1e-4)


def test_ranks_leave_one_whole_run(ranks, tiny_run):
    names = {path.name for path in (ranks / "sample").iterdir()}
    assert names == {path.name for path in tiny_run.iterdir()}
