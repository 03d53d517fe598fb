"""Validation during training: loss and scores on the same random patches of the
held-out cases every epoch.
"""

import torch
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime, sum_over_ranks
from trivox.preparation.batches import Source, stream


@torch.no_grad()
def validate(
    network: nn.Module,
    objective: Objective,
    source: Source,
    recipe: Recipe,
    runtime: Runtime,
) -> dict[str, float]:
    """Mean loss over the batches of all ranks, and the objective's scores from counts
    over all of them.
    """
    training = network.training
    network.eval()
    counts: Tensor | None = None
    losses = torch.zeros(2, dtype=torch.float64)
    for images, labels in stream(
        source,
        range(recipe.validation_iterations),
        device=runtime.device,
        workers=recipe.workers,
    ):
        with runtime.autocast():
            logits = network(images)
        losses += torch.tensor([float(objective.loss(logits, labels)), 1.0])
        found = objective.count(logits, labels)
        counts = found if counts is None else counts + found
    network.train(training)
    assert counts is not None
    losses = sum_over_ranks(losses.to(runtime.device, torch.float32))
    return {
        "validation_loss": float(losses[0] / losses[1]),
        **objective.score(sum_over_ranks(counts)),
    }
