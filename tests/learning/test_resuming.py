"""Interrupted, killed and repeated trainings end where undisturbed ones do."""

import hashlib
import json
import signal
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from training_toys import (
    Net,
    Toy,
    assert_same,
    epochs_of,
    interrupt,
    make,
)
from trivox.errors import (
    BundleError,
    InterruptedTrainingError,
    ResourceError,
)
from trivox.learning.checkpoints import load_checkpoint, load_weights, save_checkpoint
from trivox.learning.runtime import seed_everything
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.usefixtures("without_figures")


# -- interruption ----------------------------------------------------------------------
@pytest.mark.parametrize("step", [0, 2, 3, 4, 7])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, step):
    """Steps 3 and 7 are the last of their epochs: validation must be neither lost nor
    repeated.
    """
    whole = make(tmp_path / "a")
    first = make(tmp_path / "b", source=Toy(on_read={step: interrupt}))
    handler = signal.getsignal(signal.SIGINT)
    whole.fit()
    with pytest.raises(InterruptedTrainingError, match="--resume"):
        first.fit()
    assert signal.getsignal(signal.SIGINT) is handler
    second = make(tmp_path / "b")
    assert second.resume()
    assert second.progress.step == step + 1
    second.fit()
    assert_same(whole.network.state_dict(), second.network.state_dict())
    whole_best, best = (
        load_checkpoint(tmp_path / x / "checkpoints" / "best") for x in "ab"
    )
    assert_same(whole_best.weights, best.weights)
    for one, other in zip(
        epochs_of(tmp_path / "a"), epochs_of(tmp_path / "b"), strict=True
    ):
        for key in (
            "epoch",
            "step",
            "validation_dice",
            "validation_dice_ema",
            "validation_loss",
        ):
            assert one[key] == other[key]
    assert (whole.progress.best_epoch, whole.progress.best) == (
        second.progress.best_epoch,
        second.progress.best,
    )


def test_records_after_the_checkpoint_are_written_once(tmp_path):
    """The process died after epoch 3; its checkpoint is of epoch 1."""
    whole = make(tmp_path / "a", epochs=3)
    whole.fit()
    dying = make(tmp_path / "b", epochs=3, source=Toy(on_read={5: interrupt}))
    with pytest.raises(InterruptedTrainingError):
        dying.fit()
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write(
            '{"kind": "epoch", "epoch": 2, "step": 8}\n'
            '{"kind": "epoch", "epoch": 3, "step": 12}\n'
            '{"kind": "epo'
        )
    second = make(tmp_path / "b", epochs=3)
    second.resume()
    second.fit()
    assert [r["step"] for r in epochs_of(tmp_path / "b")] == [4, 8, 12]
    assert_same(whole.network.state_dict(), second.network.state_dict())


def test_an_attempt_that_died_before_its_first_checkpoint_leaves_no_records(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "epoch", "epoch": 1, "step": 4}\n{"kind": "ep'
    )
    trainer = make(tmp_path)
    assert not trainer.resume()
    trainer.fit()
    assert [r["step"] for r in epochs_of(tmp_path)] == [4, 8]


def test_fit_works_outside_the_main_thread(tmp_path):
    trainer = make(tmp_path)
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join(600)
    assert trainer.progress.finished


# -- checkpoints -----------------------------------------------------------------------
def test_a_crash_between_the_renames_leaves_the_old_checkpoint(tmp_path):
    make(tmp_path).fit()
    latest = tmp_path / "checkpoints" / "latest"
    latest.rename(latest.with_name("latest.old"))
    again = make(tmp_path)
    assert again.resume()
    assert again.progress.step == 8


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "latest"
    save_checkpoint(folder, Net(), {"step": 1}, {"a": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ResourceError, match=r"latest.*No space left.*disk"):
        save_checkpoint(folder, Net(), {"step": 2}, {"a": 2})
    assert (load_checkpoint(folder).state, load_checkpoint(folder).optimizer) == (
        {"step": 1},
        {"a": 1},
    )
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_damaged_checkpoints_are_named(tmp_path):
    save_checkpoint(tmp_path / "latest", Net(), {"step": 1}, {"a": 1})
    (tmp_path / "latest" / "optimizer.pt").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"optimizer\.pt.*damaged"):
        load_checkpoint(tmp_path / "latest")
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"w\.safetensors"):
        load_weights(tmp_path / "w.safetensors")
    with pytest.raises(BundleError, match=r"none\.safetensors.*not found"):
        load_weights(tmp_path / "none.safetensors")


