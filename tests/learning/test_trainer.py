import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from trivox.config import make_recipe
from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError, InterruptedTrainingError, RecipeError, ResourceError, TrivoxError
from trivox.learning import trainer as trainer_module
from trivox.learning.checkpoints import load_checkpoint, load_weights, save_checkpoint
from trivox.learning.runtime import Runtime, make_runtime, seed_everything
from trivox.learning.tracking import RunLog, read_records
from trivox.learning.trainer import MAX_SKIPPED, Trainer
from trivox.preparation.batches import RawBatch
from trivox.tasks.segmentation import SegmentationObjective
from trivox.tasks.training import RunRequest, train

CPU = Runtime(torch.device("cpu"), "fp32")
OUT_OF_MEMORY = torch.OutOfMemoryError("Tried to allocate 1 EiB")
SCHEME = LabelScheme(labels={"ball": 1})
RECIPE = {
    "epochs": 2, "iterations_per_epoch": 4, "validation_iterations": 2, "workers": 0, "optimizer": "sgd",
    "learning_rate": 0.05, "momentum": 0.9, "deep_supervision": False, "batch_size": 4,
}  # fmt: skip


@dataclass
class Toy:
    """Batches as a function of the step: the label is where the image is bright."""

    seed: int = 0
    batch: int = 4
    on_read: dict = field(default_factory=dict)
    reads: list = field(default_factory=list)

    def read(self, step):
        self.reads.append(step)
        if step in self.on_read:
            self.on_read[step]()
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        labels = (torch.rand(self.batch, 4, 5, 6, generator=generator) < 0.3).to(torch.int16)
        images = labels[:, None] + 0.3 * torch.randn(self.batch, 1, 4, 5, 6, generator=generator)
        return RawBatch(plain=(images, labels), boxed=None, warped=[], spatial=[], intensity=[])


class Net(nn.Module):
    """Small, and able to fail like a full device."""

    def __init__(self, most=99, error=OUT_OF_MEMORY):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 2, 1))
        self.most, self.error, self.sizes = most, error, []

    def forward(self, images):
        if self.training:
            self.sizes.append(len(images))
            if len(images) > self.most:
                raise self.error
        return self.body(images)


class Fixed(nn.Module):
    """Logits that follow the image's brightness times `sign`; the parameter only keeps the optimizer content."""

    def __init__(self, sign):
        super().__init__()
        self.sign, self.unused = sign, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return torch.cat([torch.zeros_like(images), self.sign * (images - 0.5)], 1) + 0 * self.unused


class Scripted:
    """An objective whose validation Dice is given for each epoch."""

    def __init__(self, dices):
        self.dices = iter(dices)

    def loss(self, outputs, labels):
        return outputs.square().mean()

    def count(self, outputs, labels):
        return torch.zeros(1)

    def score(self, counts):
        return {"validation_dice": next(self.dices)}


def segmentation(batch_dice=False):
    return SegmentationObjective(SCHEME, 1.0, 1.0, batch_dice, torch.from_numpy(SCHEME.region_table()))


def make(folder, *, network=None, objective=None, source=None, validation=True, lines=None, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [] if lines is None else lines
    return Trainer(
        network=network or Net(), objective=objective or segmentation(), training=source or Toy(),
        validation=Toy(seed=7) if validation else None, recipe=make_recipe("production", {**RECIPE, **settings}),
        folder=folder, runtime=CPU, log=RunLog(folder, say=lines.append),
    )  # fmt: skip


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(first, second, *, tolerance=0.0):
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=0, atol=tolerance), name


def epochs_of(folder):
    return [r for r in read_records(folder / "metrics.jsonl") if r["kind"] == "epoch"]


# -- learning ----------------------------------------------------------------------------------------------------------
def test_loss_falls_and_dice_rises(tmp_path):
    make(tmp_path, epochs=10, learning_rate=0.3).fit()
    records = epochs_of(tmp_path)
    assert records[-1]["train_loss"] < 0.8 * records[0]["train_loss"]
    assert records[-1]["validation_dice"] > 0.8
    assert [r["step"] for r in records] == list(range(4, 44, 4))


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulated_micro_batches_equal_the_whole_batch(tmp_path, micro):
    whole, parts = make(tmp_path / "a"), make(tmp_path / "b", micro_batch=micro)
    whole.fit()
    parts.fit()
    assert max(parts.network.sizes) == micro
    assert_same(whole.network.state_dict(), parts.network.state_dict(), tolerance=1e-6)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate")])
