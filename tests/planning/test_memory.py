"""The memory forecast against torch's allocations during a real training step, and
parameter counts against networks.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from trivox.config.recipe import make_recipe
from trivox.learning.losses.choice import LossSetup, make_loss
from trivox.learning.steps.schedules import make_optimizer
from trivox.networks.layers import parameters_of
from trivox.networks.registry import PATCH_NETWORKS, build_network
from trivox.planning.memory import forecast_memory, parameter_count
from trivox.planning.topology import as_slices

CUBE = (1.0, 1.0, 1.0)
FLAT = (5.0, 1.0, 1.0)
UNETS = [
    name for name, family in PATCH_NETWORKS.items() if family.blueprint.measured is None
]


def topology_of(network, patch, spacing):
    """The topology that the planner gives for a padded patch; patches of one slice are
    2-D.
    """
    family = PATCH_NETWORKS[network]
    if patch[0] > 1:
        return family.shape(patch, spacing)
    flat, padded = family.shape(patch[1:], spacing[1:])
    return as_slices(flat), (1, *padded)


def peak_allocation(step):
    """Largest running sum of torch's CPU allocations (minus releases) while `step`
    runs, in bytes.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [
        e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"
    ]
    running = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak


def optimizer_with_state(net, optimizer):
    rule = make_optimizer(net, make_recipe("production", {"optimizer": optimizer}))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rule.step()
    return rule


def measured(
    topology,
    network,
    patch,
    *,
    batch,
    channels,
    outputs,
    optimizer,
    bf16,
    supervised=True,
    recompute=False,
):
    """Bytes at the peak of one training step as the trainer does it: weights,
    optimizer, batch and all allocations.
    """
    net = build_network(
        network,
        topology,
        channels=channels,
        outputs=outputs,
        deep_supervision=supervised,
    ).train()
    net.gradient_checkpointing = recompute
    rule = optimizer_with_state(net, optimizer)
    loss = make_loss({"dice": 1.0, "cross_entropy": 1.0}, LossSetup())
    images = torch.randn(batch, channels, *patch)
    labels = torch.randint(0, outputs, (batch, *patch), dtype=torch.int16)
    rule.zero_grad(set_to_none=True)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(images)
        loss(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12.0)
        rule.step()

    held = [images, labels, *net.parameters()]
    for state in rule.state.values():
        held += [value for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.nbytes for tensor in held) + peak_allocation(step)


