"""Freezing: the encoder keeps its weights until its time has come, deepest stage first
where that is asked.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training_toys import Net, Toy, assert_same, interrupt, make
from trivox.config.recipe import make_recipe
from trivox.errors import InterruptedTrainingError, RecipeError
from trivox.learning.checkpoints import load_checkpoint
from trivox.learning.steps.freezing import Freezing


class Staged(nn.Module):
    """Three encoder stages, finest first, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        widths = [1, 2, 3, 4]
        self.encoder = nn.ModuleList(
            nn.Conv3d(widths[s], widths[s + 1], 3, padding=1) for s in range(3)
        )
        self.head = nn.Conv3d(4, 2, 1)

    def encoder_stages(self):
        return list(self.encoder)

    def forward(self, images):
        for stage in self.encoder:
            images = nn.functional.leaky_relu(stage(images))
        return self.head(images)


def freezing(**changes):
    return Freezing(Staged(), make_recipe("production", changes))


def moved(folder, **changes):
    """After each step: which of the three stages and the head have left their first
    values.
    """
    trainer = make(
        folder, network=Staged(), epochs=3, iterations_per_epoch=4, **changes
    )  # 12 steps
    parts = [*trainer.network.encoder, trainer.network.head]
    start = [part.weight.detach().clone() for part in parts]
    history = []
    step = trainer._step
    trainer._step = lambda *batch: (
        step(*batch),
        history.append(
            [
                not torch.equal(part.weight, first)
                for part, first in zip(parts, start, strict=True)
            ]
        ),
    )[0]
    trainer.fit()
    return history


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_encoder_stays_until_its_share_of_training_is_over_and_then_learns(
    tmp_path, optimizer
):
    history = moved(tmp_path, freeze_encoder=0.5, optimizer=optimizer, weight_decay=0.1)
    assert history[:6] == [[False, False, False, True]] * 6
    assert history[6] == [True] * 4


def test_staged_stages_thaw_one_after_the_other_deepest_first(tmp_path):
    history = moved(
        tmp_path, freeze_encoder=0.75, unfreezing="staged"
    )  # 9 of 12 steps, 3 a stage
    assert history[:3] == [[False, False, False, True]] * 3
    assert history[3:6] == [[False, False, True, True]] * 3
    assert history[6:9] == [[False, True, True, True]] * 3
    assert history[9] == [True] * 4


def test_a_share_of_one_freezes_throughout(tmp_path):
    assert moved(tmp_path, freeze_encoder=1.0)[-1] == [False, False, False, True]
    assert freezing(freeze_encoder=1.0).frozen_at(1.0) == 3


def test_without_freezing_all_learn_from_the_first_step(tmp_path):
    assert moved(tmp_path)[0] == [True] * 4


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    share=st.floats(0.01, 1),
    staged=st.booleans(),
    spent=st.lists(st.floats(0, 1), min_size=2),
)
def test_stages_only_thaw_and_all_have_thawed_at_the_share(share, staged, spent):
    frozen = freezing(
        freeze_encoder=share, unfreezing="staged" if staged else "at_once"
    )
    counts = [frozen.frozen_at(s) for s in sorted(spent)]
    assert counts == sorted(counts, reverse=True)
    assert frozen.frozen_at(0.0) == 3
    assert all(0 <= count <= 3 for count in counts)
    if share < 1:
        assert frozen.frozen_at(share) == 0


@pytest.mark.parametrize("step", [1, 4, 7])
def test_interrupted_and_resumed_equals_uninterrupted_while_stages_thaw(tmp_path, step):
    facts = {"freeze_encoder": 0.9, "unfreezing": "staged", "optimizer": "adamw"}
    whole = make(tmp_path / "a", network=Staged(), **facts)
    whole.fit()
    first = make(
        tmp_path / "b", network=Staged(), source=Toy(on_read={step: interrupt}), **facts
    )
    with pytest.raises(InterruptedTrainingError):
        first.fit()
    second = make(tmp_path / "b", network=Staged(), **facts)
    assert second.resume()
    second.fit()
    assert_same(whole.network.state_dict(), second.network.state_dict())
    ends = [
        load_checkpoint(tmp_path / x / "checkpoints" / "latest").optimizer["optimizer"]
        for x in "ab"
    ]
    assert ends[0]["state"].keys() == ends[1]["state"].keys()


def test_every_parameter_is_in_the_optimizer_from_the_start(tmp_path):
    trainer = make(tmp_path, network=Staged(), freeze_encoder=1.0)
    held = set()
    for group in trainer.learner.optimizer.param_groups:
        held |= {id(parameter) for parameter in group["params"]}
    assert held == {id(p) for p in trainer.network.parameters()}


def test_each_change_is_logged(tmp_path):
    lines = []
    make(
        tmp_path,
        network=Staged(),
        freeze_encoder=0.75,
        unfreezing="staged",
        lines=lines,
    ).fit()
    assert [line for line in lines if "frozen" in line] == [
        f"encoder: {n} of 3 stages are frozen" for n in (3, 2, 1, 0)
    ]


def test_a_network_without_stages_cannot_be_frozen(tmp_path):
    with pytest.raises(RecipeError, match="'resenc-m' has no encoder to freeze"):
        make(tmp_path, network=Net(), freeze_encoder=0.5)
