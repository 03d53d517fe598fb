"""Dice + cross-entropy: value and gradient against plain autograd, ignored voxels,
regions, scales.
"""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.learning.losses.combined import shrink_labels, supervision_weights
from trivox.learning.losses.fused import dice_binary_cross_entropy, dice_cross_entropy
from trivox.learning.losses.targets import SMOOTH, region_targets

REGIONS = torch.tensor(
    [[False, True, True, True], [False, True, False, True], [False, False, False, True]]
)


def drawn(shape, classes, *, ignored=0.0, seed=0, dtype=torch.float64):
    """Logits `(b, c, z, y, x)` and indices `(b, z, y, x)`, a share of them ignored."""
    torch.manual_seed(seed)
    logits = 2 * torch.randn(shape[0], classes, *shape[1:], dtype=dtype)
    labels = torch.randint(0, classes, shape, dtype=torch.int16)
    labels[torch.rand(shape) < ignored] = -1
    return logits.requires_grad_(), labels


def soft_dice(probability, target, *, batch):
    axes = (0, 2) if batch else (2,)
    overlap, mass, size = (
        part.sum(axes) for part in (probability * target, probability, target)
    )
    return ((2 * overlap + SMOOTH) / (mass + size + SMOOTH)).clamp(max=2)


def naive(logits, labels, *, dice_weight=1.0, ce_weight=1.0, batch=False):
    """The definition, one-hot and by autograd."""
    flat = logits.flatten(2)
    index = labels.flatten(1).long()
    valid = (index >= 0)[:, None].to(flat.dtype)
    target = F.one_hot(index.clamp(min=0), flat.shape[1]).movedim(-1, 1) * valid
    entropy = -(flat.log_softmax(1) * target).sum() / valid.sum().clamp(min=1)
    dice = soft_dice(flat.softmax(1) * valid, target, batch=batch)
    dice = dice[1:] if batch else dice[:, 1:]
    return ce_weight * entropy + dice_weight * (1 - dice.mean())


def naive_regions(logits, labels, regions, *, batch=False):
    flat = logits.flatten(2)
    valid = (labels.flatten(1) >= 0)[:, None].to(flat.dtype)
    target = (
        regions[:, labels.flatten(1).clamp(min=0).long()].movedim(0, 1).to(flat.dtype)
        * valid
    )
    p = flat.sigmoid()
    entropy = -(target * p.log() + (1 - target) * (1 - p).log()) * valid
    dice = soft_dice(p * valid, target, batch=batch)
    return entropy.sum() / (valid.sum() * flat.shape[1]).clamp(min=1) + 1 - dice.mean()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_analytic_gradient_is_that_of_finite_differences(batch, ignored):
    logits, labels = drawn((2, 2, 3, 2), 4, ignored=ignored)
    assert torch.autograd.gradcheck(
        lambda x: dice_cross_entropy(
            x, labels, dice_weight=0.7, ce_weight=1.3, batch=batch
        ),
        (logits,),
    )


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_gradient_for_regions_is_that_of_finite_differences(batch, ignored):
    logits, labels = drawn((2, 2, 3, 2), 4, ignored=ignored)
    logits = logits[:, :3].detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: dice_binary_cross_entropy(x, labels, REGIONS, batch=batch), (logits,)
    )


def value_and_gradient(loss, logits):
    logits.grad = None
    value = loss(logits)
    value.backward()
    return value.detach(), logits.grad.clone()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), *(st.integers(1, 5),) * 3),
    classes=st.integers(2, 9),
    ignored=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    batch=st.booleans(),
    weights=st.sampled_from([(1.0, 1.0), (0.0, 1.0), (2.0, 0.0)]),
)
def test_value_and_gradient_equal_the_naive_loss(
    shape, classes, ignored, batch, weights
):
    logits, labels = drawn(shape, classes, ignored=ignored, seed=sum(shape))
    named = {"dice_weight": weights[0], "ce_weight": weights[1], "batch": batch}
    value, gradient = value_and_gradient(
        lambda x: dice_cross_entropy(x, labels, **named), logits
    )
    theirs, expected = value_and_gradient(lambda x: naive(x, labels, **named), logits)
    torch.testing.assert_close(value, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), *(st.integers(1, 5),) * 3),
    ignored=st.sampled_from([0.0, 0.3]),
    batch=st.booleans(),
)
def test_region_value_and_gradient_equal_the_naive_loss(shape, ignored, batch):
    logits, labels = drawn(shape, 4, ignored=ignored, seed=sum(shape))
    logits = logits[:, :3].detach().requires_grad_()
    value, gradient = value_and_gradient(
        lambda x: dice_binary_cross_entropy(x, labels, REGIONS, batch=batch), logits
    )
    theirs, expected = value_and_gradient(
        lambda x: naive_regions(x, labels, REGIONS, batch=batch), logits
    )
    torch.testing.assert_close(value, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [False, True])
def test_a_perfect_prediction_costs_nothing(batch):
    _, labels = drawn((2, 4, 5, 6), 4, ignored=0.1)
    certain = 100.0 * F.one_hot(labels.clamp(min=0).long(), 4).movedim(-1, 1)
    assert dice_cross_entropy(certain, labels, batch=batch) == pytest.approx(
        0, abs=1e-5
    )
    inside = 200.0 * region_targets(labels, REGIONS) - 100
    assert dice_binary_cross_entropy(
        inside, labels, REGIONS, batch=batch
    ) == pytest.approx(0, abs=1e-5)