def test_only_latest_carries_the_optimizer(tmp_path):
    make(tmp_path).fit()
    assert (tmp_path / "checkpoints" / "latest" / "optimizer.pt").exists()
    assert not (tmp_path / "checkpoints" / "best" / "optimizer.pt").exists()


# -- repeatability ---------------------------------------------------------------------
class Dropping(Net):
    """Random in training."""

    def forward(self, images):
        return super().forward(nn.functional.dropout(images, 0.3, self.training))


@pytest.mark.parametrize("step", [1, 4])
def test_dropout_after_an_interruption_is_that_of_the_undisturbed_run(tmp_path, step):
    whole = make(tmp_path / "a", network=Dropping())
    whole.fit()
    first = make(
        tmp_path / "b", network=Dropping(), source=Toy(on_read={step: interrupt})
    )
    with pytest.raises(InterruptedTrainingError):
        first.fit()
    second = make(tmp_path / "b", network=Dropping())
    torch.rand(17)  # the generator stands elsewhere
    second.resume()
    second.fit()
    assert_same(whole.network.state_dict(), second.network.state_dict())
    other = make(tmp_path / "c", network=Dropping(), seed=99)
    other.fit()
    assert not torch.equal(other.network.body[0].weight, whole.network.body[0].weight)


def test_two_deterministic_runs_give_the_same_bits(tmp_path, tiny_data, tiny_settings):
    """With threads that read ahead, random augmentation and a network that drops; torch
    is told to repeat exactly.
    """
    settings = {**tiny_settings, "workers": 2, "deterministic": True}
    for name in "ab":
        run_request(RunRequest(tiny_data, tmp_path / name, "quick_test", settings))
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        torch.rand(5)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    seed_everything(1)
    assert not torch.are_deterministic_algorithms_enabled()


# -- the whole command -----------------------------------------------------------------
def sha256(run, name="latest"):
    return hashlib.sha256(
        (run / "checkpoints" / name / "weights.safetensors").read_bytes()
    ).hexdigest()


EVERYTHING = {
    "weights_ema": 0.9,
    "keep_best": 2,
    "micro_batch": 1,
    "loss_options": {"adaptive": "uncertainty"},
}


DYING = """
import os, signal, torch
from trivox.learning.trainer import Trainer

torch.set_num_threads(1)
step = Trainer._step

def dying(trainer, images, targets):
    if trainer.progress.step == 12:  # the middle of the second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, images, targets)

Trainer._step = dying
from trivox.cli import main
main()
"""


def test_killed_training_resumes_to_the_same_bits(tmp_path, tiny_data, tiny_settings):
    """`kill -9` of `trivox train` in mid-epoch, then --resume: the weights of a run
    that was never disturbed.
    """
    settings = {
        **tiny_settings,
        **EVERYTHING,
        "iterations_per_epoch": 8,
        "epochs": 3,
        "checkpoint_minutes": 1e-6,
        "seed": 3,
    }
    whole = tmp_path / "whole"
    killed = tmp_path / "killed"
    run_request(RunRequest(tiny_data, whole, "quick_test", settings))
    options = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = ["train", str(tiny_data), "--out", str(killed), "--preset", "quick_test"]
    child = [sys.executable, "-c", DYING, *command, *options]
    done = subprocess.run(child, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(epochs_of(killed)) == 1
    run_request(RunRequest(tiny_data, killed, "quick_test", settings, resume=True))
    for file in (whole / "checkpoints").rglob("*.safetensors"):
        assert file.read_bytes() == (killed / file.relative_to(whole)).read_bytes(), (
            file
        )
    assert sha256(killed, "best") == sha256(whole, "best")
    assert [r["step"] for r in epochs_of(killed)] == [8, 16, 24]
    assert [r["validation_dice"] for r in epochs_of(killed)] == [
        r["validation_dice"] for r in epochs_of(whole)
    ]
