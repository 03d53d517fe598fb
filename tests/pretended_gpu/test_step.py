"""What a training step launches and waits for on a GPU, by file and line."""

import math

import pytest
import torch
from torch import nn

from pretended_gpu.test_networks import PATCH, TINY, small
from training_toys import SCHEME, make, segmentation
from trivox.config.options import LossOptions
from trivox.config.recipe import make_recipe
from trivox.learning.divergence import all_finite
from trivox.learning.losses.choice import LOSSES, LossSetup, make_loss
from trivox.learning.runtime import Runtime
from trivox.learning.steps.schedules import load_optimizer, make_optimizer, take_step
from trivox.learning.validation import validate
from trivox.networks.class_head import jitter
from trivox.networks.registry import build_network
from trivox.tasks.labels.objective import SegmentationObjective

CPU = torch.device("cpu")
STEPS = 4
LAUNCHES = 310
ON_HOST = {"boundary", "hausdorff"}
"""Losses of distances, which scipy computes."""


class Fixed:
    """The same batch at every step, which is on the device already."""

    def __init__(self, patch, gpu):
        self.images = torch.randn(2, 1, *patch).to(gpu)
        self.labels = torch.randint(0, 2, (2, *patch), dtype=torch.int16).to(gpu)

    def read(self, step):
        return self

    def finish(self, device):
        return self.images, self.labels


def counted(folder, gpu, name="unet-tiny", loss=None, setup=None, **settings):
    """Counts of a few steps once the first is taken."""
    from pretended_gpu.device import counting

    precision = settings.pop("precision", "bf16")
    topology, patch = small(name, TINY if precision == "fp16" else PATCH, 8)
    loss = loss or {"dice": 1.0, "cross_entropy": 1.0}
    setup = setup or LossSetup()
    objective = SegmentationObjective(
        SCHEME,
        make_loss(loss, setup),
        torch.from_numpy(SCHEME.region_table()),
    )
    trainer = make(
        folder,
        network=build_network(name, topology, channels=1, outputs=2),
        objective=objective,
        source=Fixed(patch, gpu),
        validation=False,
        runtime=Runtime(gpu, precision),
        iterations_per_epoch=STEPS,
        workers=0,
        **settings,
    )
    trainer._train()
    with counting(launches=True) as counts:
        trainer._train()
    return counts


SETTINGS = [
    {},
    {"precision": "fp16"},
    {"optimizer": "adamw", "weights_ema": 0.9, "deep_supervision": True},
    {"micro_batch": 1, "name": "resenc-m"},
    {"name": "hybrid-lite"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_step_waits_for_nothing_until_figures_are_read(tmp_path, gpu, settings):
    counts = counted(tmp_path, gpu, **settings)
    places = {place.partition(":")[0] for _, place in counts.waits}
    assert places == {"learning/readings.py"}, counts.table(steps=STEPS)
    assert sum(counts.waits.values()) == 1


def test_a_step_of_two_supervised_scales_launches_few_kernels(tmp_path, gpu):
    counts = counted(tmp_path, gpu, deep_supervision=True)
    launched = sum(counts.launches.values()) / STEPS
    assert launched <= LAUNCHES, counts.table(steps=STEPS, what="launches", most=40)


def test_validation_waits_for_its_scores_alone(gpu):
    from pretended_gpu.device import counting

    recipe = make_recipe("production", {"validation_iterations": 6, "workers": 0})
    runtime = Runtime(gpu, "fp32")
    network = nn.Conv3d(1, 2, 3, padding=1).to(gpu)
    source = Fixed(TINY, gpu)
    expected = validate(network, segmentation(), source, recipe, runtime)
    with counting() as counts:
        figures = validate(network, segmentation(), source, recipe, runtime)
    assert figures == expected
    assert sum(counts.waits.values()) <= 8, counts.table()


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - ON_HOST))
@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_a_loss_waits_for_nothing(gpu, name, regions):
    from pretended_gpu.device import counting

    membership = torch.tensor([[False, True, True], [False, False, True]])
    setup = LossSetup(
        LossOptions(label_smoothing=0.1),
        regions=membership if regions else None,
        class_weights=torch.ones(2 if regions else 3),
        target_weights=torch.ones(2),
    )
    loss = make_loss({name: 1.0}, setup)
    torch.manual_seed(0)
    logits = torch.randn(2, 2 if regions else 3, 6, 7, 8)
    labels = torch.randint(-1, 3, (2, 6, 7, 8))
    expected = loss(logits, labels)
    there = logits.to(gpu).requires_grad_()
    labels = labels.to(gpu)
    loss(there, labels)  # sends what never changes
    with counting() as counts:
        value = loss(there, labels)
        value.backward()
    assert not counts.waits, counts.table()
    torch.testing.assert_close(value.detach().cpu(), expected, rtol=1e-5, atol=1e-6)


def test_a_step_whose_gradients_are_not_finite_changes_nothing(tmp_path, gpu):
    for rule in ("sgd", "adamw"):
        network = nn.Conv3d(1, 2, 3)
        recipe = make_recipe("production", {"optimizer": rule})
        network.to(gpu)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        optimizer = make_optimizer(network, recipe)
        for value in (math.nan, math.inf, 1.0):
            for parameter in network.parameters():
                parameter.grad = torch.full_like(parameter, value)
            take_step(optimizer, torch.tensor(value, device=gpu))
            same = all(
                torch.equal(before[key], tensor)
                for key, tensor in network.state_dict().items()
            )
            assert same != math.isfinite(value)
        assert all_finite(optimizer.state_dict())


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_a_training_goes_on_on_another_device(gpu, rule):
    """Its optimizer's memory moves, its kernels are those of the device."""
    recipe = make_recipe("production", {"optimizer": rule})
    results = []
    for there, back in ((CPU, gpu), (gpu, CPU), (CPU, CPU)):
        torch.manual_seed(0)
        network = nn.Conv3d(1, 2, 3).to(there)
        step(network, optimizer := make_optimizer(network, recipe))
        state = optimizer.state_dict()
        network.to(back)
        optimizer = make_optimizer(network, recipe)
        load_optimizer(optimizer, state)
        step(network, optimizer)
        step(network, optimizer)
        results.append([p.detach().cpu() for p in network.parameters()])
    for other in results[:-1]:
        torch.testing.assert_close(other, results[-1], rtol=1e-5, atol=1e-6)


def step(network, optimizer):
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    device = next(network.parameters()).device
    take_step(optimizer, torch.ones((), device=device))


def test_masks_of_a_class_head_are_varied_alike_on_both_devices(gpu):
    """A GPU computes all changes of all samples, a CPU those that were drawn."""
    from pretended_gpu.device import counting

    torch.manual_seed(0)
    mask = torch.rand(12, 2, 5, 6, 7)
    there = mask.to(gpu)
    choice = torch.randint(3, (12,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_, device: choice.to(device))
        expected = jitter(mask)
        choice = choice.to(gpu)
        with counting() as counts:
            result = jitter(there)
    assert not counts.waits, counts.table()
    assert torch.equal(result.cpu(), expected)
