"""Logits and labels that the laws of the losses are tested on."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from scipy.ndimage import distance_transform_edt

from trivox.config.options import LossOptions
from trivox.learning.losses.choice import LOSSES, LossSetup
from trivox.learning.losses.targets import region_targets

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
    outside = distance_transform_edt(~mask)
    inside = distance_transform_edt(mask)
    return outside * ~mask - (inside - 1) * mask
