"""Laws of every loss by name, for exclusive classes and for regions."""

from typing import get_args

import numpy as np
import pytest
import torch

from loss_cases import (
    MODES,
    NESTED,
    POOLED,
    SINGLETONS,
    blobs,
    built,
    certain,
    drawn,
    each_loss,
    each_mode,
    signed,
    value_and_gradient,
)
from trivox.config.options import LossName, LossOptions
from trivox.learning.losses.choice import LOSSES, LossSetup
from trivox.learning.losses.entropy import focal
from trivox.learning.losses.targets import region_targets


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
        masks = targets.reshape(-1, *targets.shape[2:])
        inside = [signed(mask)[mask].sum() / mask.size for mask in masks]
        infimum = np.mean(inside)
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
    inside = unit * (1 - 2e-6) + 1e-6
    below = unit - 1e-6
    above = unit + 1e-6
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


@pytest.mark.parametrize("batch", [False, True])
@each_mode
@each_loss
def test_where_nothing_is_labelled_nothing_is_learnt(name, mode, batch):
    logits, labels = drawn(mode, (2, 3, 4, 4), ignored=2.0)
    value, gradient = value_and_gradient(built(name, mode, batch=batch), logits, labels)
    assert float(value) == pytest.approx(0, abs=1e-4)
    assert float(gradient.abs().max()) == 0
