import hashlib
import json
import math
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from training_toys import (
    Fixed,
    Net,
    Scripted,
    Toy,
    assert_same,
    epochs_of,
    interrupt,
    make,
    weights_of,
)
from trivox.errors import (
    BundleError,
    InterruptedTrainingError,
    RecipeError,
    ResourceError,
    TrivoxError,
)
from trivox.learning import progress as progress_module
from trivox.learning.checkpoints import load_checkpoint, load_weights, save_checkpoint
from trivox.learning.learner import MAX_SKIPPED
from trivox.learning.progress import duration
from trivox.learning.runtime import make_runtime, seed_everything
from trivox.learning.tracking import RunLog
from trivox.preparation.batches import RawBatch
from trivox.tasks.task import RunRequest
from trivox.verbs.train import train


# -- learning --------------------------------------------------------------------------
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


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate")],
)
def test_out_of_memory_lowers_the_micro_batch_and_keeps_the_effective_batch(
    tmp_path, error
):
    lines = []
    whole, limited = (
        make(tmp_path / "a"),
        make(tmp_path / "b", network=Net(most=1, error=error), lines=lines),
    )
    whole.fit()
    limited.fit()
    assert limited.progress.micro_batch == 1
    assert limited.network.sizes[:3] == [4, 2, 1]
    assert sum("out of memory" in line for line in lines) == 2
    assert_same(
        whole.network.state_dict(), limited.network.state_dict(), tolerance=1e-6
    )
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
    with pytest.raises(
        TrivoxError, match=f"not finite for {MAX_SKIPPED} steps.*learning rate"
    ):
        trainer.fit()
    assert len(trainer.network.sizes) == MAX_SKIPPED + 1
    assert_same(before, trainer.network.state_dict())