SETTINGS = {
    "lean": ("unet-small", (40, 56, 40), CUBE, 2, 1, 3, "adamw", False),
    "lean, bf16, batch 6": ("unet-small", (40, 48, 40), CUBE, 6, 1, 3, "sgd", True),
    "tiny, 40 outputs": ("unet-tiny", (32, 32, 32), CUBE, 2, 2, 40, "adamw", True),
    "plain": ("nnunet-plain", (32, 32, 32), CUBE, 2, 1, 3, "sgd", False),
    "plain, 40 outputs": ("nnunet-plain", (32, 32, 32), CUBE, 2, 1, 40, "sgd", False),
    "plain, 40 outputs, bf16": (
        "nnunet-plain",
        (32, 32, 32),
        CUBE,
        2,
        1,
        40,
        "sgd",
        True,
    ),
    "plain, anisotropic, 4 channels": (
        "nnunet-plain",
        (6, 48, 48),
        FLAT,
        2,
        4,
        3,
        "adamw",
        False,
    ),
    "plain, slices": ("nnunet-plain", (1, 96, 80), CUBE, 6, 1, 3, "sgd", False),
    "residual, bf16": ("resenc-m", (32, 32, 32), CUBE, 2, 1, 3, "sgd", True),
    "residual, batch 4": ("resenc-m", (16, 32, 32), CUBE, 4, 1, 3, "adamw", False),
    "residual, anisotropic, bf16": (
        "resenc-m",
        (6, 48, 48),
        FLAT,
        2,
        1,
        3,
        "sgd",
        True,
    ),
    "residual, slices, 40 outputs": (
        "resenc-m",
        (1, 64, 64),
        CUBE,
        6,
        1,
        40,
        "sgd",
        False,
    ),
    "hybrid": ("hybrid-lite", (40, 56, 40), CUBE, 2, 1, 3, "adamw", False),
    "hybrid, bf16": ("hybrid-lite", (64, 64, 64), CUBE, 1, 4, 3, "adamw", True),
    "base hybrid": ("hybrid-base", (40, 48, 48), CUBE, 1, 1, 3, "adamw", False),
    "larger hybrid, bf16": ("hybrid-base", (40, 48, 48), CUBE, 2, 1, 3, "adamw", True),
    "large hybrid": ("hybrid-large", (40, 48, 48), CUBE, 1, 1, 3, "sgd", False),
    "large hybrid, bf16": ("hybrid-large", (40, 48, 48), CUBE, 1, 1, 3, "sgd", True),
    "weights outweigh activations": (
        "nnunet-plain",
        (16, 16, 16),
        CUBE,
        2,
        1,
        3,
        "adamw",
        False,
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_forecast_is_within_15_percent_of_the_measured_peak(name):
    network, patch, spacing, batch, channels, outputs, optimizer, bf16 = SETTINGS[name]
    topology, padded = topology_of(network, patch, spacing)
    facts = {
        "batch": batch,
        "channels": channels,
        "outputs": outputs,
        "optimizer": optimizer,
    }
    forecast = forecast_memory(
        topology, padded, activation_bytes=2 if bf16 else 4, **facts
    )
    peak = measured(topology, network, padded, bf16=bf16, **facts)
    assert forecast.total == pytest.approx(peak, rel=0.15)


RIVALS = [name for name, family in PATCH_NETWORKS.items() if family.blueprint.uniform]


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("network", RIVALS)
def test_the_forecast_of_rivals_is_within_15_percent_too(network, bf16):
    pytest.importorskip("monai")
    topology, patch = topology_of(network, (64, 64, 64), CUBE)
    facts = {"batch": 1, "channels": 4, "outputs": 3, "optimizer": "sgd"}
    forecast = forecast_memory(
        topology, patch, activation_bytes=2 if bf16 else 4, **facts
    )
    peak = measured(topology, network, patch, bf16=bf16, **facts)
    assert forecast.total == pytest.approx(peak, rel=0.15)


def test_without_deep_supervision_the_forecast_holds_too():
    topology, patch = topology_of("unet-small", (32, 32, 32), CUBE)
    facts = {"batch": 2, "channels": 1, "outputs": 20, "optimizer": "sgd"}
    forecast = forecast_memory(topology, patch, deep_supervision=False, **facts)
    peak = measured(
        topology, "unet-small", patch, bf16=False, supervised=False, **facts
    )
    assert forecast.total == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize(
    ("network", "bf16"),
    [("unet-small", False), ("nnunet-plain", True), ("resenc-m", False)],
)
def test_gradient_checkpointing_lowers_the_peak_as_forecast(network, bf16):
    topology, patch = topology_of(network, (32, 32, 32), CUBE)
    facts = {"batch": 2, "channels": 1, "outputs": 3, "optimizer": "sgd"}
    bits = {"activation_bytes": 2 if bf16 else 4}
    forecast = forecast_memory(
        topology, patch, gradient_checkpointing=True, **bits, **facts
    )
    whole = forecast_memory(topology, patch, **bits, **facts)
    peak = measured(topology, network, patch, bf16=bf16, recompute=True, **facts)
    assert forecast.total == pytest.approx(peak, rel=0.15)
    assert forecast.activations < 0.8 * whole.activations


def test_the_parts_sum_to_the_total():
    topology, patch = topology_of("resenc-l", (128, 128, 128), CUBE)
    forecast = forecast_memory(
        topology, patch, batch=2, channels=1, outputs=3, optimizer="adamw"
    )
    parts = forecast.model_dump()
    assert (
        sum(value for name, value in parts.items() if name != "total") == forecast.total
    )
    assert forecast.weights == 4 * 102_350_575
    assert forecast.optimizer == 2 * forecast.weights
    assert all(value >= 0 for value in parts.values())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    network=st.sampled_from(list(PATCH_NETWORKS)),
    patch=st.tuples(*(st.sampled_from([16, 32, 64, 128]),) * 3),
    spacing=st.sampled_from([CUBE, FLAT]),
)
def test_more_of_anything_never_needs_less(network, patch, spacing):
    topology, padded = topology_of(network, patch, spacing)
    base = {
        "batch": 2,
        "channels": 1,
        "outputs": 3,
        "optimizer": "sgd",
        "activation_bytes": 2,
    }
    least = forecast_memory(topology, padded, **base).total
    for more in (
        {"batch": 3},
        {"channels": 4},
        {"outputs": 30},
        {"optimizer": "adamw"},
        {"activation_bytes": 4},
    ):
        assert forecast_memory(topology, padded, **{**base, **more}).total >= least


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    network=st.sampled_from(UNETS),
    patch=st.tuples(*(st.sampled_from([8, 16, 24, 32]),) * 3),
    spacing=st.sampled_from([CUBE, FLAT]),
    channels=st.integers(1, 4),
    outputs=st.integers(1, 9),
)
def test_the_parameter_count_is_that_of_the_built_network(
    network, patch, spacing, channels, outputs
):
    topology, _ = topology_of(network, patch, spacing)
    with torch.device("meta"):
        built = build_network(network, topology, channels=channels, outputs=outputs)
    assert parameter_count(topology, channels, outputs) == parameters_of(built)


@pytest.mark.parametrize("network", ["hybrid-lite", "hybrid-base", "hybrid-large"])
def test_the_parameter_count_written_down_for_a_hybrid_is_true_for_four_channels(
    network,
):
    topology, _ = topology_of(network, (64, 64, 64), CUBE)
    with torch.device("meta"):
        built = build_network(network, topology, channels=4, outputs=3)
    assert parameter_count(topology, 4, 3) == pytest.approx(
        parameters_of(built), rel=1e-3
    )


def test_the_parameter_count_of_slices_is_that_of_the_built_network():
    topology, _ = topology_of("resenc-m", (1, 128, 96), CUBE)
    with torch.device("meta"):
        built = build_network("resenc-m", topology, channels=3, outputs=4)
    assert parameter_count(topology, 3, 4) == parameters_of(built)
