"""The planner reproduces nnU-Net's decisions as arithmetic, and obeys its dials."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.plans import planned
from trivox.errors import PlanError
from trivox.networks.registry import PATCH_NETWORKS
from trivox.planning.describe import describe_plan, sized
from trivox.planning.fingerprint import CaseFingerprint
from trivox.planning.normalisation import normalisation
from trivox.planning.plan import ImagePlan, Plan
from trivox.planning.spacing import axis_order, target_spacing

# research/nnunet.md 1.5: what nnU-Net 2.8.1 plans for such datasets
REFERENCE = [
    ("hippocampus", "nnunet-plain", (40, 56, 40), 9),
    ("lits", "nnunet-plain", (128, 128, 128), 2),
    ("lits", "resenc-l", (160, 224, 192), 2),
    ("acdc", "nnunet-plain", (10, 256, 224), 7),
    ("brats", "nnunet-plain", (128, 128, 128), 2),
    ("brats", "resenc-l", (160, 192, 160), 3),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "network", "patch", "batch"), REFERENCE)
def test_patch_and_batch_equal_nnunets(examples, name, network, patch, batch):
    plan = planned(examples[name], network=network)
    assert (plan.patch_size, plan.batch_size) == (patch, batch)


@pytest.mark.oracle
def test_a_hippocampus_like_plan_has_three_poolings_and_a_large_2d_batch(examples):
    plan = planned(examples["hippocampus"], network="nnunet-plain")
    assert plan.topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert (
        planned(examples["hippocampus"], network="nnunet-plain", dimension=2).batch_size
        == 366
    )


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("network", "spacing"),
    [("nnunet-plain", (2.427, 1.862, 1.862)), ("resenc-l", (1.605, 1.231, 1.231))],
)
def test_lits_like_low_resolution_spacings_equal_nnunets(examples, network, spacing):
    full = planned(examples["lits"], network=network)
    low = planned(examples["lits"], network=network, low=True)
    assert low.spacing == pytest.approx(spacing, abs=6e-4)
    # nnU-Net: exactly where a low-resolution configuration exists.
    assert full.batch_dice
    assert not low.batch_dice
    assert "would help" in full.reasons["low_resolution"]
    covered = (
        torch.tensor(low.patch_size).prod() / torch.tensor(low.median_shape).prod()
    )
    assert 0.25 <= covered < 0.3


@pytest.mark.oracle
def test_acdc_like_strides_equal_nnunets(examples):
    topology = planned(examples["acdc"], network="nnunet-plain").topology
    assert topology.strides == (
        (1, 1, 1),
        (1, 2, 2),
        (1, 2, 2),
        (2, 2, 2),
        (1, 2, 2),
        (1, 2, 2),
    )
    assert topology.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_a_small_dataset_never_gets_a_huge_batch(examples):
    """nnU-Net plans 178 volumes and 4554 slices here."""
    for dimension in (2, 3):
        assert (
            planned(
                examples["hippocampus"], network="resenc-l", dimension=dimension
            ).batch_size
            <= 64
        )


def test_low_resolution_is_refused_where_it_is_pointless(examples):
    with pytest.raises(PlanError, match="pointless"):
        planned(examples["hippocampus"], network="nnunet-plain", low=True)


def test_planning_builds_no_network(examples, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise AssertionError("a network was built")

    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)
    for network in ("nnunet-plain", "resenc-l"):
        planned(examples["lits"], network=network)


@pytest.mark.parametrize("network", PATCH_NETWORKS)
@pytest.mark.parametrize("name", ["hippocampus", "lits", "acdc", "brats"])
def test_every_decision_has_a_reason_in_the_table(examples, name, network):
    plan = planned(examples[name], network=network)
    assert all(value for _, value, _ in describe_plan(plan))
    assert {"spacing", "patch_size", "batch_size", "memory", "topology"} <= set(
        plan.reasons
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_dataset_gets_a_patch_that_its_strides_divide_and_no_larger_than_needed(
    describe, data
):
    shape = data.draw(st.tuples(*(st.integers(12, 400),) * 3), label="shape")
    spacing = data.draw(
        st.tuples(*(st.sampled_from([0.5, 0.8, 1.0, 1.5, 3.0, 6.0]),) * 3),
        label="spacing",
    )
    network = data.draw(
        st.sampled_from(["nnunet-plain", "resenc-m", "unet-small"]), label="network"
    )
    plan = planned(describe(shape, spacing, 40, 2), network=network)
    assert sorted(plan.axis_order) == [0, 1, 2]
    assert plan.spacing[0] == max(plan.spacing)
    divisor = plan.topology.divisor
    for size, step, median in zip(
        plan.patch_size, divisor, plan.median_shape, strict=True
    ):
        assert size % step == 0
        assert size < median + step  # padded to the strides at most
    assert plan.batch_size >= 2
    assert plan.memory.total > 0


@pytest.mark.parametrize("asked", [(33, 50, 40), (32, 48, 40), (8, 9, 7)])
def test_a_patch_by_hand_is_padded_to_the_strides_and_says_so(examples, asked):
    plan = planned(examples["hippocampus"], patch_size=asked)
    for size, wanted, step in zip(
        plan.patch_size, asked, plan.topology.divisor, strict=True
    ):
        assert wanted <= size < wanted + step
        assert size % step == 0
    assert "set in the recipe" in plan.reasons["patch_size"]
    assert ("padded" in plan.reasons["patch_size"]) == (plan.patch_size != asked)


@pytest.mark.parametrize("asked", [(32, 32), (0, 8, 8), (8, 8, 8, 8), (-8, 8, 8)])
def test_an_impossible_patch_is_a_plan_error(examples, asked):
    with pytest.raises(PlanError, match="patch size"):
        planned(examples["hippocampus"], patch_size=asked, dimension=3)


@pytest.mark.parametrize("asked", [(7, 7, 7), (11, 4, 4)])
def test_a_patch_that_cannot_be_halved_is_a_plan_error(examples, asked):
    with pytest.raises(PlanError, match="too small"):
        planned(examples["hippocampus"], patch_size=asked)


def test_a_2d_plan_has_slices_of_one_voxel_and_flat_kernels(examples):
    plan = planned(
        examples["acdc"], network="nnunet-plain", dimension=2, patch_size=(64, 60)
    )
    assert plan.patch_size == (1, 64, 64)
    assert all(kernel[0] == 1 for kernel in plan.topology.kernels)
    assert all(stride[0] == 1 for stride in plan.topology.strides)
    assert plan.batch_dice


def test_a_batch_by_hand_is_taken(examples):
    plan = planned(examples["hippocampus"], batch_size=5)
    assert (plan.batch_size, plan.reasons["batch_size"]) == (5, "as set in the recipe")


@pytest.mark.parametrize("network", ["nnunet-plain", "resenc-m"])
@pytest.mark.parametrize("name", ["lits", "brats"])
def test_more_memory_never_means_a_smaller_step(examples, name, network):
    steps = []
    for memory in (3, 6, 12, 24):
        plan = planned(examples[name], network=network, memory_gb=memory)
        steps.append(
            plan.batch_size
            * plan.patch_size[0]
            * plan.patch_size[1]
            * plan.patch_size[2]
        )
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_the_forecast_follows_the_dials(examples):
    totals = [
        planned(examples["lits"], memory_gb=memory).memory.total
        for memory in (3, 6, 12, 24)
    ]
    assert totals == sorted(totals)
    half = planned(examples["lits"], activation_bytes=2).memory.total
    assert half < 0.7 * planned(examples["lits"]).memory.total


def test_too_little_memory_is_a_plan_error(examples):
    with pytest.raises(PlanError, match="no patch fits"):
        planned(examples["lits"], memory_gb=1e-6)


def test_images_without_labels_get_the_plan_of_the_images_alone(examples):
    fingerprint, dataset = examples["brats"]
    images = dataset.model_copy(update={"labels": None})
    plan = planned((fingerprint, images), network="resenc-m", mask_channel=True)
    labelled = planned(examples["brats"], network="resenc-m", mask_channel=True)
    assert type(plan) is ImagePlan
    assert type(labelled) is Plan
    assert (plan.outputs, labelled.outputs) == (5, 4)
    assert plan.topology == labelled.topology
    assert plan.task == labelled.task == "drawn"


def test_lengths_are_shown_whole_or_with_three_digits():
    assert sized((1024, 1000, 1)) == "1024 x 1000 x 1"
    assert sized((0.7654321, 1.0, 12.3456)) == "0.765 x 1 x 12.3"
    assert sized((0.7654321,), digits=4) == "0.7654"


def with_spacings(describe, spacings, shape):
    fingerprint, _ = describe(shape, (1.0, 1.0, 1.0), 1, 1)
    cases = tuple(
        CaseFingerprint(name=str(i), shape=shape, spacing=s, relative_size=1)
        for i, s in enumerate(spacings)
    )
    return fingerprint.model_copy(update={"cases": cases})


def test_the_target_spacing_is_the_median(describe):
    fingerprint = with_spacings(
        describe, [(1.0, 1.0, 2.0), (2.0, 1.0, 2.0), (3.0, 4.0, 2.0)], (50, 50, 50)
    )
    assert target_spacing(fingerprint)[0] == (2.0, 1.0, 2.0)


@pytest.mark.parametrize(("finest", "expected"), [(4.0, 5.6), (0.5, 3.5)])
def test_a_coarse_axis_takes_its_10th_percentile(describe, finest, expected):
    spacings = [(8.0, 1.0, 1.0)] * 4 + [(finest, 1.0, 1.0)]
    spacing, reason = target_spacing(with_spacings(describe, spacings, (10, 200, 200)))
    assert spacing == pytest.approx((expected, 1.0, 1.0))
    assert "10th percentile" in reason


def test_a_coarse_axis_never_becomes_finer_than_the_others(describe):
    spacings = [(8.0, 1.0, 1.0)] * 3 + [(0.5, 1.0, 1.0)] * 2
    spacing, _ = target_spacing(with_spacings(describe, spacings, (10, 200, 200)))
    assert spacing == (1.0 + 1e-5, 1.0, 1.0)


def test_a_coarse_axis_with_many_slices_keeps_its_median(describe):
    spacings = [(8.0, 1.0, 1.0)] * 4 + [(4.0, 1.0, 1.0)]
    assert target_spacing(with_spacings(describe, spacings, (100, 200, 200)))[0] == (
        8.0,
        1.0,
        1.0,
    )


@pytest.mark.parametrize(
    ("spacing", "order"),
    [
        ((1.0, 1.0, 5.0), (2, 0, 1)),
        ((1.0, 5.0, 1.0), (1, 0, 2)),
        ((1.0, 1.0, 1.0), (0, 1, 2)),
    ],
)
def test_the_coarsest_axis_comes_first(spacing, order):
    assert axis_order(spacing)[0] == order


def test_the_grid_of_a_plan_follows_the_axis_order(describe):
    plan = planned(
        describe((256, 216, 9), (1.56, 1.5, 10.0), 200, 3), network="nnunet-plain"
    )
    assert plan.axis_order == (2, 0, 1)
    assert plan.spacing == (10.0, 1.56, 1.5)
    assert plan.median_shape == (9, 256, 216)


@pytest.mark.parametrize(
    ("channel", "scheme"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("noNorm", "none"),
        ("rescale_to_0_1", "rescale-0-1"),
        ("rgb_to_0_1", "rgb-0-1"),
        ("T1", "z-score"),
        ("contrast", "z-score"),
        ("pet", "z-score"),
    ],
)
def test_the_channel_name_decides_the_normalisation(describe, channel, scheme):
    fingerprint, _ = describe((9, 9, 9), (1.0, 1.0, 1.0), 1, 1, channels=(channel,))
    chosen = normalisation(channel, fingerprint)
    assert chosen.scheme == scheme
    if scheme == "ct":
        assert (chosen.mean, chosen.std, chosen.low, chosen.high) == (
            40.0,
            12.0,
            -10.0,
            90.0,
        )


@pytest.mark.parametrize(
    ("share", "masked"), [(0.5, True), (0.74, True), (0.75, False), (1.0, False)]
)
def test_z_scores_are_masked_where_cropping_removed_a_quarter(describe, share, masked):
    fingerprint, _ = describe((9, 9, 9), (1.0, 1.0, 1.0), 3, 1, relative_size=share)
    assert normalisation("mr", fingerprint).masked == masked
