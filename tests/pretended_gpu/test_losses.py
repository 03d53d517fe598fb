"""Every loss gives on the second device what it gives on a CPU, whatever it is told."""

from itertools import product

import pytest
import torch

from loss_cases import CLASSES, MODES, blobs, drawn
from trivox.config.options import LossOptions
from trivox.config.volumes import ReconstructionLoss
from trivox.learning.losses.choice import LOSSES, LossSetup, make_loss
from trivox.learning.losses.classes import class_cross_entropy
from trivox.learning.losses.volumes import VolumeCriterion
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.xrays import Xrays

KINDS = (torch.float32, torch.bfloat16, torch.float16)
WEIGHTED = ("cross_entropy", "focal", "top_k_cross_entropy")
FEW_STEPS = {"cl_dice_iterations": 2}


def setups(mode):
    """Alone and over the batch, without and with weights."""
    outputs = CLASSES if mode == "classes" else len(MODES[mode])
    targets = CLASSES - 1
    for batch, weighted in product((False, True), repeat=2):
        yield LossSetup(
            LossOptions(**FEW_STEPS, label_smoothing=0.1 * weighted),
            MODES[mode],
            batch,
            torch.linspace(1, 2, outputs) if weighted else None,
            torch.linspace(1, 2, targets) if weighted else None,
        )


def assert_alike(loss, logits, labels, gpu):
    """Value and gradient, on the device and equal to a CPU's."""
    here = logits.detach().requires_grad_()
    there = logits.detach().to(gpu).requires_grad_()
    expected = loss(here, labels)
    (expected_gradient,) = torch.autograd.grad(expected, here)
    value = loss(there, labels.to(gpu))
    (gradient,) = torch.autograd.grad(value, there)
    assert value.device == gradient.device == gpu
    assert gradient.dtype == logits.dtype
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_same_on_both_devices(gpu, name, mode):
    labels = blobs((2, 8, 9, 10))
    labels[0, 0] = -1
    logits, _ = drawn(mode, labels.shape, dtype=torch.float32)
    for setup, kind in product(setups(mode), KINDS):
        assert_alike(LOSSES[name](setup), logits.to(kind), labels, gpu)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("adaptive", ["none", "uncertainty", "balancing"])
def test_losses_of_several_scales_are_summed_there(gpu, adaptive, mode):
    """Fused, weighted, and with weights that are learnt."""
    labels = blobs((2, 8, 8, 8))
    logits, _ = drawn(mode, labels.shape, dtype=torch.float32)
    coarse = torch.nn.functional.avg_pool3d(logits, 2)
    weights = {"dice": 1.0, "cross_entropy": 1.0}
    for setup in setups(mode):
        options = setup.options.model_copy(update={"adaptive": adaptive})
        made = LossSetup(
            options,
            setup.regions,
            setup.batch,
            setup.class_weights,
            setup.target_weights,
        )
        expected = make_loss(weights, made)([logits, coarse], labels)
        scales = [part.to(gpu).requires_grad_() for part in (logits, coarse)]
        value = make_loss(weights, made).to(gpu)(scales, labels.to(gpu))
        value.backward()
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-5)
        assert all(scale.grad.device == gpu for scale in scales)


@pytest.mark.parametrize(("name", "waits"), [("boundary", 1), ("hausdorff", 1)])
@pytest.mark.parametrize("mode", MODES)
def test_a_loss_of_distances_waits_as_often_as_its_page_says(gpu, name, waits, mode):
    from pretended_gpu.device import counting

    labels = blobs((2, 8, 9, 10))
    logits, _ = drawn(mode, labels.shape, dtype=torch.float32)
    loss = LOSSES[name](next(iter(setups(mode))))
    there = labels.to(gpu)
    on_gpu = logits.to(gpu).requires_grad_()
    loss(on_gpu, there)
    with counting() as counts:
        loss(on_gpu, there).backward()
    assert sum(counts.waits.values()) == waits, counts.table()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3.0])])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_class(gpu, kind, weights):
    logits = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.0, 0.0]], dtype=kind)
    classes = torch.tensor([0, 1, -1])
    options = {"weights": weights, "label_smoothing": 0.1, "focal_gamma": 2.0}
    expected = class_cross_entropy(logits.float(), classes, **options)
    loss = class_cross_entropy(logits.to(gpu).float(), classes.to(gpu), **options)
    torch.testing.assert_close(loss.cpu(), expected)


@pytest.mark.parametrize("name", ReconstructionLoss.model_fields)
def test_a_part_of_the_loss_of_volumes(gpu, name):
    parts = dict.fromkeys(ReconstructionLoss.model_fields, 0.0)
    grid = Grid((16, 16, 16), (20.0, 20.0, 20.0))
    criterion = VolumeCriterion(
        ReconstructionLoss(**{**parts, name: 1.0}),
        window=(-1024.0, 1476.0),
        water_per_mm=0.02,
        grid=grid,
    )
    geometry = Geometry.orbit([0, 90], detector=(16, 16), pixel_mm=30.0)
    present = torch.ones(2, 2, dtype=torch.bool)
    xrays = Xrays(torch.zeros(2, 2, 16, 16), geometry, present)
    torch.manual_seed(0)
    target, volume = torch.rand(2, 2, 1, 16, 16, 16)
    scales = [volume, torch.nn.functional.avg_pool3d(volume, 2)]
    expected = criterion(scales, target, xrays)
    on_gpu = [scale.to(gpu).requires_grad_() for scale in scales]
    value = criterion.to(gpu)(on_gpu, target.to(gpu), xrays.to(gpu))
    value.backward()
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-3, atol=1e-4)
    assert on_gpu[0].grad.device == gpu
