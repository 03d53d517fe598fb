"""The most probable voxel of each lesion of a reference, with its logits: what tells
from what probability on the lesion is found.

A lesion is a connected component of a target (26 neighbours), as in all metrics of
lesions, and is found where any of its voxels is marked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

from trivox.datasets.boxes import Box
from trivox.datasets.labels import LabelScheme
from trivox.inference.doubt.uncertainty import probabilities_of
from trivox.preparation.grid import GridRecord
from trivox.volumes.components import connected
from trivox.volumes.volume import Array

LESION_SAMPLE = 2000
"""Voxels of each lesion that are looked at; the others could only find it sooner."""
MOST_LESIONS = 1000
"""Of a target in a case; the share of more is known to 0.016 from so many."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LesionSample:
    """Of each lesion the logits `(n, c)` of its most probable voxel, and its target
    `(n,)`, counted from 0; seen `(n,)`: false where the whole lesion lies outside of
    what is predicted, and the logits say nothing.
    """

    logits: Tensor
    targets: Tensor
    seen: Tensor

    def chances(
        self, scheme: LabelScheme, temperature: float
    ) -> dict[str, NDArray[np.float64]]:
        """Calibrated probability of the voxel of each lesion, `(n,)` by target; 0 where
        none was seen. Targets without lesions are left out.
        """
        chance = _of_targets(self.logits, self.targets, scheme, temperature)
        chance[~self.seen] = 0
        chances = {}
        for number, target in enumerate(scheme.targets):
            values = chance[self.targets == number]
            if len(values):
                chances[target] = values.double().numpy()
        return chances


@dataclass(frozen=True, eq=False)
class LesionVoxels:
    """Voxels of the lesions of a case, whose logits are wanted.

    numbers: of each of them, from 1 on, `(z, y, x)`, 0 elsewhere; pairs: `(2, m)`, such
    a number and a lesion that it is of, counted from 0; targets: of the lesions `(n,)`.
    """

    scheme: LabelScheme
    numbers: Tensor
    pairs: Integers
    targets: Integers

    @classmethod
    def of(
        cls, reference: Array, scheme: LabelScheme, record: GridRecord, *, seed: int = 0
    ) -> "LesionVoxels":
        """Of reference indices `(z, y, x)` on the source's grid, for a prediction on the
        cropped one: up to `LESION_SAMPLE` voxels of each lesion, and up to
        `MOST_LESIONS` lesions of each target, drawn evenly.
        """
        rng = np.random.default_rng(seed)
        numbers = np.zeros(reference.shape, np.int32)
        flat = numbers.reshape(-1)
        used = 0
        pairs = [np.zeros((2, 0), np.int64)]
        targets: list[int] = []
        for target, (places, lesions) in enumerate(_lesions(reference, scheme)):
            places, lesions = _drawn(places, lesions, rng)
            fresh = places[flat[places] == 0]
            flat[fresh] = np.arange(used + 1, used + 1 + fresh.size)
            used += fresh.size
            pairs.append(np.stack([flat[places], lesions + len(targets)]))
            targets += [target] * len(np.unique(lesions))
        inside = np.ascontiguousarray(record.from_source(numbers))
        return cls(
            scheme,
            torch.from_numpy(inside),
            np.concatenate(pairs, axis=1),
            np.array(targets, dtype=np.int64),
        )

    def sample(self, numbers: Tensor, logits: Tensor) -> LesionSample:
        """From the logits `(v, c)` of the voxels that the prediction has, which have
        these numbers `(v,)`.
        """
        row_of = np.full(int(self.pairs[0].max(initial=0)) + 1, -1)
        row_of[numbers.numpy()] = np.arange(len(numbers))
        rows = row_of[self.pairs[0]]
        lesions = self.pairs[1][rows >= 0]
        rows = rows[rows >= 0]
        wanted = torch.from_numpy(self.targets[lesions])
        chance = _of_targets(logits[torch.from_numpy(rows)], wanted, self.scheme, 1.0)
        order = chance.argsort(stable=True).numpy()
        best = np.full(len(self.targets), -1)
        best[lesions[order]] = rows[order]  # of several the last, most probable one
        chosen = torch.from_numpy(best)
        peaks = torch.zeros(len(best), logits.shape[1])
        peaks[chosen >= 0] = logits[chosen[chosen >= 0]]
        return LesionSample(peaks, torch.from_numpy(self.targets), chosen >= 0)


def _lesions(
    reference: Array, scheme: LabelScheme
) -> Iterator[tuple[Integers, Integers]]:
    """For each target the places of its voxels in the flat reference, and the lesion
    that each is of, from 0 on.
    """
    boxes: list[Any] = find_objects(np.maximum(reference, 0).astype(np.int32))
    strides = np.array([reference[0].size, reference.shape[2], 1])
    for indices in scheme.targets.values():
        parts = [boxes[index - 1] for index in indices if index <= len(boxes)]
        box = _around([part for part in parts if part is not None])
        numbered = connected(np.isin(reference[box], indices))
        voxels = np.argwhere(numbered)
        corner = np.array([side.start for side in box])
        yield (
            (voxels + corner) @ strides,
            numbered[tuple(voxels.T)].astype(np.int64) - 1,
        )


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all; empty for none."""
    sides = []
    for axis in range(3):
        first = min((box[axis].start for box in boxes), default=0)
        last = max((box[axis].stop for box in boxes), default=0)
        sides.append(slice(first, last))
    z, y, x = sides
    return z, y, x


def _drawn(
    places: Integers, lesions: Integers, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """Some voxels of some lesions, which are numbered anew from 0 on."""
    order = rng.permutation(len(places))
    order = order[np.argsort(lesions[order], kind="stable")]
    sizes = np.bincount(lesions)
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[ranks < LESION_SAMPLE]
    names = rng.permutation(len(sizes))
    chosen = chosen[names[lesions[chosen]] < MOST_LESIONS]
    return places[chosen], names[lesions[chosen]]


def _of_targets(
    logits: Tensor, targets: Tensor, scheme: LabelScheme, temperature: float
) -> Tensor:
    """Probability of a target each, `(n,)`, from logits `(n, c)`."""
    chance = probabilities_of(
        logits.T, exclusive=scheme.exclusive, temperature=temperature
    )
    first = 1 if scheme.exclusive else 0  # the channel of the first target
    return chance.gather(0, (targets + first)[None])[0]
