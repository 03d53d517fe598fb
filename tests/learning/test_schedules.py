"""Optimizers and the learning rate's course."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trivox.config.recipe import make_recipe
from trivox.learning.steps.schedules import make_optimizer, rate_factor, set_rate
from trivox.networks.layers import ConvBlock


def recipe(**changes):
    return make_recipe("production", changes)


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_a_schedule_starts_at_one_after_the_warm_up_and_ends_at_zero_unless_constant(
    schedule, warmup
):
    settings = recipe(schedule=schedule, warmup=warmup)
    assert rate_factor(warmup, settings) == pytest.approx(1)
    assert rate_factor(1.0, settings) == pytest.approx(
        1.0 if schedule == "constant" else 0.0
    )


def test_poly_is_nnunets():
    assert rate_factor(0.5, recipe()) == pytest.approx(0.5**0.9)
    assert rate_factor(0.999, recipe()) == pytest.approx(0.001**0.9)


def test_cosine_is_half_way_down_in_the_middle():
    assert rate_factor(0.5, recipe(schedule="cosine")) == pytest.approx(0.5)
    assert rate_factor(0.55, recipe(schedule="cosine", warmup=0.1)) == pytest.approx(
        0.5
    )


def test_the_warm_up_is_linear_and_never_zero():
    settings = recipe(warmup=0.2)
    assert rate_factor(0.1, settings) == pytest.approx(0.5)
    assert rate_factor(0.05, settings) == pytest.approx(0.25)
    assert 0 < rate_factor(0.0, settings) <= 1e-3


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(spent=st.floats(-1, 2), warmup=st.sampled_from([0.0, 0.3]))
def test_the_factor_stays_within_zero_and_one_even_past_the_end(
    schedule, spent, warmup
):
    assert 0 <= rate_factor(spent, recipe(schedule=schedule, warmup=warmup)) <= 1


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_after_the_warm_up_the_rate_only_falls(schedule):
    settings = recipe(schedule=schedule, warmup=0.1)
    factors = [rate_factor(0.1 + 0.9 * i / 50, settings) for i in range(51)]
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_group_keeps_its_ratio_to_the_others_through_the_schedule(optimizer):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    settings = recipe(optimizer=optimizer, warmup=0.1)
    rule = make_optimizer(network, settings)
    rule.add_param_group(
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 1e-4, "base_lr": 1e-4}
    )
    for spent in (0.0, 0.05, 0.1, 0.5, 0.9):
        first = set_rate(rule, rate_factor(spent, settings))
        assert first == pytest.approx(
            settings.learning_rate * rate_factor(spent, settings)
        )
        assert rule.param_groups[-1]["lr"] / first == pytest.approx(
            1e-4 / settings.learning_rate
        )


def test_the_base_rates_survive_saving_and_loading():
    network = nn.Linear(2, 2)
    settings = recipe(optimizer="adamw", learning_rate=0.5)
    rule = make_optimizer(network, settings)
    set_rate(rule, 0.1)
    again = make_optimizer(network, settings)
    again.load_state_dict(rule.state_dict())
    assert [group["base_lr"] for group in again.param_groups] == [0.5, 0.5]
    assert set_rate(again, 1.0) == 0.5


def test_norms_and_biases_are_not_decayed_under_adamw():
    network = nn.Sequential(ConvBlock(2, 4, (3, 3, 3)), ConvBlock(4, 4, (3, 3, 3)))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    rule = make_optimizer(
        network, recipe(optimizer="adamw", weight_decay=0.5, learning_rate=0.1)
    )
    rule.step()
    for name, parameter in network.named_parameters():
        decayed = bool((parameter < 1).all())
        assert decayed == (parameter.ndim > 1), name


def test_sgd_decays_everything_and_uses_nesterov_momentum():
    rule = make_optimizer(nn.Linear(2, 2), recipe())
    (group,) = rule.param_groups
    assert (
        group["momentum"],
        group["nesterov"],
        group["weight_decay"],
        group["lr"],
    ) == (0.99, True, 3e-5, 1e-2)
    assert (
        make_optimizer(nn.Linear(2, 2), recipe(momentum=0)).param_groups[0]["nesterov"]
        is False
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_parameters_are_left_out_and_all_others_are_in_once(optimizer):
    network = ConvBlock(2, 4, (3, 3, 3))
    network[0].weight.requires_grad_(False)
    rule = make_optimizer(network, recipe(optimizer=optimizer))
    trained = []
    for group in rule.param_groups:
        trained += group["params"]
    assert {id(p) for p in trained} == {
        id(p) for p in network.parameters() if p.requires_grad
    }
    assert len(trained) == 3
