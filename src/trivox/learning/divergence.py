"""Whether a training is lost: losses or weights that are no numbers, or a loss that
stays far above its start.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from trivox.config.recipe import Recipe
from trivox.errors import DivergedTrainingError
from trivox.files import surviving_folder
from trivox.learning.checkpoints import best_checkpoints

MAX_SKIPPED = 20
"""Steps in a row whose gradients are not finite before training is given up; a scaler
of fp16 looks for its scale in fewer.
"""
FAR = 10.0
"""Multiple of the first loss (at least 1) from which a model counts as lost."""
PATIENCE = 2
"""Epochs in a row that end so before training is given up: a single one may recover."""
USUAL_RATES = {"sgd": 1e-2, "adamw": 1e-3}
"""Learning rates that are nearly always low enough."""


def far_off(loss: float, first: float | None) -> bool:
    """Whether a loss is no number, or far above the first one of its training."""
    if not math.isfinite(loss):
        return True
    return first is not None and loss > FAR * max(1.0, abs(first))


def all_finite(content: object) -> bool:
    """Whether all tensors in nested dicts and lists hold numbers alone."""
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(content))


def _tensors(content: object) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
        return
    parts: Iterable[object] = ()
    if isinstance(content, Mapping):
        parts = content.values()
    elif isinstance(content, list | tuple):
        parts = content
    for part in parts:
        yield from _tensors(part)


def diverged(
    folder: Path, recipe: Recipe, *, step: int, what: str, precision: str
) -> DivergedTrainingError:
    """The one line that a lost training ends with: where it stood, what is left of it,
    and what to do.
    """
    rate = min(recipe.learning_rate / 10, USUAL_RATES[recipe.optimizer])
    remedies = [f"a lower learning rate (--lr {rate:.2g})"]
    if recipe.gradient_clip > 1:
        remedies.append("--set gradient_clip=1")
    if precision != "fp32":
        remedies.append("--set precision=fp32")
    advice = ", ".join(remedies[:-1])
    advice = f"{advice} or {remedies[-1]}" if advice else remedies[-1]
    checkpoints = folder / "checkpoints"
    latest = surviving_folder(checkpoints / "latest")
    best = best_checkpoints(checkpoints)
    if latest is not None:
        left = f"the last good checkpoint is {latest}: continue it with --resume and"
    elif best:
        left = f"the last good checkpoint is {best[0]}; train again with"
    else:
        left = "there is no good checkpoint yet; train again with"
    return DivergedTrainingError(
        f"{folder}: training diverged at step {step}: {what}; {left} {advice}"
    )
