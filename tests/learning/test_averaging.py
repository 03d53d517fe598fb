"""The moving average of the weights: the numbers of its formula, validated and saved,
raw weights kept for resuming.
"""

import copy

import pytest
import torch
from torch import nn

from training_toys import Net, Scripted, Toy, assert_same, interrupt, make, weights_of
from trivox.errors import BundleError, InterruptedTrainingError
from trivox.learning.checkpoints import RAW, load_checkpoint
from trivox.learning.steps.averaging import MovingAverage

DECAY = 0.6


def by_hand(start, history, decay):
    """The formula, one parameter at a time."""
    average = {name: value.double() for name, value in start.items()}
    for step, weights in enumerate(history):
        d = min(decay, (1 + step) / (10 + step))
        average = {
            name: d * average[name] + (1 - d) * weights[name].double()
            for name in average
        }
    return average


def recorded(trainer):
    """The weights after each step of `trainer`, filled while it trains."""
    history = []
    step = trainer._step
    trainer._step = lambda *batch: (
        step(*batch),
        history.append(weights_of(trainer.network)),
    )[0]
    return history


def test_what_is_saved_is_the_average_of_all_steps(tmp_path):
    trainer = make(tmp_path, weights_ema=DECAY, learning_rate=0.3)
    start = weights_of(trainer.network)
    history = recorded(trainer)
    trainer.fit()
    saved = load_checkpoint(tmp_path / "checkpoints" / "latest")
    expected = by_hand(start, history, DECAY)
    for name, value in saved.weights.items():
        assert torch.allclose(value.double(), expected[name], rtol=0, atol=1e-6), name
    assert not torch.allclose(
        saved.weights["body.0.weight"], history[-1]["body.0.weight"], atol=1e-3
    )
    assert_same(saved.raw, history[-1])


def test_the_best_checkpoint_holds_the_average_of_its_epoch(tmp_path):
    trainer = make(
        tmp_path,
        weights_ema=DECAY,
        objective=Scripted([0.2, 0.9, 0.1]),
        epochs=3,
        validation_smoothing=0.0,
    )
    start = weights_of(trainer.network)
    history = recorded(trainer)
    trainer.fit()
    best = load_checkpoint(tmp_path / "checkpoints" / "best")
    for name, value in by_hand(start, history[:8], DECAY).items():
        assert torch.allclose(best.weights[name].double(), value, rtol=0, atol=1e-6), (
            name
        )
    assert best.raw is None


def test_the_average_is_what_is_validated(tmp_path):
    class Named(Net):
        def forward(self, images):
            if not self.training:
                seen.append(self)
            return super().forward(images)

        def __deepcopy__(self, memo):
            other = Named()
            other.load_state_dict(self.state_dict())
            return other

    seen = []
    trainer = make(tmp_path, network=Named(), weights_ema=DECAY)
    trainer.fit()
    assert seen
    assert all(network is trainer.learner.average.network for network in seen)
    assert trainer.network.training
    assert not trainer.learner.average.network.training


def test_without_an_average_the_weights_themselves_are_saved_and_nothing_beside_them(
    tmp_path,
):
    trainer = make(tmp_path)
    trainer.fit()
    assert trainer.learner.average is None
    assert not (tmp_path / "checkpoints" / "latest" / RAW).exists()


def test_a_short_run_forgets_its_random_start():
    """With a constant decay of 0.999 a start of 1 would still weigh 0.9 after 100
    steps.
    """
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    average = MovingAverage(network, 0.999)
    nn.init.zeros_(network.weight)
    for step in range(100):
        average.update(network, step)
    assert float(average.network.weight.detach()) < 1e-6


def test_the_decay_rises_to_that_of_the_recipe():
    average = MovingAverage(nn.Linear(1, 1), 0.99)
    decays = [average.decay_at(step) for step in range(2000)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_buffers_are_copied():
    network = nn.BatchNorm1d(2)
    average = MovingAverage(network, 0.9)
    network(torch.randn(8, 2) + 5)
    average.update(network, 0)
    assert torch.equal(average.network.running_mean, network.running_mean)
    assert int(average.network.num_batches_tracked) == 1


def test_the_average_takes_no_gradient_and_leaves_the_network_alone():
    network = nn.Linear(2, 2)
    before = copy.deepcopy(network.state_dict())
    average = MovingAverage(network, 0.5)
    average.update(network, 3)
    assert not any(p.requires_grad for p in average.network.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert_same(before, network.state_dict())


@pytest.mark.parametrize("step", [2, 3, 6])
def test_interrupted_and_resumed_equals_uninterrupted_with_an_average(tmp_path, step):
    settings = {"weights_ema": DECAY, "keep_best": 2}
    whole = make(tmp_path / "a", **settings)
    first = make(tmp_path / "b", source=Toy(on_read={step: interrupt}), **settings)
    whole.fit()
    with pytest.raises(InterruptedTrainingError):
        first.fit()
    second = make(tmp_path / "b", **settings)
    assert second.resume()
    second.fit()
    assert_same(whole.network.state_dict(), second.network.state_dict())
    assert_same(
        whole.learner.average.network.state_dict(),
        second.learner.average.network.state_dict(),
    )
    for name in ("best", "best-2"):
        one, other = (
            load_checkpoint(tmp_path / x / "checkpoints" / name) for x in "ab"
        )
        assert_same(one.weights, other.weights)
        assert one.state["progress"]["epoch"] == other.state["progress"]["epoch"]


def test_a_checkpoint_without_the_raw_weights_is_refused(tmp_path):
    make(tmp_path).fit()
    with pytest.raises(BundleError, match="raw weights"):
        make(tmp_path, weights_ema=DECAY).resume()
