"""Optimizers, their steps, and the course of the learning rate.

The schedule is a function of the share of the budget that is spent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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

    For a network on a GPU, a step is one kernel for many parameters, which can leave a
    step out without asking the host (see `take_step`).
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
    fused = True if trained[0].is_cuda else None
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups,
            lr=rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            fused=fused,
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=recipe.betas, fused=fused)
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
    _begin_momentum(optimizer)
    return optimizer


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Have fused SGD begin with zeros: a first step that it leaves out would leave its
    memory as it was allocated.
    """
    for group in optimizer.param_groups:
        if group["fused"] and group.get("momentum", 0.0) > 0:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Continue from the state of an optimizer. Rates and kernels stay those of this
    session, whose recipe and device may be others.

    Raises `KeyError` or `ValueError` for a state of other parameters.
    """
    groups = [
        {**loaded, "base_lr": group["base_lr"], "fused": group["fused"]}
        for loaded, group in zip(
            saved["param_groups"], optimizer.param_groups, strict=True
        )
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})
    _begin_momentum(optimizer)


def take_step(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Step unless the norm of the gradients is not finite; on a GPU the device decides,
    and nothing waits for it.
    """
    if not optimizer.param_groups[0]["fused"]:
        if bool(norm.isfinite()):
            optimizer.step()
        return
    # what a GradScaler tells fused optimizers; 0 times what is not finite is no number
    optimizer.found_inf = (norm * 0).isnan().float()  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


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
