"""Weights in bf16 all at once."""

import torch
from torch import nn
from torch.func import functional_call

from trivox.networks.halves import GroupNorm, LayerNorm, in_bf16, wants_halves


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))


def test_they_are_what_each_alone_would_be_and_gradients_come_back_in_fp32():
    net = network()
    weights = in_bf16(dict(net.named_parameters()))
    for name, weight in net.named_parameters():
        assert torch.equal(weights[name], weight.bfloat16())
    functional_call(net, weights, (torch.ones(3, 4).bfloat16(),)).sum().backward()
    at_once = [parameter.grad for parameter in net.parameters()]
    other = network()
    alone = {name: weight.bfloat16() for name, weight in other.named_parameters()}
    functional_call(other, alone, (torch.ones(3, 4).bfloat16(),)).sum().backward()
    for gradient, parameter in zip(at_once, other.parameters(), strict=True):
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, parameter.grad)


def test_what_takes_no_part_has_no_gradient():
    net = network()
    weights = in_bf16(dict(net.named_parameters()))
    net[0].bias.requires_grad_(False)
    (weights["0.weight"].sum() * 2).backward()
    assert torch.equal(net[0].weight.grad, torch.full((6, 4), 2.0))
    assert all(parameter.grad is None for parameter in net[2].parameters())


def test_frozen_weights_stay_without_gradient():
    net = network()
    net[0].requires_grad_(False)
    weights = in_bf16(dict(net.named_parameters()))
    functional_call(net, weights, (torch.ones(3, 4).bfloat16(),)).sum().backward()
    assert net[0].weight.grad is None
    assert net[2].weight.grad is not None


def test_nothing_is_left_of_a_network_without_weights():
    assert in_bf16({}) == {}


def test_a_cpu_keeps_autocast_and_torchs_norms():
    with torch.autocast("cpu", torch.bfloat16):
        assert not wants_halves(torch.device("cpu"))
    x = torch.rand(2, 8, 5)
    assert torch.equal(GroupNorm(2, 8)(x), nn.GroupNorm(2, 8)(x))
    assert torch.equal(LayerNorm(5)(x), nn.LayerNorm(5)(x))