def test_single_bad_steps_are_skipped(tmp_path):
    class Flaky(Net):
        def forward(self, images):
            return super().forward(images) * (
                math.nan if self.training and len(self.sizes) % 2 else 1
            )

    trainer = make(tmp_path, network=Flaky(), epochs=MAX_SKIPPED)
    trainer.fit()
    assert all(
        torch.isfinite(value).all() for value in trainer.network.state_dict().values()
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all(
        json.loads(line, parse_constant=pytest.fail) for line in lines
    )  # no NaN: strict JSON
    assert (
        "2 of 4 steps had gradients that are not finite"
        in (tmp_path / "log.txt").read_text()
    )


def test_gradient_is_clipped_to_the_recipe(tmp_path):
    trainer = make(
        tmp_path,
        momentum=0.0,
        schedule="constant",
        gradient_clip=1e-3,
        weight_decay=0.0,
    )
    before = weights_of(trainer.network)
    trainer._step(*Toy().read(0).plain)
    moved = (
        sum(
            float((v - before[k]).square().sum())
            for k, v in trainer.network.state_dict().items()
        )
        ** 0.5
    )
    assert moved == pytest.approx(0.05 * 1e-3, rel=1e-3)


# -- length ----------------------------------------------------------------------------
class Clock:
    """A second passes with each look."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


def test_minutes_stop_in_time_and_the_schedule_reaches_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "time", Clock())
    trainer = make(
        tmp_path, minutes=2.0, epochs=1000, schedule="poly", checkpoint_minutes=1e9
    )
    rates = []
    step = trainer._step
    trainer._step = lambda *batch: (
        step(*batch),
        rates.append(trainer.learner.optimizer.param_groups[0]["lr"]),
    )[0]
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
    trainer = make(
        tmp_path,
        objective=Scripted(dices),
        epochs=7,
        early_stopping=3,
        validation_smoothing=0.0,
    )
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


# -- validation ------------------------------------------------------------------------
@pytest.mark.parametrize(("sign", "dice"), [(1, 1.0), (0, 0.0), (-1, 0.0)])
def test_validation_dice_is_computed_from_predictions(tmp_path, sign, dice):
    class Clean(Toy):
        def read(self, step):
            raw = super().read(step)
            return RawBatch(
                (raw.plain[1][:, None].float(), raw.plain[1]), None, [], [], []
            )

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
    trainer = make(
        tmp_path, objective=Scripted(dices), epochs=5, validation_smoothing=0.5
    )
    kept, note = {}, trainer._note
    trainer._note = lambda *args: (
        note(*args),
        kept.update({trainer.progress.epoch: weights_of(trainer.network)}),
    )
    progress = trainer.fit()
    assert progress.best_epoch == 2
    assert progress.best == pytest.approx(0.55)
    assert_same(kept[2], load_checkpoint(tmp_path / "checkpoints" / "best").weights)
    shown = [r["validation_dice_ema"] for r in epochs_of(tmp_path)]
    assert shown == pytest.approx([0.2, 0.55, 0.375, 0.4975, 0.29875])


def test_unmeasurable_dice_is_no_best_and_stays_json(tmp_path):
    progress = make(
        tmp_path, objective=Scripted([math.nan, 0.3]), validation_smoothing=0.5
    ).fit()
    assert (progress.best_epoch, progress.smoothed) == (2, 0.3)
    assert epochs_of(tmp_path)[0]["validation_dice"] is None


def test_training_without_validation_cases_works(tmp_path):
    assert make(tmp_path, validation=False).fit().finished
    assert "validation_dice" not in epochs_of(tmp_path)[0]


# -- interruption ----------------------------------------------------------------------
@pytest.mark.parametrize("step", [0, 2, 3, 4, 7])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, step):
    """Steps 3 and 7 are the last of their epochs: validation must be neither lost nor
    repeated.
    """
    whole, first = (
        make(tmp_path / "a"),
        make(tmp_path / "b", source=Toy(on_read={step: interrupt})),
    )
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
            '{"kind": "epoch", "step": 8}\n{"kind": "epoch", "step": 12}\n{"kind": "epo'
        )
    second = make(tmp_path / "b", epochs=3)
    second.resume()
    second.fit()
    assert [r["step"] for r in epochs_of(tmp_path / "b")] == [4, 8, 12]
    assert_same(whole.network.state_dict(), second.network.state_dict())


def test_an_attempt_that_died_before_its_first_checkpoint_leaves_no_records(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "epoch", "step": 4}\n{"kind": "ep'
    )
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


# -- tracking --------------------------------------------------------------------------
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


# -- runtime ---------------------------------------------------------------------------
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


# -- what is learnt beside the network -------------------------------------------------
class Weighing(nn.Module):
    """Two terms weighed by a learnt number, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor([0.5]))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, outputs):
        if torch.is_grad_enabled():
            self.calls += 1
        return (
            -self.log_variance.exp() * outputs.square().mean() + self.log_variance
        ).sum()


class Learning(Scripted):
    """An objective with a part that learns."""

    def __init__(self, dices):
        super().__init__(dices)
        self.weighing = Weighing()

    @property
    def module(self):
        return self.weighing

    def loss(self, outputs, labels):
        return self.module(outputs)

    def figures(self):
        return {"loss_weight/a": float(self.module.log_variance.detach())}


def test_the_objective_learns_in_a_group_of_its_own_without_decay(tmp_path):
    trainer = make(
        tmp_path, objective=Learning([0.1, 0.2]), optimizer="adamw", weight_decay=0.1
    )
    assert [
        group["weight_decay"] for group in trainer.learner.optimizer.param_groups
    ] == [
        0.1,
        0.0,
        0.0,
    ]
    assert trainer.learner.optimizer.param_groups[-1]["params"] == [
        trainer.objective.module.log_variance
    ]
    trainer.fit()
    assert trainer.objective.module.log_variance.item() != 0.5
    shown = [record["loss_weight/a"] for record in epochs_of(tmp_path)]
    assert shown[-1] == trainer.objective.module.log_variance.item() != shown[0]


@pytest.mark.parametrize("step", [1, 3, 5])
def test_what_the_objective_learnt_survives_an_interruption(tmp_path, step):
    settings = {"optimizer": "adamw", "weights_ema": 0.5}
    whole = make(tmp_path / "a", objective=Learning([0.1, 0.2]), **settings)
    whole.fit()
    first = make(
        tmp_path / "b",
        objective=Learning([0.1, 0.2]),
        source=Toy(on_read={step: interrupt}),
        **settings,
    )
    with pytest.raises(InterruptedTrainingError):
        first.fit()
    second = make(
        tmp_path / "b",
        objective=Learning([0.2] if step >= 3 else [0.1, 0.2]),
        **settings,
    )
    assert second.resume()
    second.fit()
    assert_same(
        whole.objective.module.state_dict(), second.objective.module.state_dict()
    )
    assert int(second.objective.module.calls) == 8
    assert_same(whole.network.state_dict(), second.network.state_dict())


