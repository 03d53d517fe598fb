"""Sums of losses, scales, weights of classes and of terms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.config.options import LossOptions
from trivox.errors import RecipeError
from trivox.learning.losses.choice import LOSSES, LossSetup, make_loss
from trivox.learning.losses.combined import (
    AdaptiveLoss,
    CombinedLoss,
    DeepSupervisionLoss,
    shrink_labels,
)
from trivox.learning.losses.entropy import cross_entropy
from trivox.learning.losses.overlap import dice
from trivox.learning.losses.weighting import balanced, class_weights

NESTED = torch.tensor([[False, True, True], [False, False, True]])


def drawn(size=8, seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, 3, size, size, size), torch.randint(
        0, 3, (2, size, size, size)
    ).to(torch.int16)


def pyramid(seed=0):
    """Outputs at three scales that want gradients, finest first, and full labels."""
    _, labels = drawn(8, seed)
    return [
        torch.randn(2, 3, *[8 // 2**i] * 3, requires_grad=True) for i in range(3)
    ], labels


def test_a_combined_loss_is_the_weighted_sum_of_its_terms():
    logits, labels = drawn()
    loss = CombinedLoss(
        {"dice": dice, "cross_entropy": cross_entropy},
        {"dice": 0.5, "cross_entropy": 2.0},
    )
    torch.testing.assert_close(
        loss(logits, labels),
        0.5 * dice(logits, labels) + 2 * cross_entropy(logits, labels),
    )
    torch.testing.assert_close(
        loss.terms(logits, labels),
        torch.stack([dice(logits, labels), cross_entropy(logits, labels)]),
    )


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    names=st.lists(st.sampled_from([*LOSSES]), min_size=1, max_size=3, unique=True),
    regions=st.booleans(),
)
def test_the_loss_of_a_recipe_is_the_sum_over_its_names(names, regions):
    logits, labels = drawn(4)
    setup = LossSetup(
        LossOptions(cl_dice_iterations=2), NESTED if regions else None, batch=True
    )
    logits = logits[:, :2] if regions else logits
    weights = {name: 0.5 + i for i, name in enumerate(names)}
    expected = sum(
        weight * LOSSES[name](setup)(logits, labels) for name, weight in weights.items()
    )
    torch.testing.assert_close(
        make_loss({**weights, "lovasz": weights.get("lovasz", 0.0)}, setup)(
            logits, labels
        ),
        expected,
    )


@pytest.mark.parametrize("regions", [None, NESTED])
def test_dice_and_cross_entropy_take_the_fast_path_only_where_it_is_the_same(
    regions, monkeypatch
):
    """The fused pass knows no options; with any of them the terms are computed one by
    one, and differ.
    """
    logits, labels = drawn(4)
    logits = logits if regions is None else logits[:, :2]
    for name in ("dice_cross_entropy", "dice_binary_cross_entropy"):
        monkeypatch.setattr(
            f"trivox.learning.losses.choice.{name}", lambda *_, **__: torch.tensor(-7.0)
        )
    weights = {"dice": 0.5, "cross_entropy": 2.0}
    options = [
        LossSetup(regions=regions),
        LossSetup(LossOptions(label_smoothing=0.1), regions),
        LossSetup(
            LossOptions(),
            regions,
            class_weights=torch.tensor([1.0, 2.0, 3.0])[: logits.shape[1]],
        ),
    ]
    fast, smoothed, weighted = (
        float(make_loss(weights, setup)(logits, labels)) for setup in options
    )
    other = float(make_loss({**weights, "focal": 1.0}, options[0])(logits, labels))
    assert fast == -7
    assert len({fast, smoothed, weighted, other}) == 4


def test_a_term_without_weight_is_not_computed(monkeypatch):
    logits, labels = drawn(4)
    monkeypatch.setitem(LOSSES, "lovasz", lambda setup: pytest.fail("lovasz was built"))
    make_loss({"dice": 1.0, "focal": 1.0, "lovasz": 0.0}, LossSetup())(logits, labels)


@pytest.mark.parametrize(
    "base",
    [dice, cross_entropy, lambda x, y: torch.stack([dice(x, y), cross_entropy(x, y)])],
)
def test_any_loss_is_supervised_at_each_scale_and_keeps_its_shape(base):
    outputs, labels = pyramid()
    shrunk = [labels, labels[:, 1::2, 1::2, 1::2]]
    expected = sum(
        w * base(x, y)
        for w, x, y in zip((2 / 3, 1 / 3), outputs[:2], shrunk, strict=True)
    )
    loss = DeepSupervisionLoss(base)(outputs, labels)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert outputs[2].grad is not None  # DDP waits for every parameter
    assert not outputs[2].grad.any()
    torch.testing.assert_close(
        DeepSupervisionLoss(base)(outputs[0], labels), base(outputs[0], labels)
    )
    assert torch.equal(shrink_labels(labels, (4, 4, 4)), shrunk[1])


# -- weights of classes ----------------------------------------------------------------
def weights_of(counts, kind, **options):
    return class_weights(
        torch.tensor(counts), LossOptions(class_weights=kind, **options)
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.floats(1, 1e7), min_size=2, max_size=6),
    kind=st.sampled_from(["inverse_frequency", "effective_number"]),
)
def test_rarer_classes_weigh_more_and_the_mean_weight_is_one(counts, kind):
    weights = weights_of(counts, kind)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)
    order = np.argsort(counts)
    assert bool((weights[order].diff() <= 1e-6).all())


def test_inverse_frequency_is_inverse():
    weights = weights_of([1000.0, 10.0, 0.0], "inverse_frequency")
    assert float(weights[1] / weights[0]) == pytest.approx(100)
    assert float(weights[2]) == 1  # never seen: neither favoured nor switched off


def test_the_effective_number_levels_off():
    small = weights_of([1.0, 10.0], "effective_number", effective_number_beta=0.99999)
    assert float(small[0] / small[1]) == pytest.approx(10, rel=1e-3)
    large = weights_of([1e7, 1e8], "effective_number", effective_number_beta=0.99999)
    torch.testing.assert_close(large, torch.ones(2))
    by_formula = (1 - 0.9**2) / (1 - 0.9**30)
    some = weights_of([30.0, 2.0], "effective_number", effective_number_beta=0.9)
    assert float(some[0] / some[1]) == pytest.approx(by_formula, rel=1e-5)


def test_class_weights_are_asked_for_or_absent():
    assert class_weights(None, LossOptions()) is None
    with pytest.raises(RecipeError, match="voxel counts"):
        class_weights(None, LossOptions(class_weights="inverse_frequency"))


# -- weights of terms ------------------------------------------------------------------
def constant(*values):
    """Terms of given values that depend on the outputs, as terms do."""
    return lambda outputs, labels: torch.tensor(values) + 0 * outputs.sum()


def test_uncertainty_is_kendalls_sum_in_value_and_gradient():
    logits, labels = drawn(4)
    terms = CombinedLoss({"dice": dice, "cross_entropy": cross_entropy}, {}).terms
    loss = AdaptiveLoss(terms, {"dice": 2.0, "cross_entropy": 0.5}, rule="uncertainty")
    assert loss.term_weights() == pytest.approx({"dice": 2.0, "cross_entropy": 0.5})
    logits.requires_grad_()
    s = loss.log_variance.detach().clone().requires_grad_()
    expected = ((-s).exp() * terms(logits, labels) + s).sum()
    value = loss(logits, labels)
    torch.testing.assert_close(value, expected)
    mine = torch.autograd.grad(value, [logits, loss.log_variance])
    torch.testing.assert_close(mine, torch.autograd.grad(expected, [logits, s]))


def test_learnt_weights_come_to_rest_at_the_inverse_of_the_terms():
    loss = AdaptiveLoss(constant(0.2, 4.0), {"a": 1.0, "b": 1.0}, rule="uncertainty")
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss(torch.zeros(1, requires_grad=True), torch.zeros(1)).backward()
        optimizer.step()
    assert loss.term_weights() == pytest.approx({"a": 5.0, "b": 0.25}, rel=1e-2)


def test_balancing_is_the_dynamic_weight_average():
    weights = balanced(torch.tensor([0.9, 0.5]), torch.tensor([1.0, 1.0]))
    raw = np.exp(np.array([0.9, 0.5]) / 2)
    assert weights.tolist() == pytest.approx(2 * raw / raw.sum())


def test_balancing_favours_the_term_that_falls_slowly_and_keeps_the_recipes_weights():
    now = {"values": (1.0, 1.0)}
    loss = AdaptiveLoss(
        lambda x, y: torch.tensor(now["values"]) + 0 * x,
        {"a": 1.0, "b": 3.0},
        rule="balancing",
        window=5,
    )
    x = torch.zeros(2, requires_grad=True)
    for step in range(10):
        now["values"] = (1.0, 1.0) if step < 5 else (1.0, 0.1)
        assert loss.term_weights() == pytest.approx({"a": 1.0, "b": 3.0})
        loss(x, x)
    result = loss.term_weights()
    expected = balanced(torch.tensor([1.0, 0.1]), torch.ones(2)).tolist()
    assert result == pytest.approx({"a": expected[0], "b": 3 * expected[1]})
    assert result["a"] > 1 > result["b"] / 3
    assert float(loss(x, x).detach()) == pytest.approx(
        result["a"] * 1.0 + result["b"] * 0.1
    )
    now["values"] = (
        0.5,
        0.1,
    )  # four more steps complete the third window, which is compared with the second alone
    for _ in range(4):
        loss(x, x)
    expected = balanced(torch.tensor([0.6, 0.1]), torch.tensor([1.0, 0.1])).tolist()
    assert loss.term_weights() == pytest.approx(
        {"a": expected[0], "b": 3 * expected[1]}
    )


def test_validation_and_broken_steps_leave_the_balance_alone():
    now = {"values": (1.0, 1.0)}
    loss = AdaptiveLoss(
        lambda x, y: torch.tensor(now["values"]) + 0 * x,
        {"a": 1.0, "b": 1.0},
        rule="balancing",
        window=4,
    )
    x = torch.zeros(2, requires_grad=True)
    with torch.no_grad():
        loss(x, x)
    assert int(loss.steps) == 0
    now["values"] = (float("nan"), 1.0)
    for _ in range(8):
        loss(x, x)
    assert all(np.isfinite(weight) for weight in loss.term_weights().values())


@pytest.mark.parametrize("rule", ["uncertainty", "balancing"])
def test_a_saved_state_continues_where_it_stood(rule):
    def steps(loss, range_):
        for step in range_:
            value = loss(
                torch.full((1,), 1.0 + step % 3, requires_grad=True), torch.zeros(1)
            )
            if rule == "uncertainty":
                (gradient,) = torch.autograd.grad(value, loss.log_variance)
                loss.log_variance.data -= 0.1 * gradient

    def fresh():
        def terms(x, y):
            return torch.cat([x, x**2 / 3])

        return AdaptiveLoss(terms, {"a": 1.0, "b": 1.0}, rule=rule, window=4)

    whole = fresh()
    first = fresh()
    second = fresh()
    steps(whole, range(18))
    steps(first, range(11))
    second.load_state_dict(first.state_dict())
    steps(second, range(11, 18))
    assert second.term_weights() == whole.term_weights() != fresh().term_weights()
