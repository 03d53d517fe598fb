"""A training that diverges stops in one line, and leaves the last good checkpoint."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from training_toys import Net, Toy, epochs_of, interrupt, make, segmentation
from trivox.errors import (
    BundleError,
    DivergedTrainingError,
    InterruptedTrainingError,
)
from trivox.learning.checkpoints import load_checkpoint, load_weights
from trivox.learning.divergence import FAR, all_finite, far_off
from trivox.learning.progress import Progress


def latest(folder):
    return folder / "checkpoints" / "latest"


class Scaled(nn.Module):
    """A net whose logits are multiplied from some step on."""

    def __init__(self, factor, first):
        super().__init__()
        self.net = Net()
        self.factor = factor
        self.first = first
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        return self.net(images) * (self.factor if self.steps > self.first else 1)


@pytest.mark.parametrize("rate", [1e5, 1e15])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("epochs", [1, 4])
def test_a_rate_that_is_far_too_high_ends_in_one_line_without_checkpoint(
    tmp_path, rate, optimizer, epochs
):
    trainer = make(tmp_path, learning_rate=rate, optimizer=optimizer, epochs=epochs)
    with pytest.raises(DivergedTrainingError) as raised:
        trainer.fit()
    assert "\n" not in str(raised.value)
    assert f"step {trainer.progress.step}" in str(raised.value)
    assert "no good checkpoint" in str(raised.value)
    assert "--lr 0.0" in str(raised.value)
    assert not (tmp_path / "checkpoints").exists()
    assert len(epochs_of(tmp_path)) <= 2


def test_the_last_good_checkpoint_stays_and_training_goes_on_from_it(tmp_path):
    make(tmp_path, epochs=2).fit()
    before = load_checkpoint(latest(tmp_path))
    lost = make(tmp_path, epochs=6, learning_rate=1e15)
    lost.resume()
    with pytest.raises(DivergedTrainingError, match=r"checkpoints/latest: .*--resume"):
        lost.fit()
    after = load_checkpoint(latest(tmp_path))
    assert after.state == before.state
    assert all(torch.equal(after.weights[k], v) for k, v in before.weights.items())
    again = make(tmp_path, epochs=3, learning_rate=0.01)
    again.resume()
    assert again.fit().step == 12
    assert again.learner.optimizer.param_groups[0]["base_lr"] == 0.01


@pytest.mark.parametrize("factor", [1e4, math.nan])
@pytest.mark.parametrize("validation", [True, False])
def test_a_loss_that_stays_far_above_its_start_ends_training(
    tmp_path, factor, validation
):
    """Even where weights and gradients are fine."""
    trainer = make(
        tmp_path,
        network=Scaled(factor, first=4),
        epochs=9,
        learning_rate=1e-9,
        validation=validation,
    )
    with pytest.raises(DivergedTrainingError, match="at the start"):
        trainer.fit()
    assert trainer.progress.epoch <= 3
    assert trainer.progress.best_epoch <= 1  # the epoch before


def test_a_single_bad_epoch_is_said_and_survived(tmp_path):
    class Once(Scaled):
        def forward(self, images):
            bad = self.first < self.steps <= self.first + 4
            self.steps += self.training
            return self.net(images) * (self.factor if bad else 1)

    lines = []
    trainer = make(tmp_path, network=Once(1e5, 5), epochs=5, lines=lines)
    trainer.fit()
    assert sum("training stops if it stays so" in line for line in lines) == 1
    assert trainer.progress.finished


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    def spoil():
        with torch.no_grad():
            next(trainer.network.parameters())[0] = math.nan
        interrupt()

    trainer = make(tmp_path, source=Toy(on_read={6: spoil}), epochs=4)
    with pytest.raises((DivergedTrainingError, InterruptedTrainingError)) as raised:
        trainer.fit()
    assert isinstance(raised.value, DivergedTrainingError)
    assert "weights are not finite" in str(raised.value)
    assert not latest(tmp_path).exists()


def test_an_optimizer_that_remembers_infinity_is_never_saved(tmp_path):
    trainer = make(tmp_path, optimizer="adamw", epochs=1)
    trainer.fit()
    before = latest(tmp_path).stat().st_mtime_ns
    for memory in trainer.learner.optimizer.state.values():
        memory["exp_avg_sq"].fill_(math.inf)
    with pytest.raises(DivergedTrainingError, match="not finite"):
        trainer.save()
    assert latest(tmp_path).stat().st_mtime_ns == before


def test_an_attempt_that_starts_over_forgets_the_best_of_the_one_before(tmp_path):
    trainer = make(tmp_path, network=Scaled(1e9, 9), epochs=9, checkpoint_minutes=1e9)
    with pytest.raises(DivergedTrainingError, match=r"checkpoint is .*best"):
        trainer.fit()
    assert not make(tmp_path).resume()
    assert not list((tmp_path / "checkpoints").glob("best*"))


def test_a_finished_training_goes_on_with_more_epochs(tmp_path):
    make(tmp_path / "run", epochs=2).fit()
    longer = make(tmp_path / "run", epochs=4)
    longer.resume()
    assert longer.fit().epoch == 4
    assert [r["epoch"] for r in epochs_of(tmp_path / "run")] == [1, 2, 3, 4]
    # the rate is that of the longer training at its place
    rates = [r["lr"] for r in epochs_of(tmp_path / "run")]
    assert rates[2] > rates[1]
    lines = []
    same = make(tmp_path / "run", epochs=4, lines=lines)
    same.resume()
    assert same.fit().step == 16
    assert any("--resume with more --epochs" in line for line in lines)


@given(first=st.floats(-1e6, 1e6), loss=st.floats(allow_nan=True, allow_infinity=True))
def test_what_is_far_off(first, loss):
    assert far_off(loss, first) == (
        not math.isfinite(loss) or loss > FAR * max(1, abs(first))
    )
    assert far_off(loss, None) == (not math.isfinite(loss))


def test_tensors_are_found_wherever_they_are():
    good = {"a": [torch.ones(2), {"b": torch.arange(3)}], "c": "text", "d": None}
    assert all_finite(good)
    assert not all_finite({**good, "e": ({"f": torch.tensor([1.0, math.nan])},)})
    assert all_finite(segmentation().state())


# -- what is read again ----------------------------------------------------------------
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_never_loaded(tmp_path, number):
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, number])}, file)
    with pytest.raises(BundleError, match="b hold NaN or infinity"):
        load_weights(file)


FIELDS = sorted(Progress().to_json())


@given(
    name=st.sampled_from([*FIELDS, "unknown"]),
    value=st.sampled_from([0, -1, math.nan, math.inf, 1e158, "x", None, [], {}]),
)
def test_a_state_is_restored_or_refused(name, value):
    state = {**Progress(epoch=3, step=12, best=0.5).to_json(), name: value}
    try:
        restored = Progress.restored(json.loads(json.dumps(state)))
    except ValueError:
        return
    json.dumps(restored.to_json(), allow_nan=False)
    assert restored.step >= 0


@pytest.mark.parametrize("content", [[], {}, {"progress": []}, {"progress": {"x": 1}}])
def test_a_damaged_state_is_named(tmp_path, content):
    make(tmp_path, epochs=1).fit()
    (latest(tmp_path) / "state.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="checkpoints/latest does not fit"):
        make(tmp_path).resume()
