"""Laws of every loss by name, for exclusive classes and for regions, and what makes
each of them what it is.
"""

import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from trivox.config.options import LossName, LossOptions
from trivox.learning.losses import skeleton
from trivox.learning.losses.choice import LOSSES, LossSetup
from trivox.learning.losses.distance import boundary, hausdorff
from trivox.learning.losses.entropy import cross_entropy, focal, top_k_cross_entropy
from trivox.learning.losses.fused import dice_binary_cross_entropy, dice_cross_entropy
from trivox.learning.losses.lovasz import lovasz
from trivox.learning.losses.overlap import (
    dice,
    focal_tversky,
    generalised_dice,
    tversky,
)
from trivox.learning.losses.skeleton import cl_dice, soft_skeleton
from trivox.learning.losses.targets import SMOOTH, region_targets

CLASSES = 3
NESTED = torch.tensor([[False, True, True], [False, False, True]])
SINGLETONS = torch.tensor([[False, True, False], [False, False, True]])
MODES = {"classes": None, "regions": NESTED}
POOLED = ("dice", "generalised_dice", "tversky", "focal_tversky", "lovasz", "cl_dice")
few = settings(max_examples=10, deadline=None, derandomize=True)
each_loss = pytest.mark.parametrize("name", LOSSES)
each_mode = pytest.mark.parametrize("mode", MODES)


def built(name, mode="classes", *, batch=False, **options):
    return LOSSES[name](
        LossSetup(
            LossOptions(**{"cl_dice_iterations": 2, **options}), MODES[mode], batch
        )
    )


def drawn(
    mode="classes", shape=(2, 4, 4, 4), *, ignored=0.0, seed=0, dtype=torch.float64
):
    torch.manual_seed(seed)
    channels = CLASSES if MODES[mode] is None else len(MODES[mode])
    logits = 2 * torch.randn(shape[0], channels, *shape[1:], dtype=dtype)
    labels = torch.randint(0, CLASSES, shape).to(torch.int16)
    labels[torch.rand(shape) < ignored] = -1
    return logits, labels


def blobs(shape=(2, 8, 9, 10)):
    """Labels with an inside: a box of class 1 with a core of class 2."""
    labels = torch.zeros(shape, dtype=torch.int16)
    labels[:, 1:7, 2:8, 1:8] = 1
    labels[:, 3:5, 4:7, 3:6] = 2
    return labels


def certain(labels, mode):
    if MODES[mode] is not None:
        return 80.0 * region_targets(labels, MODES[mode]) - 40
    return 80.0 * F.one_hot(labels.clamp(min=0).long(), CLASSES).movedim(-1, 1)


def value_and_gradient(loss, logits, labels):
    logits = logits.detach().requires_grad_()
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def signed(mask):
    """Kervadec's distance map, straight from its definition."""
    outside, inside = distance_transform_edt(~mask), distance_transform_edt(mask)
    return outside * ~mask - (inside - 1) * mask


def test_every_name_of_the_recipe_has_a_loss():
    assert set(LOSSES) == set(get_args(LossName))


@each_mode
@each_loss
def test_a_perfect_prediction_reaches_the_infimum(name, mode):
    labels = blobs()
    value = built(name, mode)(certain(labels, mode), labels)
    infimum = 0.0
    if name == "boundary":  # the mean of the distances inside
        targets = region_targets(
            labels, NESTED if mode == "regions" else SINGLETONS
        ).numpy()
        infimum = np.mean(
            [
                signed(mask)[mask].sum() / mask.size
                for sample in targets
                for mask in sample
            ]
        )
        assert infimum < -0.005
    assert float(value) == pytest.approx(infimum, abs=1e-4)


@each_mode
@each_loss
def test_a_wrong_prediction_costs_more_than_an_unsure_one_and_that_more_than_a_right_one(
    name, mode
):
    labels = blobs()
    right = certain(labels, mode) / 10
    wrong = right.roll(1, 1) if mode == "classes" else -right
    values = [
        float(built(name, mode)(logits, labels))
        for logits in (right, right * 0.1, wrong)
    ]
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("batch", [False, True])
@each_mode
@each_loss
def test_the_gradient_is_that_of_finite_differences(name, mode, batch):
    logits, labels = drawn(mode, (2, 2, 3, 4), ignored=0.2)
    loss = built(name, mode, batch=batch, label_smoothing=0.1)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels), (logits.requires_grad_(),)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@each_mode
