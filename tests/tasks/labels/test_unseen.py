"""A network that answers background everywhere is told of early, once, with remedies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training_toys import Toy, make, segmentation
from trivox.config.recipe import Recipe
from trivox.learning.tracking import read_records
from trivox.tasks.labels.unseen import SHARE, VALIDATIONS, UnseenTargets

SEEN, UNSEEN, ABSENT = (5.0, 9.0), (0.0, 9.0), (0.0, 0.0)


class Background(nn.Module):
    """Background wherever it looks, from some step of training on."""

    def __init__(self, first=0):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.first = first
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        sign = 1 if self.steps > self.first else -1
        ground = torch.full_like(images, 3.0 * sign) + self.bias
        return torch.cat([ground, 0 * images], 1)


@pytest.mark.parametrize("first", [0, 16])
def test_it_is_said_once_and_within_a_tenth_of_the_budget(tmp_path, first):
    lines = []
    objective = segmentation()
    trainer = make(
        tmp_path,
        network=Background(first),
        objective=objective,
        source=Toy(),
        lines=lines,
        epochs=40,
        learning_rate=1e-9,
        validation_iterations=1,
        iterations_per_epoch=1,
    )
    trainer.fit()
    said = [number for number, line in enumerate(lines) if "predicted nowhere" in line]
    assert len(said) == 1
    epochs = sum(line.startswith("epoch") for line in lines[: said[0]])
    assert first < epochs <= first + 4  # a tenth
    assert len(read_records(tmp_path / "metrics.jsonl")) == 40


def test_the_remedies_are_those_of_the_recipe():
    watch = UnseenTargets.under(Recipe(foreground_fraction=0.5, learning_rate=0.3))
    for step in range(VALIDATIONS):
        watch.spent = step * SHARE
        watch.note({"lesion": UNSEEN})
    (line,) = watch.remarks()
    assert "foreground_fraction=0.8 instead of 0.5" in line
    assert "--lr (0.1 instead of 0.3)" in line
    assert "\n" not in line


@given(st.lists(st.sampled_from([SEEN, UNSEEN, ABSENT]), max_size=30))
def test_only_validations_in_a_row_that_have_the_target_count(validations):
    watch = UnseenTargets("x")
    warned = []
    for number, voxels in enumerate(validations):
        watch.spent = number * SHARE / 2
        watch.note({"lesion": voxels})
        warned += watch.remarks()
    runs = [[]]
    for voxels in validations:
        if voxels == SEEN:
            runs.append([])
        elif voxels == UNSEEN:
            runs[-1].append(voxels)
    if not any(len(run) >= VALIDATIONS for run in runs):
        assert not warned
    if UNSEEN not in validations:
        assert not watch.since
    assert len(warned) <= 1


def test_a_resumed_training_goes_on_counting():
    first = UnseenTargets("x")
    for step in range(2):
        first.spent = step * SHARE
        first.note({"lesion": UNSEEN})
    second = UnseenTargets("x", spent=3 * SHARE)
    second.restore(first.state())
    second.note({"lesion": UNSEEN})
    assert len(second.remarks()) == 1
    third = UnseenTargets("x", spent=9 * SHARE)
    third.restore(second.state())
    third.note({"lesion": UNSEEN})
    assert not third.remarks()
