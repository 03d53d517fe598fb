"""Classify: the class of a case, answered by all networks together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trivox.inference.classes.reader import Reading
from trivox.inference.members import Member
from trivox.preparation.grid import PreparedCase
from trivox.volumes.volume import Array


@dataclass(frozen=True)
class Classification:
    """The class of a case.

    probabilities: by class name, summing to 1; flags: why to doubt the answer.
    """

    probabilities: Mapping[str, float]
    flags: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


def classify(
    members: Sequence[Member],
    cases: Sequence[PreparedCase],
    raw: Array,
    classes: Sequence[str],
    *,
    everything: bool,
    cells: Mapping[str, str],
) -> tuple[Classification | None, tuple[Reading, ...]]:
    """The class of a case, prepared for each member; every network votes once.

    raw: label indices `(z, y, x)` on the first member's ordered and cropped grid,
    before cleaning: classifiers were fitted on such; everything: run networks even
    where the answer does not need them; cells: what clinical columns say of the case.
    """
    if not any(member.readers for member in members):
        return None, ()
    indices = cases[0].record.to_source(raw).array[0]
    readings: list[Reading] = []
    votes: list[Array] = []
    for member, case in zip(members, cases, strict=True):
        if not member.readers:
            continue
        on_grid = case.record.to_grid(indices)
        for reader in member.readers:
            reading = reader.read(
                case.image, on_grid, everything=everything, cells=cells
            )
            readings.append(reading)
            votes.append(reader.log_probabilities(reading))
    return joined(classes, votes, readings), tuple(readings)


def joined(
    classes: Sequence[str], votes: Sequence[Array], readings: Sequence[Reading]
) -> Classification:
    """The answer of several networks: the geometric mean of their probabilities, given
    as logarithms `(k,)`.
    """
    mean = np.mean(np.stack(votes), axis=0)
    chance = torch.from_numpy(mean).softmax(0).tolist()
    flags: dict[str, None] = {}  # each once, in order
    for reading in readings:
        flags |= dict.fromkeys(reading.flags)
    return Classification(dict(zip(classes, chance, strict=True)), tuple(flags))
