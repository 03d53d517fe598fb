import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch

from trivox.learning.checkpoints import load_weights
from trivox.learning.tracking import read_records
from trivox.tasks.training import RunRequest, train

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")

# Plain SGD: AdamW turns rounding noise in vanishing gradients into whole steps, so no two summation orders would agree.
SETTINGS = {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "batch_size": 4, "weight_decay": 0.0}

WORKER = """
import hashlib, json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
import trivox.tasks.training as training
from trivox.learning.runtime import rank
data, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
inner = training.train_fold
def train_fold(*args, **kwargs):
    progress = inner(*args, **kwargs)
    kept = training.load_last.state_dict()
    joined = b"".join(value.numpy().tobytes() for value in kept.values())
    (out.parent / f"{out.name}-rank{rank()}.txt").write_text(hashlib.sha256(joined).hexdigest())
    return progress
build = training.build_network
def build_network(*args, **kwargs):
    training.load_last = build(*args, **kwargs)
    return training.load_last
training.train_fold, training.build_network = train_fold, build_network
for batch_dice in (False, True):
    target = out.with_name(f"{out.name}{int(batch_dice)}")
    out_of_this = target
    globals()["out"] = target
    training.train(training.RunRequest(data, target, "quick_test", {**settings, "batch_dice": batch_dice}))
    globals()["out"] = Path(sys.argv[2])
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, tiny_data, tiny_settings):
    """The runs `ranks0` (Dice a sample) and `ranks1` (Dice over the batch), trained by two processes under torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    settings = json.dumps({**tiny_settings, **SETTINGS})
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
        str(folder / "worker.py"), str(tiny_data), str(folder / "ranks"), settings,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("batch_dice", [False, True])
def test_two_ranks_equal_each_other_and_one_process(ranks, tmp_path, tiny_data, tiny_settings, batch_dice):
    run = ranks / f"ranks{int(batch_dice)}"
    hashes = {path.read_text() for path in ranks.glob(f"{run.name}-rank*.txt")}
    assert len(list(ranks.glob(f"{run.name}-rank*.txt"))) == 2
    assert len(hashes) == 1
    request = RunRequest(tiny_data, tmp_path / "one", "quick_test", {**tiny_settings, **SETTINGS, "batch_dice": batch_dice})
    train(request)
    expected, found = (load_weights(x / "checkpoints" / "latest" / "weights.safetensors") for x in (tmp_path / "one", run))
    for name, value in expected.items():
        assert torch.allclose(value, found[name], rtol=0, atol=1e-5), name
    joined = b"".join(value.numpy().tobytes() for value in found.values())
    assert len(hashlib.sha256(joined).hexdigest()) == len(hashes.pop())
    one, two = (read_records(x / "metrics.jsonl") for x in (tmp_path / "one", run))
    assert [r["step"] for r in two] == [r["step"] for r in one]  # rank 0 alone writes
    for a, b in zip(one, two, strict=True):
        assert b["validation_dice"] == pytest.approx(a["validation_dice"], abs=1e-4)
        assert b["validation_loss"] == pytest.approx(a["validation_loss"], abs=1e-4)


def test_ranks_leave_one_whole_run(ranks, tiny_run):
    names = {path.name for path in (ranks / "ranks0").iterdir()}
    assert names == {path.name for path in tiny_run.iterdir()}
