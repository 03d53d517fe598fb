"""Voxels near the foreground with their logits, drawn while a case is restored: what
trust in a model is measured on.

Whole-volume logits of all classes are never held, and background far from any structure
would swamp every measure.
"""

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.inference.doubt.label_voxels import (
    Drawn,
    LabelVoxels,
    VoxelSample,
    in_order,
)
from trivox.inference.doubt.lesion_voxels import LesionSample, LesionVoxels
from trivox.preparation.grid import GridRecord
from trivox.volumes.volume import Array

BAND_VOXELS = 2
"""How far the band reaches round the foreground: about as many voxels outside a small
structure as inside.
"""
CASE_SAMPLE = 20_000
"""Voxels of a case; the standard error of a share is then at most 0.0035."""


class BandSampler:
    """Draws at most `count` voxels evenly from the band, whatever the chunks in which
    it sees the rows.

    Band: voxels within `BAND_VOXELS` (along each axis) of the reference's foreground,
    or as near within their slice to the predicted foreground; never where the reference
    is ignored. Without a reference, the predicted foreground. Each voxel of the band
    draws a random key, and the smallest keys win. With a reference, up to
    `LABEL_SAMPLE` voxels of each of its labels are drawn besides, however rare they are,
    and those of lesions, whose voxels are voxels of labels.
    """

    def __init__(
        self,
        reference: Array | None = None,
        *,
        lesions: LesionVoxels | None = None,
        count: int = CASE_SAMPLE,
        seed: int = 0,
    ) -> None:
        self._reference: Tensor | None = None
        if reference is not None:
            self._reference = torch.from_numpy(np.ascontiguousarray(reference))
        self._count = count
        self._random = np.random.default_rng(seed)
        self._limit = 1.0
        self._chosen = (torch.empty(0), torch.empty(0), torch.empty(0))
        # of some voxels each
        self._drawn: list[Drawn] = []
        self._labels = LabelVoxels()
        self._lesions = lesions
        # numbers and logits of voxels of lesions
        self._of_lesions: list[tuple[Tensor, Tensor]] = []

    def choose(self, start: int, labels: Tensor) -> Tensor:
        """Voxels `(n, 3)` of the rows from `start` whose logits are wanted; see
        `restore.Sampler`.
        """
        predicted = (labels > 0 if labels.ndim == 3 else labels.any(0)).cpu()
        band = predicted
        known = torch.zeros(predicted.shape, dtype=torch.int16)
        if self._reference is not None:
            known = self._reference[start : start + len(predicted)]
            near = self._near_reference(start, len(predicted))
            band = (near | widen(predicted, axes=(1, 2))) & (known >= 0)
        voxels = torch.nonzero(band)
        keys = torch.from_numpy(self._random.random(len(voxels)))
        labels_of = known[tuple(voxels.T)].long()
        wins = (keys < self._limit) | self._labels.wins(keys, labels_of)
        numbers = torch.zeros(len(voxels), dtype=torch.long)
        if self._lesions is not None:
            rows = self._lesions.numbers[start : start + len(predicted)]
            numbers = rows[tuple(voxels.T)].long()
            wins |= numbers > 0
        self._chosen = keys[wins], labels_of[wins], numbers[wins]
        return voxels[wins]

    def keep(self, logits: Tensor) -> None:
        """Logits `(c, n)` of the voxels chosen last."""
        keys, known, numbers = self._chosen
        rows = logits.T.float().cpu()
        if self._lesions is not None:
            self._of_lesions.append((numbers[numbers > 0], rows[numbers > 0]))
        self._labels.keep((keys, rows, known))
        wins = keys < self._limit
        self._drawn.append((keys[wins], rows[wins], known[wins]))
        if sum(len(part[0]) for part in self._drawn) > 2 * self._count:
            smallest = self._smallest()
            self._drawn = [smallest]
            self._limit = float(smallest[0][-1])

    def sample(self) -> VoxelSample:
        """What was drawn, in the order of the keys."""
        _, logits, known = self._smallest()
        if self._reference is None:
            return VoxelSample(logits, None)
        return VoxelSample(logits, known, self._labels.sample(), self._lesion_sample())

    def _lesion_sample(self) -> LesionSample | None:
        if self._lesions is None:
            return None
        numbers, logits = zip(*self._of_lesions, strict=True)
        return self._lesions.sample(torch.cat(numbers), torch.cat(logits))

    def _smallest(self) -> Drawn:
        return in_order(self._drawn, self._count)

    def _near_reference(self, start: int, rows: int) -> Tensor:
        assert self._reference is not None
        before = min(start, BAND_VOXELS)
        end = start + rows + BAND_VOXELS
        foreground = self._reference[start - before : end] > 0
        near = widen(foreground, axes=(0, 1, 2))
        return near[before : before + rows]


def sampler_of(
    record: GridRecord, reference: Array | None, scheme: LabelScheme
) -> BandSampler:
    """What samples a case, of which reference indices on the source's grid may be known."""
    if reference is None:
        return BandSampler()
    lesions = LesionVoxels.of(reference, scheme, record)
    return BandSampler(record.from_source(reference), lesions=lesions)


def widen(mask: Tensor, *, axes: tuple[int, ...], reach: int = BAND_VOXELS) -> Tensor:
    """A boolean mask grown by `reach` voxels both ways along each of `axes`: a box, not
    a ball.
    """
    for axis in axes:
        mask = _widen_along(mask, axis, reach)
    return mask


def _widen_along(mask: Tensor, axis: int, reach: int) -> Tensor:
    grown = mask.clone()
    size = mask.shape[axis]
    for shift in range(1, min(reach, size - 1) + 1):
        length = size - shift
        grown.narrow(axis, shift, length).logical_or_(mask.narrow(axis, 0, length))
        grown.narrow(axis, 0, length).logical_or_(mask.narrow(axis, shift, length))
    return grown
