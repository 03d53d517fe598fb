"""What makes the losses of overlap and of single voxels what they are."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from loss_cases import (
    MODES,
    NESTED,
    SINGLETONS,
    blobs,
    built,
    certain,
    drawn,
    each_mode,
    few,
    value_and_gradient,
)
from trivox.learning.losses.choice import LOSSES, LossSetup
from trivox.learning.losses.entropy import cross_entropy, focal, top_k_cross_entropy
from trivox.learning.losses.fused import dice_binary_cross_entropy, dice_cross_entropy
from trivox.learning.losses.lovasz import lovasz
from trivox.learning.losses.overlap import (
    dice,
    focal_tversky,
    generalised_dice,
    tversky,
)
from trivox.learning.losses.targets import region_targets


# -- overlap ---------------------------------------------------------------------------
@few
@given(
    seed=st.integers(0, 99),
    batch=st.booleans(),
    ignored=st.sampled_from([0.0, 0.3]),
    mode=st.sampled_from([*MODES]),
)
def test_tversky_with_equal_weights_is_dice(seed, batch, ignored, mode):
    logits, labels = drawn(mode, seed=seed, ignored=ignored)
    shared = {"regions": MODES[mode], "batch": batch}
    theirs = value_and_gradient(lambda x, y: dice(x, y, **shared), logits, labels)
    value = value_and_gradient(
        lambda x, y: tversky(x, y, alpha=0.5, beta=0.5, **shared), logits, labels
    )
    torch.testing.assert_close(value, theirs)


def test_beta_weighs_missed_voxels_and_alpha_false_ones():
    labels = blobs().clamp(max=1)
    missed = labels.clone()
    false = labels.clone()
    missed[:, 1:4] = 0
    false[:, :, :, 8:] = 1

    def cost(wrong, **w):
        return float(tversky(certain(wrong, "classes")[:, :2], labels, **w))

    assert cost(missed, alpha=1, beta=0) == pytest.approx(0, abs=1e-6)
    assert cost(false, alpha=0, beta=1) == pytest.approx(0, abs=1e-6)
    size = float((labels == 1).sum())
    lost = float((labels[:, 1:4] == 1).sum())
    hit = size - lost
    assert cost(missed, alpha=0.3, beta=0.7) == pytest.approx(
        1 - hit / (hit + 0.7 * lost), abs=1e-5
    )


def test_focal_tversky_is_a_power_of_tversky():
    logits, labels = drawn(shape=(1, 4, 4, 4))
    logits = logits[:, :2]
    labels = labels.clamp(max=1)
    error = tversky(logits, labels)
    torch.testing.assert_close(focal_tversky(logits, labels, gamma=4 / 3), error**0.75)
    torch.testing.assert_close(focal_tversky(logits, labels, gamma=1.0), error)


def test_generalised_dice_weighs_a_small_structure_as_much_as_a_large_one():
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.int16)
    labels[:, :4] = 1
    labels[:, 7, 7, 7] = 2
    lost = {index: labels.masked_fill(labels == index, 0) for index in (1, 2)}
    cost = {
        index: float(generalised_dice(certain(wrong, "classes"), labels))
        for index, wrong in lost.items()
    }
    assert cost[2] > 50 * cost[1]  # 1 / n^2: the single voxel outweighs 256 of them
    sizes = np.array([256.0, 1.0])
    weights = sizes.min() ** 2 / sizes**2
    hits = {1: np.array([0.0, 1.0]), 2: np.array([256.0, 0.0])}
    for index, hit in hits.items():
        expected = 1 - 2 * (weights * hit).sum() / (weights * (sizes + hit)).sum()
        assert cost[index] == pytest.approx(expected, abs=1e-4)


@few
@given(
    seed=st.integers(0, 99),
    batch=st.booleans(),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_fused_loss_is_the_sum_of_its_parts(seed, batch, ignored):
    logits, labels = drawn(seed=seed, ignored=ignored)

    def fused(x, y):
        return dice_cross_entropy(x, y, dice_weight=0.7, ce_weight=1.3, batch=batch)

    def parts(x, y):
        return 0.7 * dice(x, y, batch=batch) + 1.3 * cross_entropy(x, y)

    torch.testing.assert_close(
        value_and_gradient(fused, logits, labels),
        value_and_gradient(parts, logits, labels),
    )


@few
@given(
    seed=st.integers(0, 99),
    batch=st.booleans(),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_fused_loss_of_regions_is_the_sum_of_its_parts(seed, batch, ignored):
    logits, labels = drawn("regions", seed=seed, ignored=ignored)

    def fused(x, y):
        return dice_binary_cross_entropy(x, y, NESTED, batch=batch)

    def parts(x, y):
        return dice(x, y, regions=NESTED, batch=batch) + cross_entropy(
            x, y, regions=NESTED
        )

    torch.testing.assert_close(
        value_and_gradient(fused, logits, labels),
        value_and_gradient(parts, logits, labels),
    )


# -- entropy ---------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 1.0, 3.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(weights, smoothing):
    logits, labels = drawn(ignored=0.3)
    double = None if weights is None else weights.double()
    theirs = F.cross_entropy(
        logits, labels.long(), weight=double, ignore_index=-1, label_smoothing=smoothing
    )
    value = cross_entropy(
        logits, labels, class_weights=weights, label_smoothing=smoothing
    )
    torch.testing.assert_close(value, theirs)


def test_region_cross_entropy_is_torchs_weighted_and_smoothed():
    logits, labels = drawn("regions", ignored=0.3)
    weights = torch.tensor([0.5, 2.0]).double()
    valid = labels >= 0
    target = (region_targets(labels, NESTED).double() * 0.9 + 0.05).movedim(1, -1)[
        valid
    ]
    plain = F.binary_cross_entropy_with_logits(
        logits.movedim(1, -1)[valid], target, reduction="none"
    )
    expected = (plain * weights).sum() / (weights.sum() * valid.sum())
    value = cross_entropy(
        logits, labels, regions=NESTED, class_weights=weights, label_smoothing=0.1
    )
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@each_mode
def test_without_focus_and_without_selection_all_entropies_agree(
    mode, weighted, smoothing
):
    logits, labels = drawn(mode, ignored=0.2)
    weights = torch.tensor([0.2, 1.0, 3.0])[: logits.shape[1]] if weighted else None
    shared = {
        "regions": MODES[mode],
        "class_weights": weights,
        "label_smoothing": smoothing,
    }
    expected = value_and_gradient(
        lambda x, y: cross_entropy(x, y, **shared), logits, labels
    )
    all_of_it = value_and_gradient(
        lambda x, y: top_k_cross_entropy(x, y, share=1.0, **shared), logits, labels
    )
    unfocused = value_and_gradient(
        lambda x, y: focal(x, y, gamma=0.0, **shared), logits, labels
    )
    barely = value_and_gradient(
        lambda x, y: focal(x, y, gamma=1e-9, **shared), logits, labels
    )
    torch.testing.assert_close(all_of_it, expected)
    torch.testing.assert_close(unfocused, expected)
    torch.testing.assert_close(barely, expected)


def test_label_smoothing_reaches_the_losses_by_name():
    logits, labels = drawn()
    for name in ("cross_entropy", "focal", "top_k_cross_entropy"):
        assert built(name, label_smoothing=0.2)(logits, labels) != built(name)(
            logits, labels
        )


def test_class_weights_reach_the_losses_by_name():
    logits, labels = drawn()
    weights = torch.tensor([0.1, 1.0, 5.0])
    for name in ("cross_entropy", "focal", "top_k_cross_entropy"):
        weighted = LOSSES[name](LossSetup(class_weights=weights))
        assert weighted(logits, labels) != LOSSES[name](LossSetup())(logits, labels)


@few
@given(
    seed=st.integers(0, 99),
    share=st.floats(0.01, 1),
    ignored=st.sampled_from([0.0, 0.5]),
)
def test_top_k_is_the_mean_of_the_largest(seed, share, ignored):
    logits, labels = drawn(seed=seed, ignored=ignored)
    each = F.cross_entropy(logits, labels.long(), ignore_index=-1, reduction="none")[
        labels >= 0
    ]
    count = max(1, round(share * len(each)))
    expected = each.sort(descending=True).values[:count].mean()
    torch.testing.assert_close(
        top_k_cross_entropy(logits, labels, share=share), expected
    )


def test_focal_loss_is_its_formula():
    logits, labels = drawn(shape=(1, 3, 3, 3))
    picked = logits.softmax(1).gather(1, labels.long()[:, None])
    torch.testing.assert_close(
        focal(logits, labels, gamma=2.0), -((1 - picked) ** 2 * picked.log()).mean()
    )


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.5])
@each_mode
def test_focal_loss_of_a_saturated_prediction_has_a_finite_gradient(mode, gamma):
    labels = blobs()
    loss = built("focal", mode, focal_gamma=gamma)
    value, gradient = value_and_gradient(loss, 100 * certain(labels, mode), labels)
    assert value.isfinite()
    assert gradient.isfinite().all()


# -- Lovász ----------------------------------------------------------------------------
def lovasz_reference(error, truth):
    """Sum over the sorted errors of what each adds to the Jaccard loss of the set of
    mistakes, set by set (numpy).
    """
    total = 0.0
    mistakes = np.zeros(len(truth), bool)
    before = 0.0
    for voxel in np.argsort(-error, kind="stable"):
        mistakes[voxel] = True
        union = np.count_nonzero(truth | mistakes)
        cost = np.count_nonzero(mistakes) / union
        total = total + error[voxel] * (cost - before)
        before = cost
    return total


@few
@given(
    seed=st.integers(0, 99),
    batch=st.booleans(),
    mode=st.sampled_from([*MODES]),
    absent=st.booleans(),
)
def test_lovasz_is_the_extension_of_the_jaccard_loss(seed, batch, mode, absent):
    logits, labels = drawn(mode, (2, 3, 3, 3), seed=seed, ignored=0.2)
    labels = labels.clamp(max=1) if absent else labels
    p = (
        logits.detach().sigmoid()
        if mode == "regions"
        else logits.detach().softmax(1)[:, 1:]
    )
    truth = region_targets(labels, NESTED if mode == "regions" else SINGLETONS)
    groups = [slice(0, 2)] if batch else [slice(0, 1), slice(1, 2)]
    values = []
    for group in groups:
        valid = (labels[group] >= 0).numpy()
        for target in range(truth.shape[1]):
            y = truth[group, target].numpy()[valid]
            q = p[group, target].numpy()[valid]
            values.append(lovasz_reference(np.abs(y - q), y))
    assert float(
        lovasz(logits, labels, regions=MODES[mode], batch=batch)
    ) == pytest.approx(np.mean(values), abs=1e-9)


def test_lovasz_of_a_hard_prediction_is_one_minus_iou():
    labels = blobs()
    wrong = blobs().roll(2, 1)
    iou = [
        float(
            ((labels == i) & (wrong == i)).sum() / ((labels == i) | (wrong == i)).sum()
        )
        for i in (1, 2)
    ]
    assert float(
        lovasz(certain(wrong, "classes"), labels, batch=True)
    ) == pytest.approx(1 - np.mean(iou), abs=1e-6)
