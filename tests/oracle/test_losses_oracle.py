"""Losses against MONAI's, in value and gradient.

MONAI takes the smoothing of each ratio; ours is `SMOOTH`. Exclusive classes: softmax,
one-hot labels, background left out of overlap. Where the conventions differ, the test
says how one becomes the other.
"""

import pytest
import torch
import torch.nn.functional as F

monai = pytest.importorskip("monai.losses", reason="MONAI is the oracle")

from trivox.learning.losses.distance import boundary, hausdorff  # noqa: E402
from trivox.learning.losses.entropy import cross_entropy, focal  # noqa: E402
from trivox.learning.losses.fused import (  # noqa: E402
    dice_binary_cross_entropy,
    dice_cross_entropy,
)
from trivox.learning.losses.overlap import dice, generalised_dice, tversky  # noqa: E402
from trivox.learning.losses.skeleton import cl_dice  # noqa: E402
from trivox.learning.losses.targets import SMOOTH  # noqa: E402

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_dice_cross_entropy_equals_monais_in_value_and_gradient(batch, classes):
    torch.manual_seed(0)
    logits = torch.randn(2, classes, 6, 7, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, classes, (2, 6, 7, 8))
    theirs = monai.DiceCELoss(
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        batch=batch,
        smooth_nr=SMOOTH,
        smooth_dr=SMOOTH,
    )
    expected = theirs(logits, labels[:, None])
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = dice_cross_entropy(logits, labels.short(), batch=batch)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [False, True])
def test_region_dice_equals_monais_sigmoid_dice(batch):
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 5, 6, 7))
    regions = torch.tensor([[False, True, True], [False, False, True]])
    target = torch.stack([labels > 0, labels == 2], dim=1).double()
    theirs = monai.DiceLoss(
        sigmoid=True, batch=batch, smooth_nr=SMOOTH, smooth_dr=SMOOTH
    )
    expected = theirs(logits, target)
    expected += F.binary_cross_entropy_with_logits(logits, target)
    loss = dice_binary_cross_entropy(logits, labels.short(), regions, batch=batch)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


NESTED = torch.tensor([[False, True, True], [False, False, True]])
SOFTMAX = {"softmax": True, "to_onehot_y": True, "include_background": False}
each_mode = pytest.mark.parametrize("mode", ["classes", "regions"])
each_batch = pytest.mark.parametrize("batch", [False, True])


def drawn(mode, shape=(2, 6, 7, 8)):
    """Logits, indices, and MONAI's target and arguments for the mode."""
    torch.manual_seed(0)
    batch, *size = shape
    channels = 3 if mode == "classes" else 2
    logits = torch.randn(
        batch, channels, *size, dtype=torch.float64, requires_grad=True
    )
    labels = torch.randint(0, 3, shape)
    if mode == "classes":
        return logits, labels, labels[:, None], SOFTMAX, None
    target = torch.stack([labels > 0, labels == 2], 1).double()
    return logits, labels, target, {"sigmoid": True}, NESTED


def assert_equal(loss, theirs, logits, tolerance=1e-6):
    """In value and gradient."""
    torch.testing.assert_close(loss, theirs.to(loss), atol=tolerance, rtol=0)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(theirs, logits, retain_graph=True)
    assert expected.any()
    torch.testing.assert_close(gradient, expected, atol=tolerance, rtol=0)


@each_batch
@each_mode
def test_dice_equals_monais(mode, batch):
    logits, labels, target, how, regions = drawn(mode)
    theirs = monai.DiceLoss(**how, batch=batch, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    loss = dice(logits, labels, regions=regions, batch=batch)
    assert_equal(loss, theirs(logits, target), logits)


@each_batch
@each_mode
def test_generalised_dice_equals_monais(mode, batch):
    """Without smoothing: MONAI adds it to sums weighed by 1 / n^2 (about 1e-4), we to
    sums whose largest weight is 1.
    """
    logits, labels, target, how, regions = drawn(mode)
    theirs = monai.GeneralizedDiceLoss(**how, batch=batch, smooth_nr=0, smooth_dr=0)
    loss = generalised_dice(logits, labels, regions=regions, batch=batch)
    assert_equal(loss, theirs(logits, target), logits, 1e-6)


@each_batch
@each_mode
def test_tversky_equals_monais(mode, batch):
    """MONAI's alpha weighs false positives and beta false negatives too; half the
    smoothing, since TP is not doubled.
    """
    logits, labels, target, how, regions = drawn(mode)
    theirs = monai.TverskyLoss(
        **how,
        alpha=0.3,
        beta=0.7,
        batch=batch,
        smooth_nr=SMOOTH / 2,
        smooth_dr=SMOOTH / 2,
    )
    loss = tversky(logits, labels, alpha=0.3, beta=0.7, regions=regions, batch=batch)
    assert_equal(loss, theirs(logits, target), logits)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.0])
