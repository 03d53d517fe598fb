"""The training loop: what a step does, how long training lasts, what is validated and
said.
"""

import json
import math
import re

import pytest
import torch

from training_toys import (
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
    InterruptedTrainingError,
    RecipeError,
    ResourceError,
    TrivoxError,
)
from trivox.learning import progress as progress_module
from trivox.learning.divergence import MAX_SKIPPED
from trivox.learning.progress import duration
from trivox.memory import HOLDERS


# -- learning --------------------------------------------------------------------------
def test_loss_falls_and_dice_rises(tmp_path):
    make(tmp_path, epochs=10, learning_rate=0.3).fit()
    records = epochs_of(tmp_path)
    assert records[-1]["train_loss"] < 0.8 * records[0]["train_loss"]
    assert records[-1]["validation_dice"] > 0.8
    assert [r["step"] for r in records] == list(range(4, 44, 4))


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulated_micro_batches_equal_the_whole_batch(tmp_path, micro):
    whole = make(tmp_path / "a")
    parts = make(tmp_path / "b", micro_batch=micro)
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
    whole = make(tmp_path / "a")
    limited = make(tmp_path / "b", network=Net(most=1, error=error), lines=lines)
    whole.fit()
    limited.fit()
    assert limited.progress.micro_batch == 1
    assert limited.network.sizes[:3] == [4, 2, 1]
    assert sum("out of memory" in line for line in lines) == 2
    assert_same(
        whole.network.state_dict(), limited.network.state_dict(), tolerance=1e-6
    )
    assert [r["step"] for r in epochs_of(tmp_path / "b")] == [4, 8]


def test_what_holds_memory_gives_way_before_the_micro_batch_is_lowered(tmp_path):
    class Cache:
        """Cases that leave memory for two samples, then for all."""

        halves = 2

        def give_way(self):
            self.halves -= 1
            network.most = 4 if self.halves == 0 else 3
            return self.halves >= 0

    lines = []
    network = Net(most=3)
    cache = Cache()
    HOLDERS.add(cache)
    trainer = make(tmp_path / "b", network=network, lines=lines)
    trainer.fit()
    HOLDERS.discard(cache)
    whole = make(tmp_path / "a")
    whole.fit()
    assert cache.halves == 0
    assert trainer.progress.micro_batch is None
    assert sum("half of the room" in line for line in lines) == 2
    assert_same(whole.network.state_dict(), network.state_dict())


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
    trainer = make(tmp_path, minutes=0.01, epochs=1000000)
    progress = trainer.fit()
    assert progress.finished
    assert progress.seconds >= 0.6
    assert progress.step < 4 * 1000000


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
    places = [
        number for number, line in enumerate(lines) if "left at this speed" in line
    ]
    assert len(places) == 1
    assert lines[places[0] - 1].startswith("epoch    1")
    seconds = re.fullmatch(r"about (\d+) min left at this speed", lines[places[0]])
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


# -- what is shown ---------------------------------------------------------------------
def test_steps_and_validation_are_shown_with_the_mean_loss_so_far(tmp_path):
    shown = []

    def show(steps, what, note):
        notes = []
        shown.append((what, list(steps), notes))
        for step in steps:
            notes.append(note())
            yield step
        notes.append(note())

    trainer = make(tmp_path)
    trainer.show_steps = show
    trainer.fit()
    assert [(what, steps) for what, steps, _ in shown] == [
        ("epoch 1", [0, 1, 2, 3]),
        ("validation", [0, 1]),
        ("epoch 2", [4, 5, 6, 7]),
        ("validation", [0, 1]),
    ]
    record = epochs_of(tmp_path)[0]
    of_training = shown[0][2]
    of_validation = shown[1][2]
    assert of_training[0] == of_validation[0] == ""
    assert of_training[-1] == f"loss {record['train_loss']:.3f}"
    assert of_validation[-1] == f"loss {record['validation_loss']:.3f}"


def test_a_trainer_that_has_not_begun_can_be_saved_and_resumed(tmp_path):
    make(tmp_path).save()
    again = make(tmp_path)
    assert again.resume()
    assert again.fit().step == 8
