"""Some voxels of each label of a reference with their logits, drawn evenly: of a band
round everything a small lesion beside a large organ may get none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trivox.inference.doubt.lesion_voxels import LesionSample

LABEL_SAMPLE = 2000
"""Voxels of each label; the standard error of a share is then at most 0.011."""


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """Logits `(n, c)` float32 and, if known, reference indices `(n,)` of voxels drawn
    evenly from a band round the foreground, in a random order; labels: likewise of each
    label of the reference; lesions: the voxel of each that says most of it.
    """

    logits: Tensor
    reference: Tensor | None
    labels: "VoxelSample | None" = None
    lesions: LesionSample | None = None


Drawn = tuple[Tensor, Tensor, Tensor]
"""Keys `(n,)`, logits `(n, c)` and reference indices `(n,)` of voxels."""


class LabelVoxels:
    """Of each label the `count` voxels with the smallest keys, whatever the chunks in
    which they come.
    """

    def __init__(self, count: int = LABEL_SAMPLE) -> None:
        self._count = count
        self._drawn: list[Drawn] = []
        self._limits = torch.ones(1, dtype=torch.float64)

    def wins(self, keys: Tensor, labels: Tensor) -> Tensor:
        """Which of voxels `(n,)` may be among those, by keys and labels; background and
        ignored voxels never are.
        """
        self._know(labels)
        return (labels > 0) & (keys < self._limits[labels.clamp(min=0)])

    def keep(self, drawn: Drawn) -> None:
        """Keep what wins of voxels with their logits."""
        keys, logits, labels = drawn
        wins = self.wins(keys, labels)
        self._drawn.append((keys[wins], logits[wins], labels[wins]))
        if sum(len(part[0]) for part in self._drawn) > self._most():
            self._thin()

    def sample(self) -> VoxelSample | None:
        """What was drawn, in the order of the keys; None: nothing."""
        if not self._drawn:
            return None
        self._thin()
        _, logits, labels = in_order(self._drawn)
        return VoxelSample(logits, labels)

    def _know(self, labels: Tensor) -> None:
        """Have a limit for each label."""
        new = int(labels.max()) + 1 - len(self._limits) if len(labels) else 0
        if new > 0:
            ones = torch.ones(new, dtype=torch.float64)
            self._limits = torch.cat([self._limits, ones])

    def _most(self) -> int:
        return 2 * self._count * max(1, len(self._limits) - 1)

    def _thin(self) -> None:
        keys, logits, labels = in_order(self._drawn)
        rows = first_of_each(labels, self._count)
        keys = keys[rows]
        labels = labels[rows]
        self._drawn = [(keys, logits[rows], labels)]
        for label in labels.unique().tolist():
            of_label = keys[labels == label]
            if len(of_label) == self._count:
                self._limits[label] = of_label[-1]


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Places of the first `count` voxels of each label `(n,)`, in their order."""
    parts = [torch.nonzero(labels == label)[:count, 0] for label in labels.unique()]
    if not parts:
        return torch.empty(0, dtype=torch.long)
    return torch.cat(parts).sort().values


def in_order(drawn: Sequence[Drawn], count: int | None = None) -> Drawn:
    """Voxels that were drawn one after the other, in the order of their keys, the first
    `count`.
    """
    columns = zip(*drawn, strict=True)
    keys, logits, known = (torch.cat(parts) for parts in columns)
    order = keys.argsort()[:count]
    return keys[order], logits[order], known[order]
