import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.config import make_recipe
from trivox.datasets.labels import LabelScheme
from trivox.planning.plan import read_plan
from trivox.tasks.segmentation import SegmentationObjective

few = settings(max_examples=15, deadline=None, derandomize=True)
EXCLUSIVE = LabelScheme(labels={"a": 7, "b": 300}, ignore=9)
REGIONS = LabelScheme(labels={"a": 1, "b": 2}, regions={"whole": (1, 2), "core": (2,)}, region_order=(1, 2))


def objective(scheme):
    return SegmentationObjective(scheme, 1.0, 1.0, False, torch.from_numpy(scheme.region_table()))


def perfect(labels, scheme):
    if scheme.exclusive:
        logits = torch.full((len(labels), 3, *labels.shape[1:]), -20.0)
        return logits.scatter_(1, labels.clamp(min=0).long()[:, None], 20.0)
    return torch.stack([labels > 0, labels == 2], 1).float() * 40 - 20


def drawn(seed, shape=(2, 4, 6, 8)):
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).to(torch.int16)


@pytest.mark.parametrize("scheme", [EXCLUSIVE, REGIONS])
def test_a_perfect_prediction_scores_one_and_costs_nothing(scheme):
    task, labels = objective(scheme), drawn(0)
    figures = task.score(task.count(perfect(labels, scheme), labels))
    assert figures["validation_dice"] == figures["validation_iou"] == 1
    assert [f"validation_dice/{name}" in figures for name in scheme.targets] == [True, True]
    assert float(task.loss(perfect(labels, scheme), labels)) < 1e-3
    assert float(task.loss(torch.zeros_like(perfect(labels, scheme)), labels)) > 0.5


@few
@given(seed=st.integers(0, 999))
def test_dice_and_iou_are_those_of_the_masks(seed):
    labels, predicted = drawn(seed), drawn(seed + 1000)
    task = objective(EXCLUSIVE)
    figures = task.score(task.count(perfect(predicted, EXCLUSIVE), labels))
    for index, name in enumerate(EXCLUSIVE.targets, start=1):
        both = ((labels == index) & (predicted == index)).sum()
        total = (labels == index).sum() + (predicted == index).sum()
        assert figures[f"validation_dice/{name}"] == pytest.approx(float(2 * both / total))


def test_counts_add_up_over_batches():
    task, labels = objective(EXCLUSIVE), drawn(1)
    logits = torch.randn(2, 3, 4, 6, 8)
    each = sum(task.count(logits[i : i + 1], labels[i : i + 1]) for i in range(2))
    assert torch.equal(task.count(logits, labels), each)


@pytest.mark.parametrize("scheme", [EXCLUSIVE, REGIONS])
def test_ignored_voxels_change_neither_loss_nor_score(scheme):
    task, labels = objective(scheme), drawn(2)
    labels[:, :2] = -1
    logits = torch.randn(2, 3 if scheme.exclusive else 2, 4, 6, 8)
    other = logits.clone()
    other[:, :, :2] = torch.randn_like(other[:, :, :2]) * 9
    assert torch.equal(task.count(logits, labels), task.count(other, labels))
    assert torch.allclose(task.loss(logits, labels), task.loss(other, labels), atol=1e-6)


def test_targets_absent_everywhere_are_left_out_of_the_mean():
    task, labels = objective(EXCLUSIVE), drawn(3).clamp(max=1)
    figures = task.score(task.count(perfect(labels, EXCLUSIVE), labels))
    assert figures["validation_dice"] == 1
    assert math.isnan(figures["validation_dice/b"])
    nothing = task.score(task.count(perfect(labels * 0, EXCLUSIVE), labels * 0))
    assert math.isnan(nothing["validation_dice"])


def test_deep_supervision_weighs_scales_by_half_and_drops_the_coarsest():
    task, labels = objective(EXCLUSIVE), drawn(4, (2, 8, 8, 8))
    scales = [torch.randn(2, 3, *[8 // 2**i] * 3, requires_grad=True) for i in range(3)]
    shrunk = [labels, labels[:, 1::2, 1::2, 1::2]]
    expected = sum(w * task.loss(s, t) for w, s, t in zip((2 / 3, 1 / 3), scales[:2], shrunk, strict=True))
    loss = task.loss(scales, labels)
    assert torch.allclose(loss, expected, atol=1e-6)
    loss.backward()
    assert scales[2].grad is not None  # DDP waits for every parameter
    assert not scales[2].grad.any()


def test_the_recipe_overrules_the_plan(tiny_run):
    plan = read_plan(tiny_run / "plan.json")
    assert SegmentationObjective.of(plan, make_recipe()).batch_dice is plan.batch_dice
    assert SegmentationObjective.of(plan, make_recipe(overrides={"batch_dice": True})).batch_dice is True