def test_a_checkpoint_of_a_loss_that_does_not_learn_is_refused(tmp_path):
    make(tmp_path, objective=Scripted([0.1, 0.2])).fit()
    with pytest.raises(BundleError, match="objective weights"):
        make(tmp_path, objective=Learning([])).resume()


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
        train(RunRequest(tiny_data, tmp_path / name, "quick_test", settings))
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        torch.rand(5)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    seed_everything(1)
    assert not torch.are_deterministic_algorithms_enabled()


# -- what is said ----------------------------------------------------------------------
def test_the_time_left_is_said_once_after_the_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(
        progress_module, "time", Clock()
    )  # an epoch of 4 steps takes 6 looks, of which 5 are measured
    lines = []
    make(
        tmp_path,
        epochs=100,
        lines=lines,
        early_stopping=3,
        objective=Scripted([0.1] * 9),
    ).fit()
    told = [number for number, line in enumerate(lines) if "left at this speed" in line]
    assert len(told) == 1
    assert lines[told[0] - 1].startswith("epoch    1")
    seconds = re.fullmatch(r"about (\d+) min left at this speed", lines[told[0]])
    assert 99 * 5 / 60 <= int(seconds[1]) <= 99 * 10 / 60


def test_the_time_left_is_not_said_where_it_is_known(tmp_path):
    lines = []
    make(tmp_path / "a", minutes=0.005, lines=lines).fit()
    make(tmp_path / "b", epochs=1, lines=lines).fit()
    assert not any("left" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (720, "12 min"), (12_000, "3 h 20 min"), (89.6, "90 s")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_network_that_cannot_recompute_is_named(tmp_path):
    with pytest.raises(RecipeError, match="'resenc-m' cannot recompute"):
        make(tmp_path, gradient_checkpointing=True)


def test_gradient_checkpointing_reaches_the_network(tmp_path):
    network = Net()
    network.gradient_checkpointing = False
    make(tmp_path, network=network, gradient_checkpointing=True)
    assert network.gradient_checkpointing is True


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


def test_killed_training_resumes_to_the_same_bits(tmp_path, tiny_data, tiny_settings):
    """`kill -9` of `trivox train` in mid-epoch, then --resume: the weights of a run
    that was never disturbed.
    """
    settings = {
        **tiny_settings,
        **EVERYTHING,
        "iterations_per_epoch": 8,
        "epochs": 5,
        "checkpoint_minutes": 1e-6,
        "seed": 3,
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(RunRequest(tiny_data, whole, "quick_test", settings))
    code = "import torch; torch.set_num_threads(1); from trivox.cli import main; main()"
    # steps are slowed down so that the kill hits the middle of an epoch
    slow = "import time, trivox.learning.trainer as t; s = t.Trainer._step; "
    slow += "t.Trainer._step = lambda *a: (time.sleep(0.05), s(*a))[1]; "
    options = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = [
        "train",
        str(tiny_data),
        "--out",
        str(killed),
        "--preset",
        "quick_test",
        *options,
    ]
    child = subprocess.Popen(
        [sys.executable, "-c", slow + code, *command], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while (
        not (killed / "checkpoints" / "latest" / "state.json").exists()
        and child.poll() is None
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert 0 < len(epochs_of(killed)) < 5
    train(RunRequest(tiny_data, killed, "quick_test", settings, resume=True))
    for file in (whole / "checkpoints").rglob("*.safetensors"):
        assert file.read_bytes() == (killed / file.relative_to(whole)).read_bytes(), (
            file
        )
    assert sha256(killed, "best") == sha256(whole, "best")
    assert [r["step"] for r in epochs_of(killed)] == [8, 16, 24, 32, 40]
    assert [r["validation_dice"] for r in epochs_of(killed)] == [
        r["validation_dice"] for r in epochs_of(whole)
    ]