def test_a_wrong_prediction_costs_about_one_of_dice():
    labels = torch.ones(1, 4, 4, 4, dtype=torch.int16)
    wrong = 50.0 * F.one_hot(torch.zeros_like(labels).long(), 2).movedim(-1, 1)
    assert dice_cross_entropy(wrong, labels, ce_weight=0) == pytest.approx(1, abs=1e-4)
    assert dice_cross_entropy(wrong, labels, dice_weight=0) == pytest.approx(
        50, rel=1e-4
    )


def test_a_constant_added_to_all_logits_changes_nothing():
    logits, labels = drawn((2, 3, 4, 5), 5)
    torch.testing.assert_close(
        dice_cross_entropy(logits, labels), dice_cross_entropy(logits + 1000, labels)
    )


def test_huge_logits_stay_finite():
    logits, labels = drawn((2, 3, 4, 5), 3, dtype=torch.float32)
    value, gradient = value_and_gradient(
        lambda x: dice_cross_entropy(x * 1e6, labels), logits
    )
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("batch", [False, True])
def test_ignored_voxels_have_no_gradient_and_no_influence(batch):
    logits, labels = drawn((2, 3, 4, 5), 4, ignored=0.4)
    ignored = (labels < 0)[:, None].expand_as(logits)
    value, gradient = value_and_gradient(
        lambda x: dice_cross_entropy(x, labels, batch=batch), logits
    )
    assert not gradient[ignored].any()
    assert gradient[~ignored].any()
    changed = torch.where(
        ignored, torch.full_like(logits, 9.0) * torch.randn_like(logits), logits
    )
    torch.testing.assert_close(dice_cross_entropy(changed, labels, batch=batch), value)
    region_logits = logits[:, :3].detach().requires_grad_()
    _, gradient = value_and_gradient(
        lambda x: dice_binary_cross_entropy(x, labels, REGIONS, batch=batch),
        region_logits,
    )
    assert not gradient[ignored[:, :3]].any()


def test_a_wholly_ignored_batch_costs_nothing_and_moves_nothing():
    logits, labels = drawn((1, 2, 3, 4), 3, ignored=1.0)
    value, gradient = value_and_gradient(
        lambda x: dice_cross_entropy(x, labels), logits
    )
    assert value == 0
    assert not gradient.any()


def test_batch_dice_differs_from_the_mean_of_samples_only_for_several_samples():
    logits, labels = drawn((2, 3, 4, 5), 3)
    assert dice_cross_entropy(logits, labels) != dice_cross_entropy(
        logits, labels, batch=True
    )
    one = logits[:1]
    first = labels[:1]
    torch.testing.assert_close(
        dice_cross_entropy(one, first), dice_cross_entropy(one, first, batch=True)
    )


@pytest.mark.parametrize("batch", [False, True])
def test_bf16_logits_give_nearly_the_fp32_loss_and_bf16_gradients(batch):
    logits, labels = drawn((2, 6, 7, 8), 5, dtype=torch.float32)
    exact, expected = value_and_gradient(
        lambda x: dice_cross_entropy(x, labels, batch=batch), logits
    )
    rounded = logits.detach().bfloat16().requires_grad_()
    value, gradient = value_and_gradient(
        lambda x: dice_cross_entropy(x, labels, batch=batch), rounded
    )
    assert (value.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    assert value == pytest.approx(float(exact), rel=5e-3)
    torch.testing.assert_close(
        gradient.float(), expected, atol=2e-2 * float(expected.abs().max()), rtol=0
    )


def test_the_gradient_follows_the_incoming_one():
    logits, labels = drawn((1, 3, 4, 5), 3)
    _, once = value_and_gradient(lambda x: dice_cross_entropy(x, labels), logits)
    _, thrice = value_and_gradient(lambda x: 3 * dice_cross_entropy(x, labels), logits)
    torch.testing.assert_close(thrice, 3 * once)


def test_the_inputs_are_left_alone():
    logits, labels = drawn((2, 3, 4, 5), 4, ignored=0.2)
    before = logits.detach().clone()
    labels_before = labels.clone()
    value_and_gradient(lambda x: dice_cross_entropy(x, labels), logits)
    assert torch.equal(logits, before)
    assert torch.equal(labels, labels_before)


def test_region_targets_are_the_members_and_never_ignored_voxels():
    labels = torch.tensor([[[[0, 1, 2, 3, -1]]]], dtype=torch.int16)
    assert region_targets(labels, REGIONS)[0, :, 0, 0].int().tolist() == [
        [0, 1, 1, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 0],
    ]


def test_supervision_weights_of_five_outputs_are_nnunets():
    """Six stages have five outputs; research/nnunet.md 1.8."""
    assert [round(w, 3) for w in supervision_weights(5)] == [
        0.533,
        0.267,
        0.133,
        0.067,
        0.0,
    ]


@pytest.mark.parametrize("scales", range(1, 8))
def test_supervision_weights_sum_to_one_and_halve(scales):
    weights = supervision_weights(scales)
    assert sum(weights) == pytest.approx(1)
    assert all(
        fine == pytest.approx(2 * coarse) or coarse == 0
        for fine, coarse in pairwise(weights)
    )
    assert (weights[-1] == 0) == (scales > 1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(size=st.tuples(*(st.integers(1, 12),) * 3), data=st.data())
def test_shrunk_labels_are_those_at_exact_centres(size, data):
    new = tuple(data.draw(st.integers(1, n)) for n in size)
    labels = torch.randint(
        -1,
        9,
        (2, *size),
        dtype=torch.int16,
        generator=torch.Generator().manual_seed(sum(size)),
    )
    expected = F.interpolate(labels[:, None].float(), size=new, mode="nearest-exact")[
        :, 0
    ].to(torch.int16)
    assert torch.equal(shrink_labels(labels, torch.Size(new)), expected)
