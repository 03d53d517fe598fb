import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.config.options import LossOptions
from trivox.config.recipe import make_recipe
from trivox.datasets.labels import LabelScheme
from trivox.errors import RecipeError
from trivox.learning.losses.choice import LOSSES, LossSetup, make_loss
from trivox.learning.steps.schedules import make_optimizer
from trivox.networks.registry import build_network
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.planning.topology import Topology
from trivox.tasks.labels.objective import SegmentationObjective

few = settings(max_examples=15, deadline=None, derandomize=True)
EXCLUSIVE = LabelScheme(labels={"a": 7, "b": 300}, ignore=9)
REGIONS = LabelScheme(
    labels={"a": 1, "b": 2},
    regions={"whole": (1, 2), "core": (2,)},
    region_order=(1, 2),
)


def objective(scheme, loss=None, **options):
    table = torch.from_numpy(scheme.region_table())
    setup = LossSetup(LossOptions(**options), None if scheme.exclusive else table)
    return SegmentationObjective(
        scheme, make_loss(loss or {"dice": 1.0, "cross_entropy": 1.0}, setup), table
    )


def perfect(labels, scheme):
    if scheme.exclusive:
        logits = torch.full((len(labels), 3, *labels.shape[1:]), -20.0)
        return logits.scatter_(1, labels.clamp(min=0).long()[:, None], 20.0)
    return torch.stack([labels > 0, labels == 2], 1).float() * 40 - 20


def drawn(seed, shape=(2, 4, 6, 8)):
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).to(
        torch.int16
    )


@pytest.mark.parametrize("scheme", [EXCLUSIVE, REGIONS])
def test_a_perfect_prediction_scores_one_and_costs_nothing(scheme):
    task, labels = objective(scheme), drawn(0)
    figures = task.score(task.count(perfect(labels, scheme), labels))
    assert figures["validation_dice"] == figures["validation_iou"] == 1
    assert [f"validation_dice/{name}" in figures for name in scheme.targets] == [
        True,
        True,
    ]
    assert float(task.loss(perfect(labels, scheme), labels)) < 1e-3
    assert float(task.loss(torch.zeros_like(perfect(labels, scheme)), labels)) > 0.5


@few
@given(seed=st.integers(0, 999))
def test_dice_and_iou_are_those_of_the_masks(seed):
    labels, predicted = drawn(seed), drawn(seed + 1000)
    task = objective(EXCLUSIVE)
    figures = task.score(task.count(perfect(predicted, EXCLUSIVE), labels))
    for index, name in enumerate(EXCLUSIVE.targets, start=1):
        both = ((labels == index) & (predicted == index)).sum()
        total = (labels == index).sum() + (predicted == index).sum()
        assert figures[f"validation_dice/{name}"] == pytest.approx(
            float(2 * both / total)
        )


def test_counts_add_up_over_batches():
    task, labels = objective(EXCLUSIVE), drawn(1)
    logits = torch.randn(2, 3, 4, 6, 8)
    each = sum(task.count(logits[i : i + 1], labels[i : i + 1]) for i in range(2))
    assert torch.equal(task.count(logits, labels), each)


@pytest.mark.parametrize("scheme", [EXCLUSIVE, REGIONS])
def test_ignored_voxels_change_neither_loss_nor_score(scheme):
    task, labels = objective(scheme), drawn(2)
    labels[:, :2] = -1
    logits = torch.randn(2, 3 if scheme.exclusive else 2, 4, 6, 8)
    other = logits.clone()
    other[:, :, :2] = torch.randn_like(other[:, :, :2]) * 9
    assert torch.equal(task.count(logits, labels), task.count(other, labels))
    assert torch.allclose(
        task.loss(logits, labels), task.loss(other, labels), atol=1e-6
    )


def test_targets_absent_everywhere_are_left_out_of_the_mean():
    task, labels = objective(EXCLUSIVE), drawn(3).clamp(max=1)
    figures = task.score(task.count(perfect(labels, EXCLUSIVE), labels))
    assert figures["validation_dice"] == 1
    assert math.isnan(figures["validation_dice/b"])
    nothing = task.score(task.count(perfect(labels * 0, EXCLUSIVE), labels * 0))
    assert math.isnan(nothing["validation_dice"])


