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
from trivox.learning.runtime import Runtime, reading_threads, sum_over_ranks
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
    # sum of the losses and their number, on the device: nothing waits for a batch
    losses = torch.zeros(2, dtype=runtime.wide, device=runtime.device)

    def note() -> str:
        total, number = losses.tolist()
        return f"loss {total / number:.3f}" if number else ""

    def compute(images: Any) -> Any:
        with runtime.autocast():
            return network(images)

    steps = range(recipe.validation_iterations)
    workers = reading_threads(recipe.workers, runtime.device)
    batches = stream(source, steps, device=runtime.device, workers=workers)
    shown = show_steps(steps, "validation", note)
    for _, (images, targets) in zip(shown, batches, strict=True):
        outputs = in_parts(compute, images, runtime.device)
        losses[0] += objective.loss(outputs, targets)
        losses[1] += 1
        batch_counts = objective.count(outputs, targets)
        counts = batch_counts if counts is None else counts + batch_counts
    network.train(training)
    assert counts is not None
    total, number = sum_over_ranks(losses.float()).tolist()
    return {
        "validation_loss": total / number,
        **objective.score(sum_over_ranks(counts)),
    }