def test_the_gradient_of_focal_loss_holds_for_any_gamma_and_weights(mode, gamma):
    logits, labels = drawn(mode, (1, 2, 3, 4), ignored=0.2)
    weights = torch.tensor([0.2, 1.0, 3.0])[: logits.shape[1]]
    options = {
        "gamma": gamma,
        "regions": MODES[mode],
        "class_weights": weights,
        "label_smoothing": 0.2,
    }
    assert torch.autograd.gradcheck(
        lambda x: focal(x, labels, **options), (logits.requires_grad_(),)
    )


@each_loss
def test_a_constant_added_to_all_logits_changes_nothing(name):
    logits, labels = drawn()
    loss = built(name)
    torch.testing.assert_close(loss(logits + 50, labels), loss(logits, labels))


@each_mode
@each_loss
def test_the_range_of_the_logits_is_not_interpreted(name, mode):
    """Continuous where values leave [0, 1]: what was guessed from the range would jump."""
    logits, labels = drawn(mode, seed=1)
    loss = built(name, mode)
    raw = logits.detach()
    unit = (raw - raw.min()) / (
        raw.max() - raw.min()
    )  # looks like probabilities to a loss that guesses
    inside, below, above = (unit * (1 - 2e-6) + 1e-6, unit - 1e-6, unit + 1e-6)
    if name == "hausdorff":  # the predicted mask changes where p = 0.5, for a reason
        inside, below, above = (
            x.masked_fill(raw == raw.min(), 0.5) for x in (inside, below, above)
        )
    assert [float(loss(x, labels)) for x in (below, above)] == pytest.approx(
        [float(loss(inside, labels))] * 2, abs=1e-4
    )


@pytest.mark.parametrize("batch", [False, True])
@each_mode
@each_loss
def test_ignored_voxels_have_no_influence_and_no_gradient(name, mode, batch):
    logits, labels = drawn(mode, ignored=0.4)
    ignored = (labels < 0)[:, None].expand_as(logits)
    loss = built(name, mode, batch=batch)
    value, gradient = value_and_gradient(loss, logits, labels)
    changed = torch.where(ignored, 9 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(changed, labels).detach(), value)
    assert not gradient[ignored].any()
    assert gradient[~ignored].any()


@pytest.mark.parametrize("index", [-1, 0, 2])
@pytest.mark.parametrize("batch", [False, True])
@each_mode
@each_loss
def test_value_and_gradient_are_finite_where_targets_are_empty_or_full(
    name, mode, batch, index
):
    logits, labels = drawn(mode, dtype=torch.float32)
    labels = torch.full_like(labels, index)
    for scale in (0, 1, 1e4):
        value, gradient = value_and_gradient(
            built(name, mode, batch=batch), logits * scale, labels
        )
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert index >= 0 or not gradient.any()


@each_mode
@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in ("boundary", "hausdorff")]
)
def test_an_empty_target_punishes_what_is_predicted_there(name, mode):
    logits, labels = drawn(mode, dtype=torch.float32)
    labels = torch.zeros_like(labels)
    _, gradient = value_and_gradient(built(name, mode), logits, labels)
    assert float((gradient[:, -1] > 0).sum()) > 0


