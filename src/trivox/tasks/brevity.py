"""Trainings that were too short for their figures to mean much."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivox.config.recipe import Recipe
from trivox.learning.tracking import read_records

FEWEST_STEPS = 200
"""Below, a network from random weights has hardly begun."""
FEWEST_STEPS_PRETRAINED = 50
EPOCHS = 10
"""A curve of fewer says nothing about its slope."""
PARTS = 5
"""Of a training, whose means are compared: single epochs are noisy."""
STEEP = 0.18
"""Share of the whole gain from the last part but one to the last; a line has 0.25."""
SCORES = ("validation_score", "validation_dice", "validation_r2")


def too_short(recipe: Recipe, folders: Mapping[int, Path]) -> list[str]:
    """A warning for the reader of the figures, if a fold (number -> folder) was trained
    for too few steps, or its validation score still rose steeply at the end.
    """
    remedy = "train longer: --resume with more --epochs or --minutes"
    lines = []
    for fold, folder in folders.items():
        records = read_records(folder / "metrics.jsonl")
        epochs = [record for record in records if record.get("kind") == "epoch"]
        if not epochs:
            continue
        steps = int(epochs[-1].get("step") or 0)
        fewest = FEWEST_STEPS if recipe.pretrained is None else FEWEST_STEPS_PRETRAINED
        where = f"fold {fold}: " if len(folders) > 1 else ""
        if steps < fewest:
            lines.append(
                f"{where}trained for {steps} steps only, fewer than {fewest}: too few "
                f"for the figures to mean anything; {remedy}"
            )
        elif rises_steeply(_scores(epochs)):
            lines.append(
                f"{where}the validation score still rose steeply at the end of "
                f"training: the figures are those of an unfinished model; {remedy}"
            )
    return lines


def _scores(epochs: Sequence[Mapping[str, Any]]) -> list[float]:
    """The score of each epoch that has one."""
    name = next((name for name in SCORES if epochs[-1].get(name) is not None), "")
    values = [record.get(name) for record in epochs]
    return [float(value) for value in values if value is not None]


def rises_steeply(scores: Sequence[float]) -> bool:
    """Whether a curve rises at its end about as a line would, rather than level off."""
    if len(scores) < EPOCHS:
        return False
    parts = np.array_split(np.asarray(scores), PARTS)
    means = [float(part.mean()) for part in parts]
    whole = means[-1] - means[0]
    last = means[-1] - means[-2]
    return whole > 0.05 * abs(means[-1]) and last >= STEEP * whole
