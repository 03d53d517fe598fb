"""What makes the losses of centre lines and of distances what they are."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from loss_cases import (
    MODES,
    NESTED,
    SINGLETONS,
    blobs,
    certain,
    drawn,
    few,
    signed,
    value_and_gradient,
)
from trivox.config.options import LossOptions
from trivox.learning.losses import skeleton
from trivox.learning.losses.distance import boundary, hausdorff
from trivox.learning.losses.overlap import (
    dice,
)
from trivox.learning.losses.skeleton import cl_dice, soft_skeleton
from trivox.learning.losses.targets import SMOOTH, region_targets


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
        flat = (
            F.max_pool3d(-x, (3, 1, 1), 1, (1, 0, 0)),
            F.max_pool3d(-x, (1, 3, 1), 1, (0, 1, 0)),
            F.max_pool3d(-x, (1, 1, 3), 1, (0, 0, 1)),
        )
        return -torch.stack(flat).amax(0)

    def opened(x):
        return F.max_pool3d(erode(x), 3, 1, 1)

    result = F.relu(image - opened(image))
    for _ in range(iterations):
        image = erode(image)
        ridge = F.relu(image - opened(image))
        result = result + F.relu(ridge - result * ridge)
    return result


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
        padding = [size // 2 for size in kernel]
        for choose, sign in ((skeleton._largest, 1), (skeleton._smallest, -1)):
            value = choose(image, axis)
            pooled = F.max_pool3d(sign * image, kernel, stride=1, padding=padding)
            torch.testing.assert_close(value, sign * pooled)
            (gradient,) = torch.autograd.grad(value, image, upstream)
            (expected,) = torch.autograd.grad(sign * pooled, image, upstream)
            torch.testing.assert_close(gradient, expected)


def test_cl_dice_sees_a_gap_that_dice_hardly_sees_and_forgives_thickness():
    labels = tube(3)
    gap = tube(3)
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
    p = logits.detach().sigmoid()[0].numpy()
    y = region_targets(labels, NESTED)[0].numpy()

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
    labels = blobs((1, 12, 12, 30))
    costs = []
    for x in (9, 15, 28):
        wrong = labels.clone()
        wrong[0, 3:5, 4:6, x] = 1
        costs.append(float(hausdorff(certain(wrong, "classes"), labels)))
    assert costs[0] < costs[1] < costs[2]


def test_smoothing_is_that_of_nnunet():
    assert SMOOTH == 1e-5
    assert math.isclose(LossOptions().focal_tversky_gamma, 4 / 3)