def test_out_of_memory_lowers_the_micro_batch_and_keeps_the_effective_batch(tmp_path, error):
    lines = []
    whole, limited = make(tmp_path / "a"), make(tmp_path / "b", network=Net(most=1, error=error), lines=lines)
    whole.fit()
    limited.fit()
    assert limited.progress.micro_batch == 1
    assert limited.network.sizes[:3] == [4, 2, 1]
    assert sum("out of memory" in line for line in lines) == 2
    assert_same(whole.network.state_dict(), limited.network.state_dict(), tolerance=1e-6)
    assert [r["step"] for r in epochs_of(tmp_path / "b")] == [4, 8]


def test_lowered_micro_batch_survives_a_resume(tmp_path):
    make(tmp_path, network=Net(most=2)).fit()
    again = make(tmp_path)
    assert again.resume()
    assert again.progress.micro_batch == 2


def test_a_single_patch_that_does_not_fit_says_what_to_do(tmp_path):
    with pytest.raises(ResourceError, match="--patch-size"):
        make(tmp_path, network=Net(most=0)).fit()


def test_other_errors_of_the_network_pass_unchanged(tmp_path):
    trainer = make(tmp_path, network=Net(most=0, error=RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        trainer.fit()
    assert trainer.progress.micro_batch is None


def test_gradients_that_are_not_finite_end_training_after_the_allowed_skips(tmp_path):
    class Broken(Net):
        def forward(self, images):
            return super().forward(images) * (math.nan if self.training else 1)

    trainer = make(tmp_path, network=Broken(), epochs=50)
    before = weights_of(trainer.network)
    with pytest.raises(TrivoxError, match=f"not finite for {MAX_SKIPPED} steps.*learning rate"):
        trainer.fit()
    assert len(trainer.network.sizes) == MAX_SKIPPED + 1
    assert_same(before, trainer.network.state_dict())


def test_single_bad_steps_are_skipped(tmp_path):
    class Flaky(Net):
        def forward(self, images):
            return super().forward(images) * (math.nan if self.training and len(self.sizes) % 2 else 1)

    trainer = make(tmp_path, network=Flaky(), epochs=MAX_SKIPPED)
    trainer.fit()
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in lines)  # no NaN: strict JSON


def test_gradient_is_clipped_to_the_recipe(tmp_path):
    trainer = make(tmp_path, momentum=0.0, schedule="constant", gradient_clip=1e-3, weight_decay=0.0)
    before = weights_of(trainer.network)
    trainer._step(*Toy().read(0).plain)
    moved = sum(float((v - before[k]).square().sum()) for k, v in trainer.network.state_dict().items()) ** 0.5
    assert moved == pytest.approx(0.05 * 1e-3, rel=1e-3)


# -- length ------------------------------------------------------------------------------------------------------------
class Clock:
    """A second passes with each look."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


def test_minutes_stop_in_time_and_the_schedule_reaches_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "time", Clock())
    trainer = make(tmp_path, minutes=2.0, epochs=1000, schedule="poly", checkpoint_minutes=1e9)
    rates = []
    step = trainer._step
    trainer._step = lambda *batch: (step(*batch), rates.append(trainer.optimizer.param_groups[0]["lr"]))[0]
    progress = trainer.fit()
    assert progress.finished
    assert 120 <= progress.seconds <= 130
    assert rates[0] == pytest.approx(0.05, rel=0.05)
    assert rates[-1] < 0.05 * 0.05
    assert rates == sorted(rates, reverse=True)


def test_minutes_hold_by_the_real_clock(tmp_path):
    started = time.monotonic()
    make(tmp_path, minutes=0.01, epochs=1000000).fit()
    assert 0.6 <= time.monotonic() - started < 2.5


def test_time_spent_before_an_interruption_counts(tmp_path):
    first = make(tmp_path, minutes=60.0, source=Toy(on_read={5: interrupt}))
    with pytest.raises(InterruptedTrainingError):
        first.fit()
    state = tmp_path / "checkpoints" / "latest" / "state.json"
    content = json.loads(state.read_text())
    content["progress"]["seconds"] = 3600.0
    state.write_text(json.dumps(content))
    second = make(tmp_path, minutes=60.0)
    assert second.resume()
    assert second.fit().step == first.progress.step


def test_early_stopping_waits_for_its_patience(tmp_path):
    dices = [0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    trainer = make(tmp_path, objective=Scripted(dices), epochs=7, early_stopping=3, validation_smoothing=0.0)
    progress = trainer.fit()
    assert (progress.epoch, progress.best_epoch, progress.finished) == (5, 2, True)


def test_a_finished_run_does_nothing_more(tmp_path):
    make(tmp_path).fit()
    source = Toy()
    again = make(tmp_path, source=source)
    again.resume()
    again.fit()
    assert source.reads == []
    assert len(epochs_of(tmp_path)) == 2


# -- validation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("sign", "dice"), [(1, 1.0), (0, 0.0), (-1, 0.0)])
def test_validation_dice_is_computed_from_predictions(tmp_path, sign, dice):
    class Clean(Toy):
        def read(self, step):
            raw = super().read(step)
            return RawBatch((raw.plain[1][:, None].float(), raw.plain[1]), None, [], [], [])

    trainer = make(tmp_path, network=Fixed(sign), epochs=1)
    trainer.validation = Clean(seed=3)
    trainer.fit()
    assert epochs_of(tmp_path)[0]["validation_dice"] == dice


def test_validation_uses_the_same_patches_every_epoch(tmp_path):
    trainer = make(tmp_path, epochs=3)
    trainer.fit()
    assert trainer.validation.reads == [0, 1] * 3


def test_best_checkpoint_follows_the_smoothed_dice(tmp_path):
    dices = [0.2, 0.9, 0.2, 0.62, 0.1]  # smoothed by half: .2 .55 .375 .4975 .30
    trainer = make(tmp_path, objective=Scripted(dices), epochs=5, validation_smoothing=0.5)
    kept, note = {}, trainer._note
    trainer._note = lambda *args: (note(*args), kept.update({trainer.progress.epoch: weights_of(trainer.network)}))
    progress = trainer.fit()
    assert progress.best_epoch == 2
    assert progress.best == pytest.approx(0.55)
    assert_same(kept[2], load_checkpoint(tmp_path / "checkpoints" / "best")[0])
    shown = [r["validation_dice_ema"] for r in epochs_of(tmp_path)]
    assert shown == pytest.approx([0.2, 0.55, 0.375, 0.4975, 0.29875])


def test_unmeasurable_dice_is_no_best_and_stays_json(tmp_path):
    progress = make(tmp_path, objective=Scripted([math.nan, 0.3]), validation_smoothing=0.5).fit()
    assert (progress.best_epoch, progress.smoothed) == (2, 0.3)
    assert epochs_of(tmp_path)[0]["validation_dice"] is None


def test_training_without_validation_cases_works(tmp_path):
    assert make(tmp_path, validation=False).fit().finished
    assert "validation_dice" not in epochs_of(tmp_path)[0]


# -- interruption ------------------------------------------------------------------------------------------------------
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [0, 2, 3, 4, 7])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, step):
    """Steps 3 and 7 are the last of their epochs: validation must be neither lost nor repeated."""
    whole, first = make(tmp_path / "a"), make(tmp_path / "b", source=Toy(on_read={step: interrupt}))
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
    whole_best, best = (load_checkpoint(tmp_path / x / "checkpoints" / "best") for x in "ab")
    assert_same(whole_best[0], best[0])
    for one, other in zip(epochs_of(tmp_path / "a"), epochs_of(tmp_path / "b"), strict=True):
        for key in ("epoch", "step", "validation_dice", "validation_dice_ema", "validation_loss"):
            assert one[key] == other[key]
    assert (whole.progress.best_epoch, whole.progress.best) == (second.progress.best_epoch, second.progress.best)


def test_records_after_the_checkpoint_are_written_once(tmp_path):
    """The process died after epoch 3; its checkpoint is of epoch 1."""
    whole = make(tmp_path / "a", epochs=3)
    whole.fit()
    dying = make(tmp_path / "b", epochs=3, source=Toy(on_read={5: interrupt}))
    with pytest.raises(InterruptedTrainingError):
        dying.fit()
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "step": 8}\n{"kind": "epoch", "step": 12}\n{"kind": "epo')
    second = make(tmp_path / "b", epochs=3)
    second.resume()
    second.fit()
    assert [r["step"] for r in epochs_of(tmp_path / "b")] == [4, 8, 12]
    assert_same(whole.network.state_dict(), second.network.state_dict())


def test_an_attempt_that_died_before_its_first_checkpoint_leaves_no_records(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch", "step": 4}\n{"kind": "ep')
    trainer = make(tmp_path)
    assert not trainer.resume()
    trainer.fit()
    assert [r["step"] for r in epochs_of(tmp_path)] == [4, 8]


def test_fit_works_outside_the_main_thread(tmp_path):
    trainer = make(tmp_path)
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join(30)
    assert trainer.progress.finished


# -- checkpoints -------------------------------------------------------------------------------------------------------
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
    assert load_checkpoint(folder)[1:] == ({"step": 1}, {"a": 1})
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


# -- tracking ----------------------------------------------------------------------------------------------------------
def test_records_of_a_silent_log_are_not_written(tmp_path):
    log = RunLog(tmp_path, say=pytest.fail, active=False)
    log.line("x")
    log.record({"step": 1})
    log.forget_after(0)
    assert list(tmp_path.iterdir()) == []


def test_lines_go_to_console_and_file(tmp_path):
    lines = []
    RunLog(tmp_path, say=lines.append).line("hello")
    assert lines == ["hello"]
    assert (tmp_path / "log.txt").read_text().endswith("hello\n")


def test_tensorboard_receives_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path, say=lambda line: None, tensorboard=True)
    log.record({"step": 3, "train_loss": 0.5})
    log._board.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [(3, 0.5)]


# -- runtime -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("device", "precision", "error"),
    [
        ("gpu7", "auto", RecipeError),
        ("meta", "auto", RecipeError),
        ("cuda:99", "auto", ResourceError),
        ("cpu", "fp16", RecipeError),
    ],
)
def test_impossible_devices_are_refused(device, precision, error):
    with pytest.raises(error):
        make_runtime(device, precision)


def test_runtime_on_cpu_computes_in_the_chosen_precision():
    layer = nn.Conv3d(1, 1, 1)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        runtime = make_runtime("cpu", precision)
        with runtime.autocast():
            assert layer(torch.zeros(1, 1, 2, 2, 2)).dtype == dtype
        assert runtime.activation_bytes == dtype.itemsize
        assert not runtime.scaler().is_enabled()
    assert runtime.memory_peak() > 2**20


def test_same_seed_same_numbers():
    drawn = []
    for _ in range(2):
        seed_everything(5, deterministic=True)
        drawn.append(torch.rand(3))
    seed_everything(5)
    assert torch.equal(*drawn)


# -- the whole command -------------------------------------------------------------------------------------------------
def sha256(run, name="latest"):
    return hashlib.sha256((run / "checkpoints" / name / "weights.safetensors").read_bytes()).hexdigest()


def test_killed_training_resumes_to_the_same_bits(tmp_path, tiny_data, tiny_settings):
    """`kill -9` of `trivox train` in mid-epoch, then --resume: the weights of a run that was never disturbed."""
    settings = {**tiny_settings, "iterations_per_epoch": 8, "epochs": 5, "checkpoint_minutes": 1e-6, "seed": 3}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(RunRequest(tiny_data, whole, "quick_test", settings))
    code = "import torch; torch.set_num_threads(1); from trivox.cli import main; main()"
    # steps are slowed down so that the kill hits the middle of an epoch
    slow = "import time, trivox.learning.trainer as t; s = t.Trainer._step; "
    slow += "t.Trainer._step = lambda *a: (time.sleep(0.05), s(*a))[1]; "
    options = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = ["train", str(tiny_data), "--out", str(killed), "--preset", "quick_test", *options]
    child = subprocess.Popen([sys.executable, "-c", slow + code, *command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoints" / "latest" / "state.json").exists() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert 0 < len(epochs_of(killed)) < 5
    train(RunRequest(tiny_data, killed, "quick_test", settings, resume=True))
    assert sha256(killed) == sha256(whole)
    assert sha256(killed, "best") == sha256(whole, "best")
    assert [r["step"] for r in epochs_of(killed)] == [8, 16, 24, 32, 40]
    assert [r["validation_dice"] for r in epochs_of(killed)] == [r["validation_dice"] for r in epochs_of(whole)]
