"""Batches whose labels come with the class of each sample's case."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trivox.preparation.batches import BatchSource, PatchBatch
from trivox.uploads import sent


@dataclass(frozen=True, eq=False)
class ClassedLabels:
    """Label indices `(b, z, y, x)` with the class of each sample's case, `(b,)`.

    classes: index, -1 where it is not known or not to be learnt from this patch;
    lesion: voxels of the case's lesion, -1 where its mask is not known.
    """

    labels: Tensor
    classes: Tensor
    lesion: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "ClassedLabels":
        return ClassedLabels(self.labels[part], self.classes[part], self.lesion[part])


@dataclass(frozen=True)
class CaseClasses:
    """Index of the class and lesion voxels of each case by name; cases left out have no
    class.
    """

    index: Mapping[str, int]
    lesion_voxels: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class ClassedBatch:
    """A batch as read with the class and the lesion voxels of each sample, `(b, 2)`."""

    batch: PatchBatch
    classes: Tensor

    def finish(self, device: torch.device) -> tuple[Tensor, ClassedLabels]:
        """Images `(b, c, z, y, x)`, and the labels with their classes."""
        images, labels = self.batch.finish(device)
        classes, lesion = sent(self.classes, device).unbind(1)
        return images, ClassedLabels(labels, classes, lesion)


@dataclass(frozen=True)
class Classed:
    """The batches of a source with the class of each sample's case.

    A class is given where the sampler centred the patch on the lesion; in validation,
    where there is no augmentation, everywhere.
    """

    source: BatchSource
    classes: CaseClasses

    def read(self, step: int) -> ClassedBatch:
        """Draw and read the batch of a step; touches no device and no shared state."""
        batch = self.source.read(step)
        rows: list[tuple[int, int]] = []
        for case, position in zip(batch.cases, self.source.positions, strict=True):
            index = -1
            if self._shows_lesion(position):
                index = self.classes.index.get(case, -1)
            rows.append((index, self.classes.lesion_voxels.get(case, -1)))
        return ClassedBatch(batch, torch.tensor(rows, dtype=torch.int64))

    def _shows_lesion(self, position: int) -> bool:
        source = self.source
        return source.augmentation is None or source.sampler.on_lesion(position)
