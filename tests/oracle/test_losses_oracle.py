"""Losses against MONAI's."""

import pytest
import torch

monai = pytest.importorskip("monai.losses", reason="MONAI is the oracle")

from trivox.learning.losses import SMOOTH, dice_binary_cross_entropy, dice_cross_entropy  # noqa: E402

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_dice_cross_entropy_equals_monais_in_value_and_gradient(batch, classes):
    torch.manual_seed(0)
    logits = torch.randn(2, classes, 6, 7, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, classes, (2, 6, 7, 8))
    theirs = monai.DiceCELoss(
        softmax=True, to_onehot_y=True, include_background=False, batch=batch, smooth_nr=SMOOTH, smooth_dr=SMOOTH
    )
    expected = theirs(logits, labels[:, None])
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    ours = dice_cross_entropy(logits, labels.short(), batch=batch)
    (gradient,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [False, True])
def test_region_dice_equals_monais_sigmoid_dice(batch):
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 5, 6, 7))
    regions = torch.tensor([[False, True, True], [False, False, True]])
    target = torch.stack([labels > 0, labels == 2], dim=1).double()
    theirs = monai.DiceLoss(sigmoid=True, batch=batch, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    expected = theirs(logits, target) + torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    ours = dice_binary_cross_entropy(logits, labels.short(), regions, batch=batch)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
