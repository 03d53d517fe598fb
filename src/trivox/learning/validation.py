"""Validation during training: loss and scores on the same random patches of the
held-out cases every epoch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.learning.microbatch import in_parts
from trivox.learning.objective import Objective
from trivox.learning.progress import ShowSteps, unshown
from trivox.learning.runtime import Runtime, sum_over_ranks
from trivox.preparation.batches import Source
from trivox.preparation.stream import stream


@torch.no_grad()
def validate(
    network: nn.Module,
    objective: Objective,
    source: Source,
    recipe: Recipe,
    runtime: Runtime,
    *,
    show_steps: ShowSteps = unshown,
) -> dict[str, float]:
    """Mean loss over the batches of all ranks, and the objective's scores from counts
    over all of them.
    """
    training = network.training
    network.eval()
    counts: Tensor | None = None
    losses = torch.zeros(2, dtype=torch.float64)  # their sum, and how many there are

    def note() -> str:
        return f"loss {float(losses[0] / losses[1]):.3f}" if losses[1] else ""

    def compute(images: Any) -> Any:
        with runtime.autocast():
            return network(images)

    steps = range(recipe.validation_iterations)
    batches = stream(source, steps, device=runtime.device, workers=recipe.workers)
    shown = show_steps(steps, "validation", note)
    for _, (images, targets) in zip(shown, batches, strict=True):
        outputs = in_parts(compute, images, runtime.device)
        losses += torch.tensor([float(objective.loss(outputs, targets)), 1.0])
        batch_counts = objective.count(outputs, targets)
        counts = batch_counts if counts is None else counts + batch_counts
    network.train(training)
    assert counts is not None
    losses = sum_over_ranks(losses.to(runtime.device, torch.float32))
    return {
        "validation_loss": float(losses[0] / losses[1]),
        **objective.score(sum_over_ranks(counts)),
    }
