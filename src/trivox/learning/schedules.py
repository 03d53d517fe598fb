"""Optimizers and the course of the learning rate.

The schedule is a function of the share of the budget that is spent.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from trivox.config.recipe import Recipe
from trivox.networks.class_head import MultitaskNetwork


def make_optimizer(
    network: nn.Module, recipe: Recipe, objective: nn.Module | None = None
) -> torch.optim.Optimizer:
    """SGD (Nesterov) or AdamW; one-dimensional parameters (norms and biases) are not
    decayed under AdamW.

    Those of `objective`, a loss that learns, have a group of their own without decay. A
    class head learns at `classification.learning_rate_factor` times the rate. Each
    group keeps its own rate in `base_lr`; `set_rate` scales it, so groups go on
    learning at different rates.
    """
    rate = recipe.learning_rate
    head = network.head if isinstance(network, MultitaskNetwork) else None
    of_head = set() if head is None else {id(p) for p in head.parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = _groups([p for p in trained if id(p) not in of_head], recipe, rate)
    if of_head:
        head_rate = rate * recipe.classification.learning_rate_factor
        groups += _groups([p for p in trained if id(p) in of_head], recipe, head_rate)
    learnt = [] if objective is None else list(objective.parameters())
    if learnt:
        groups.append({"params": learnt, "weight_decay": 0.0})
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=recipe.betas)
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
    return optimizer


def _groups(
    parameters: Sequence[nn.Parameter], recipe: Recipe, rate: float
) -> list[dict[str, object]]:
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return [{"params": list(parameters), "weight_decay": decay, "lr": rate}]
    weights = [p for p in parameters if p.ndim > 1]
    norms_and_biases = [p for p in parameters if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": decay, "lr": rate},
        {"params": norms_and_biases, "weight_decay": 0.0, "lr": rate},
    ]


def rate_factor(spent: float, recipe: Recipe) -> float:
    """Factor on the base rate when the share `spent` (0..1) of the budget is used:
    linear warm-up, then the schedule.
    """
    spent = min(max(spent, 0.0), 1.0)
    if spent < recipe.warmup:
        return max(spent / recipe.warmup, 1e-3)
    progress = (spent - recipe.warmup) / (1 - recipe.warmup)
    if recipe.schedule == "poly":
        return float((1 - progress) ** 0.9)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to `factor` times its own base rate; returns the first group's
    rate.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
