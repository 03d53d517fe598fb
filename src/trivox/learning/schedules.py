"""Optimizers and the course of the learning rate. The schedule is a function of the share of the budget that is spent."""

import math

import torch
from torch import nn

from trivox.config import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe, objective: nn.Module | None = None) -> torch.optim.Optimizer:
    """SGD (Nesterov) or AdamW; one-dimensional parameters (norms and biases) are not decayed under AdamW.

    Those of `objective`, a loss that learns, have a group of their own without decay. Each group keeps its own rate in
    `base_lr`; `set_rate` scales it, so different groups may learn at different rates.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        groups = [{"params": trained, "weight_decay": recipe.weight_decay}]
    else:
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
    learnt = [] if objective is None else list(objective.parameters())
    if learnt:
        groups.append({"params": learnt, "weight_decay": 0.0})
    rate = recipe.learning_rate
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    else:
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=recipe.betas)
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
    return optimizer


def rate_factor(spent: float, recipe: Recipe) -> float:
    """Factor on the base rate when the share `spent` (0..1) of the budget is used: linear warm-up, then the schedule."""
    spent = min(max(spent, 0.0), 1.0)
    if spent < recipe.warmup:
        return max(spent / recipe.warmup, 1e-3)
    rest = (spent - recipe.warmup) / (1 - recipe.warmup)
    if recipe.schedule == "poly":
        return float((1 - rest) ** 0.9)
    return 0.5 * (1 + math.cos(math.pi * rest)) if recipe.schedule == "cosine" else 1.0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to `factor` times its own base rate; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