@each_mode
def test_focal_equals_monais(mode, gamma):
    """MONAI averages softmax focal loss over one-hot elements, of which all but one a
    voxel are 0: c times ours.
    """
    logits, labels, target, _, regions = drawn(mode)
    exclusive = regions is None
    theirs = monai.FocalLoss(
        gamma=gamma,
        use_softmax=exclusive,
        to_onehot_y=exclusive,
        include_background=True,
    )
    loss = focal(logits, labels, gamma=gamma, regions=regions)
    factor = logits.shape[1] if exclusive else 1
    # MONAI rounds the logits to fp32.
    assert_equal(loss, theirs(logits, target) * factor, logits, 1e-6)


def test_weighted_focal_equals_monais():
    """MONAI divides by the number of elements, we by the sum of the voxels' weights, as
    cross-entropy does.
    """
    logits, labels, target, _, _ = drawn("classes")
    weights = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    theirs = monai.FocalLoss(
        use_softmax=True, to_onehot_y=True, weight=weights, reduction="none"
    )
    mean = theirs(logits, target).sum() / weights[labels].sum()
    assert_equal(focal(logits, labels, class_weights=weights), mean, logits)


def test_dice_with_focal_equals_monais():
    """For regions only: MONAI's DiceFocalLoss computes a sigmoid focal loss even where
    its Dice is softmax.
    """
    logits, labels, target, how, regions = drawn("regions")
    theirs = monai.DiceFocalLoss(**how, gamma=2.0, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    loss = dice(logits, labels, regions=regions)
    loss = loss + focal(logits, labels, regions=regions)
    assert_equal(loss, theirs(logits, target), logits)


def test_class_weighted_dice_with_cross_entropy_equals_monais():
    """MONAI's weight reaches its Dice too, so the cross-entropy alone is compared
    (`lambda_dice=0`).
    """
    logits, labels, target, _, _ = drawn("classes")
    weights = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    theirs = monai.DiceCELoss(
        softmax=True,
        to_onehot_y=True,
        lambda_dice=0.0,
        weight=weights,
        label_smoothing=0.1,
    )
    loss = cross_entropy(logits, labels, class_weights=weights, label_smoothing=0.1)
    assert_equal(loss, theirs(logits, target), logits)


@each_mode
def test_cl_dice_equals_monais(mode):
    """MONAI pools all targets of a sample: equal for one target at a time, of which we
    take the mean.
    """
    logits, labels, target, _, regions = drawn(mode, (2, 9, 9, 9))
    if regions is None:
        masks = torch.stack([labels == 1, labels == 2], 1)
        chance = logits.softmax(1)[:, 1:]
    else:
        masks = target
        chance = logits.sigmoid()
    theirs = monai.SoftclDiceLoss(
        iter_=3, smooth_nr=SMOOTH, smooth_dr=SMOOTH, smooth=1e-12
    )
    each = [
        theirs(chance[:, [index]], masks[:, [index]].double())
        for index in range(masks.shape[1])
    ]
    loss = cl_dice(logits, labels, iterations=3, regions=regions)
    assert_equal(loss, torch.stack(each).mean(), logits)


@each_mode
def test_hausdorff_equals_monais(mode):
    logits, labels, target, how, regions = drawn(mode)
    theirs = monai.HausdorffDTLoss(**{"include_background": True, **how}, alpha=2.0)
    loss = hausdorff(logits, labels, regions=regions)
    # MONAI's distances are fp32.
    assert_equal(loss, theirs(logits, target), logits, 1e-5)


@each_mode
def test_boundary_equals_monais(mode):
    if not hasattr(monai, "BoundaryLoss"):
        pytest.skip("MONAI before 1.6 has no boundary loss")
    logits, labels, target, how, regions = drawn(mode)
    theirs = monai.BoundaryLoss(**how)
    loss = boundary(logits, labels, regions=regions)
    assert_equal(loss, theirs(logits, target), logits)