@each_mode
@each_loss
def test_half_precision_gives_nearly_the_same_and_returns_its_own_gradients(name, mode):
    logits, labels = drawn(mode, (2, 6, 6, 6), dtype=torch.float32)
    loss = built(name, mode)
    rounded = logits.detach().bfloat16()
    exact, expected = value_and_gradient(
        loss, rounded.float(), labels
    )  # the same numbers, so only sums can differ
    value, gradient = value_and_gradient(loss, rounded, labels)
    assert (value.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(value, exact)
    torch.testing.assert_close(
        gradient.float(), expected, atol=1e-2 * float(expected.abs().max()), rtol=0
    )


@each_loss
def test_regions_of_one_label_each_are_binary_problems_of_their_own(name):
    """Two regions together equal the mean of each alone; which is no softmax loss,
    since they do not know each other.
    """
    logits, labels = drawn("regions", (1, 5, 5, 5))
    if name in (
        "top_k_cross_entropy",
        "generalised_dice",
    ):  # these choose or weigh across regions
        return

    def loss(x, rows):
        return LOSSES[name](LossSetup(LossOptions(cl_dice_iterations=2), rows))(
            x, labels
        )

    each = [loss(logits[:, i : i + 1], SINGLETONS[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss(logits, SINGLETONS), torch.stack(each).mean())


@pytest.mark.parametrize("name", POOLED)
def test_pooling_over_the_batch_matters_only_for_several_samples(name):
    logits, labels = drawn()
    assert built(name)(logits, labels) != built(name, batch=True)(logits, labels)
    torch.testing.assert_close(
        built(name)(logits[:1], labels[:1]),
        built(name, batch=True)(logits[:1], labels[:1]),
    )


@pytest.mark.parametrize("name", POOLED)
def test_pooling_equals_one_long_sample(name):
    """Samples stacked along z are one volume; centre lines are not, they touch."""
    if name == "cl_dice":
        return
    logits, labels = drawn(shape=(3, 2, 4, 4))
    long = logits.transpose(0, 1).flatten(1, 2)[None], labels.flatten(0, 1)[None]
    torch.testing.assert_close(
        built(name, batch=True)(logits, labels), built(name)(*long)
    )


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
    ours = value_and_gradient(
        lambda x, y: tversky(x, y, alpha=0.5, beta=0.5, **shared), logits, labels
    )
    torch.testing.assert_close(ours, theirs)


def test_beta_weighs_missed_voxels_and_alpha_false_ones():
    labels = blobs().clamp(max=1)
    missed, false = labels.clone(), labels.clone()
    missed[:, 1:4], false[:, :, :, 8:] = 0, 1

    def cost(wrong, **w):
        return float(tversky(certain(wrong, "classes")[:, :2], labels, **w))

    assert cost(missed, alpha=1, beta=0) == pytest.approx(0, abs=1e-6)
    assert cost(false, alpha=0, beta=1) == pytest.approx(0, abs=1e-6)
    size, lost = float((labels == 1).sum()), float((labels[:, 1:4] == 1).sum())
    kept = size - lost
    assert cost(missed, alpha=0.3, beta=0.7) == pytest.approx(
        1 - kept / (kept + 0.7 * lost), abs=1e-5
    )


def test_focal_tversky_is_a_power_of_tversky():
    logits, labels = drawn(shape=(1, 4, 4, 4))
    logits, labels = logits[:, :2], labels.clamp(max=1)
    error = tversky(logits, labels)
    torch.testing.assert_close(focal_tversky(logits, labels, gamma=4 / 3), error**0.75)
    torch.testing.assert_close(focal_tversky(logits, labels, gamma=1.0), error)


def test_generalised_dice_weighs_a_small_structure_as_much_as_a_large_one():
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.int16)
    labels[:, :4], labels[:, 7, 7, 7] = 1, 2
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
    ours = cross_entropy(
        logits, labels, class_weights=weights, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs)


def test_region_cross_entropy_is_torchs_weighted_and_smoothed():
    logits, labels = drawn("regions", ignored=0.3)
    weights, valid = torch.tensor([0.5, 2.0]).double(), labels >= 0
    target = (region_targets(labels, NESTED).double() * 0.9 + 0.05).movedim(1, -1)[
        valid
    ]
    plain = F.binary_cross_entropy_with_logits(
        logits.movedim(1, -1)[valid], target, reduction="none"
    )
    expected = (plain * weights).sum() / (weights.sum() * valid.sum())
    ours = cross_entropy(
        logits, labels, regions=NESTED, class_weights=weights, label_smoothing=0.1
    )
    torch.testing.assert_close(ours, expected)


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
    total, mistakes, before = 0.0, np.zeros(len(truth), bool), 0.0
    for voxel in np.argsort(-error, kind="stable"):
        mistakes[voxel] = True
        union = np.count_nonzero(truth | mistakes)
        cost = np.count_nonzero(mistakes) / union
        total, before = total + error[voxel] * (cost - before), cost
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
            y, q = truth[group, target].numpy()[valid], p[group, target].numpy()[valid]
            values.append(lovasz_reference(np.abs(y - q), y))
    assert float(
        lovasz(logits, labels, regions=MODES[mode], batch=batch)
    ) == pytest.approx(np.mean(values), abs=1e-9)


def test_lovasz_of_a_hard_prediction_is_one_minus_iou():
    labels, wrong = blobs(), blobs().roll(2, 1)
    iou = [
        float(
            ((labels == i) & (wrong == i)).sum() / ((labels == i) | (wrong == i)).sum()
        )
        for i in (1, 2)
    ]
    assert float(
        lovasz(certain(wrong, "classes"), labels, batch=True)
    ) == pytest.approx(1 - np.mean(iou), abs=1e-6)


# -- centre lines ----------------------------------------------------------------------
def tube(radius, shape=(13, 13, 16)):
    z, y, _ = np.indices(shape)
    return torch.from_numpy((z - 6) ** 2 + (y - 6) ** 2 <= radius**2).to(torch.int16)[
        None
    ]


def test_the_skeleton_of_a_tube_is_its_axis():
    skeleton = soft_skeleton((tube(3) > 0).double()[:, None], 5)[0, 0]
    assert bool((skeleton[6, 6, 4:-4] == 1).all())
    assert float(skeleton[:, :, 8].sum()) < 0.5 * float((tube(3)[0, :, :, 8] > 0).sum())
    torch.testing.assert_close(
        soft_skeleton(skeleton[None, None] * 0, 5),
        torch.zeros(1, 1, 13, 13, 16).double(),
    )


def skeleton_reference(image, iterations):
    """The authors' code (jocpae/clDice, soft_skeleton.py)."""

    def erode(x):
        kernels = ((3, 1, 1), (1, 3, 1), (1, 1, 3))
        return torch.stack(
            [-F.max_pool3d(-x, k, 1, [n // 2 for n in k]) for k in kernels]
        ).amin(0)

    def opened(x):
        return F.max_pool3d(erode(x), 3, 1, 1)

    found = F.relu(image - opened(image))
    for _ in range(iterations):
        image = erode(image)
        ridge = F.relu(image - opened(image))
        found = found + F.relu(ridge - found * ridge)
    return found


@pytest.mark.parametrize("iterations", [1, 4])
def test_the_skeleton_is_that_of_the_authors(iterations):
    for image in (torch.rand(2, 2, 8, 9, 7), (tube(3) > 0).float()[None]):
        torch.testing.assert_close(
            soft_skeleton(image, iterations), skeleton_reference(image, iterations)
        )


@few
@given(shape=st.tuples(*(st.integers(1, 6),) * 3), levels=st.sampled_from([2, 1000]))
def test_the_neighbourhoods_of_the_skeleton_are_those_of_pooling(shape, levels):
    """In value and gradient, equal neighbours included."""
    torch.manual_seed(sum(shape))
    image = (torch.randint(levels, (2, 2, *shape)) / levels).double().requires_grad_()
    upstream = torch.rand_like(image)
    for axis in (2, 3, 4):
        kernel = [3 if axis == each else 1 for each in (2, 3, 4)]
        for ours, sign in (
            (skeleton._largest(image, axis), 1),
            (skeleton._smallest(image, axis), -1),
        ):
            theirs = sign * F.max_pool3d(
                sign * image, kernel, stride=1, padding=[size // 2 for size in kernel]
            )
            torch.testing.assert_close(ours, theirs)
            found, expected = (
                torch.autograd.grad(value, image, upstream)[0]
                for value in (ours, theirs)
            )
            torch.testing.assert_close(found, expected)


def test_cl_dice_sees_a_gap_that_dice_hardly_sees_and_forgives_thickness():
    labels, gap = tube(3), tube(3)
    gap[..., 7:9] = 0
    thin = tube(2)

    def cost(loss, p):
        return float(loss(certain(p, "classes")[:, :2], labels))

    assert cost(cl_dice, thin) < cost(dice, thin) / 2
    assert cost(cl_dice, gap) > 2 * cost(cl_dice, thin)
    assert cost(cl_dice, gap) > cost(dice, gap) / 2


def test_the_recomputed_skeleton_has_the_same_gradient_as_a_stored_one(monkeypatch):
    logits, labels = drawn(shape=(1, 6, 6, 6))
    saved = value_and_gradient(cl_dice, logits, labels)
    monkeypatch.setattr(
        "trivox.learning.losses.skeleton.checkpoint", lambda f, *a, **_: f(*a)
    )
    torch.testing.assert_close(value_and_gradient(cl_dice, logits, labels), saved)


# -- distances -------------------------------------------------------------------------
@few
@given(seed=st.integers(0, 99), mode=st.sampled_from([*MODES]))
def test_boundary_is_the_probability_times_the_signed_distance(seed, mode):
    logits, labels = drawn(mode, (2, 4, 5, 6), seed=seed)
    p = (
        logits.detach().sigmoid()
        if mode == "regions"
        else logits.detach().softmax(1)[:, 1:]
    )
    truth = region_targets(labels, NESTED if mode == "regions" else SINGLETONS).numpy()
    expected = np.mean(
        [p[i].numpy() * signed(truth[i]) for i in np.ndindex(truth.shape[:2])]
    )
    assert float(boundary(logits, labels, regions=MODES[mode])) == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("loss", [boundary, hausdorff])
def test_a_mask_without_a_surface_has_no_distances(loss):
    """Empty, or filling its crop on both sides: there is nothing to be far from."""
    logits = torch.full((1, 1, 3, 4, 5), 0.4)
    for labels in (torch.ones(1, 3, 4, 5), torch.zeros(1, 3, 4, 5)):
        wanted = logits if labels.any() else -logits
        assert (
            float(loss(wanted, labels.short(), regions=torch.tensor([[False, True]])))
            == 0
        )


def test_boundary_alone_is_refused_and_unlearnable_beside_others():
    from trivox.config.recipe import make_recipe
    from trivox.errors import RecipeError

    with pytest.raises(RecipeError, match="beside others"):
        make_recipe(overrides={"loss": {"boundary": 1.0, "dice": 0.0}})
    with pytest.raises(RecipeError, match="adaptive=none"):
        make_recipe(
            overrides={
                "loss": "dice+boundary",
                "loss_options": {"adaptive": "balancing"},
            }
        )
    make_recipe(overrides={"loss": "dice+0.01*boundary"})


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_hausdorff_weighs_errors_by_distances_to_both_surfaces(power):
    logits, labels = drawn("regions", (1, 5, 6, 7), seed=3)
    p, y = (
        logits.detach().sigmoid()[0].numpy(),
        region_targets(labels, NESTED)[0].numpy(),
    )

    def both(m):
        return distance_transform_edt(m) + distance_transform_edt(~m)

    expected = np.mean(
        [
            (q - t) ** 2 * (both(t) ** power + both(q > 0.5) ** power)
            for q, t in zip(p, y, strict=True)
        ]
    )
    assert float(
        hausdorff(logits, labels, power=power, regions=NESTED)
    ) == pytest.approx(expected, rel=1e-6)


def test_hausdorff_punishes_the_distant_mistake_more():
    labels, costs = blobs((1, 12, 12, 30)), []
    for x in (9, 15, 28):
        wrong = labels.clone()
        wrong[0, 3:5, 4:6, x] = 1
        costs.append(float(hausdorff(certain(wrong, "classes"), labels)))
    assert costs[0] < costs[1] < costs[2]


def test_smoothing_is_that_of_nnunet():
    assert SMOOTH == 1e-5
    assert math.isclose(LossOptions().focal_tversky_gamma, 4 / 3)