def test_deep_supervision_weighs_scales_by_half_and_drops_the_coarsest():
    task, labels = objective(EXCLUSIVE), drawn(4, (2, 8, 8, 8))
    scales = [torch.randn(2, 3, *[8 // 2**i] * 3, requires_grad=True) for i in range(3)]
    shrunk = [labels, labels[:, 1::2, 1::2, 1::2]]
    expected = sum(
        w * task.loss(s, t)
        for w, s, t in zip((2 / 3, 1 / 3), scales[:2], shrunk, strict=True)
    )
    loss = task.loss(scales, labels)
    assert torch.allclose(loss, expected, atol=1e-6)
    loss.backward()
    assert scales[2].grad is not None  # DDP waits for every parameter
    assert not scales[2].grad.any()


def loss_of(plan, overrides, logits, labels, **named):
    return float(
        SegmentationObjective.of(plan, make_recipe(overrides=overrides), **named).loss(
            logits, labels
        )
    )


@pytest.fixture(scope="module")
def plan():
    topology = Topology(
        kernels=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)),
        features=(8, 16),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )
    return Plan(
        dataset="drawn",
        task="segmentation",
        channels=("MRI",),
        labels=EXCLUSIVE,
        normalisations=(Normalisation(scheme="z-score"),),
        spacing=(1.0, 1.0, 1.0),
        median_shape=(16, 16, 16),
        patch_size=(16, 16, 16),
        batch_size=2,
        batch_dice=True,
        network="unet-tiny",
        topology=topology,
        memory=forecast_memory(topology, (16, 16, 16), batch=2, channels=1, outputs=3),
    )


def test_the_recipe_overrules_the_plan(plan):
    logits, labels = torch.randn(2, 3, 4, 6, 8), drawn(5)
    planned, pooled, alone = (
        loss_of(plan, {"batch_dice": b}, logits, labels) for b in (None, True, False)
    )
    assert pooled != alone
    assert planned == (pooled if plan.batch_dice else alone)


def test_terms_weights_and_constants_of_the_recipe_reach_the_loss(plan):
    logits, labels = torch.randn(2, 3, 4, 6, 8), drawn(5)
    one, two, both = (
        loss_of(plan, {"loss": text}, logits, labels)
        for text in ("dice", "focal", "dice+0.5*focal")
    )
    assert both == pytest.approx(one + 0.5 * two)
    assert (
        loss_of(
            plan,
            {"loss": "focal", "loss_options": {"focal_gamma": 1.0}},
            logits,
            labels,
        )
        != two
    )


@pytest.mark.parametrize("scheme", [EXCLUSIVE, REGIONS])
def test_class_weights_come_from_the_voxels_of_labels_or_regions(plan, scheme):
    plan = plan.model_copy(update={"labels": scheme})
    voxels = np.array([900.0, 90.0, 10.0])
    logits, labels = (
        torch.randn(1, 3 if scheme.exclusive else 2, 4, 6, 8),
        drawn(6, (1, 4, 6, 8)),
    )
    overrides = {
        "loss": "cross_entropy",
        "loss_options": {"class_weights": "inverse_frequency"},
    }
    weights = 1 / torch.tensor(
        [900.0, 90.0, 10.0] if scheme.exclusive else [100.0, 10.0]
    )
    regions = None if scheme.exclusive else torch.from_numpy(scheme.region_table())
    expected = LOSSES["cross_entropy"](
        LossSetup(regions=regions, class_weights=weights)
    )(logits, labels)
    assert loss_of(plan, overrides, logits, labels, voxels=voxels) == pytest.approx(
        float(expected), rel=1e-5
    )
    with pytest.raises(RecipeError, match="class_weights"):
        loss_of(plan, overrides, logits, labels)


@pytest.mark.parametrize("rule", ["uncertainty", "balancing"])
def test_learnt_weights_are_shown_and_handed_to_the_trainer(rule):
    task = objective(EXCLUSIVE, {"dice": 1.0, "focal": 0.5}, adaptive=rule)
    assert task.figures() == pytest.approx(
        {"loss_weight/dice": 1.0, "loss_weight/focal": 0.5}
    )
    assert task.module is not None
    assert bool(task.module.state_dict())
    assert bool(list(task.module.parameters())) == (rule == "uncertainty")
    fixed = objective(EXCLUSIVE)
    assert (fixed.module, fixed.figures()) == (None, {})


@pytest.mark.parametrize(
    "name", [name if name != "boundary" else "dice+0.1*boundary" for name in LOSSES]
)
def test_every_loss_trains_a_small_network(plan, name):
    """A few steps on one patch bring each loss well towards its infimum."""
    torch.manual_seed(0)
    overrides = {
        "loss": name,
        "network": "unet-tiny",
        "loss_options": {"cl_dice_iterations": 3, "top_k": 0.5},
    }
    recipe = make_recipe("quick_test", overrides)
    task = SegmentationObjective.of(plan, recipe)
    network = build_network(plan.network, plan.topology, channels=1, outputs=3)
    optimizer = make_optimizer(network, recipe)
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.int16)
    labels[:, 3:12, 4:12, 4:13] = 1
    labels[:, 6:9, 6:9, 6:10] = 2
    image = labels[:, None] + 0.1 * torch.randn(1, 1, 16, 16, 16)
    losses = []
    for _ in range(20):
        loss = task.loss(network(image), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.9 * losses[0]


def plan_like(scheme):
    """As much of a plan as the objective reads."""
    return type("P", (), {"labels": scheme, "batch_dice": False})()


@pytest.mark.parametrize("scheme", [EXCLUSIVE, REGIONS])
@pytest.mark.parametrize(
    "loss", ["dice+cross_entropy", "dice+focal", "tversky", "focal_tversky"]
)
def test_target_weights_of_one_change_nothing(scheme, loss):
    labels = drawn(3)
    logits = torch.randn(
        perfect(labels, scheme).shape, generator=torch.Generator().manual_seed(1)
    )
    even = dict.fromkeys(scheme.targets, 1.0)
    plain, weighted = (
        SegmentationObjective.of(
            plan_like(scheme),
            make_recipe(overrides={"loss": loss, "loss_options": options}),
        )
        for options in ({}, {"target_weights": even})
    )
    assert float(plain.loss(logits, labels)) == pytest.approx(
        float(weighted.loss(logits, labels)), rel=1e-5
    )


@pytest.mark.parametrize(
    "loss", ["dice", "tversky", "focal_tversky", "focal", "cross_entropy"]
)
def test_a_region_of_weight_zero_has_no_gradient_and_the_others_have_the_loss_of_a_model_without_it(
    loss,
):
    labels = drawn(4)
    logits = torch.randn(
        2, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    only = LabelScheme(
        labels={"a": 1, "b": 2}, regions={"whole": (1, 2)}, region_order=(1,)
    )
    recipe = {"loss": loss, "loss_options": {"target_weights": {"core": 0}}}
    value = SegmentationObjective.of(
        plan_like(REGIONS), make_recipe(overrides=recipe)
    ).loss(logits, labels)
    alone = SegmentationObjective.of(
        plan_like(only), make_recipe(overrides={"loss": loss})
    ).loss(logits[:, :1], labels)
    (gradient,) = torch.autograd.grad(value, logits)
    assert not gradient[:, 1].any()
    assert float(value.detach()) == pytest.approx(float(alone.detach()), rel=1e-5)


def test_the_weighted_dice_is_the_weighted_mean_of_the_regions():
    labels = drawn(5)
    logits = torch.randn(2, 2, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    values = [
        float(
            SegmentationObjective.of(
                plan_like(REGIONS),
                make_recipe(
                    overrides={
                        "loss": "dice",
                        "loss_options": {"target_weights": weights},
                    }
                ),
            ).loss(logits, labels)
        )
        for weights in ({"whole": 0}, {"core": 0}, {"whole": 3.0})
    ]
    assert values[2] == pytest.approx((values[0] + 3 * values[1]) / 4, rel=1e-5)


def test_weights_of_unknown_targets_are_refused():
    recipe = make_recipe(overrides={"loss_options": {"target_weights": {"ET": 2.0}}})
    with pytest.raises(RecipeError, match=r"ET.*whole, core"):
        SegmentationObjective.of(plan_like(REGIONS), recipe)


def test_losses_that_do_not_heed_target_weights_are_refused():
    with pytest.raises(RecipeError, match="do not reach lovasz"):
        make_recipe(
            overrides={
                "loss": "dice+lovasz",
                "loss_options": {"target_weights": {"ET": 2.0}},
            }
        )
