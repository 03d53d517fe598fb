"""Weighted sums of windows of logits, layer by layer along z, that become a mean.

In single precision, as fast as memory allows; or in half precision, step by step as
nnU-Net does it, so that its models give its labels where classes are close.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from trivox.uploads import sent

SIGMA = 1 / 8
"""Standard deviation of the window weight as a share of the patch."""
WEIGHT_FLOOR = 1e-4
"""Smallest weight along one axis relative to its peak, so that no voxel divides by
almost nothing.
"""
HALF_PEAK = 10.0
"""Peak of nnU-Net's weights, which are rounded to half precision."""


class Sums(Protocol):
    """What windows are added to."""

    rows: Tensor

    def add(self, window: Tensor, place: Sequence[slice]) -> None:
        """Add the logits `(c, z, y, x)` of a window at its place in y and x."""
        ...

    def mean(self, start: int, count: int) -> Tensor:
        """Mean logits `(c, count, y, x)` float32 of the first rows, which lie at
        `start` in the volume; valid until the next `add`.
        """
        ...


class SingleSums:
    """The windows form a product grid and their weights are separable, so the sum of
    weights is an outer product of three vectors and needs no map.

    rows: zeros `(c, z, y, x)`, as deep as a patch; starts: first voxels of the windows
    along each axis of a volume of `size`; copies: that a window is the sum of.
    """

    def __init__(
        self,
        rows: Tensor,
        patch: Sequence[int],
        size: Sequence[int],
        starts: Sequence[Sequence[int]],
        copies: int,
    ) -> None:
        self.rows = rows
        weights = _axis_weights(tuple(patch), rows.device)
        axes = zip(starts, weights, size, strict=True)
        self.totals = [_total_weight(*axis) for axis in axes]
        self.weight = outer(*weights) / copies

    def add(self, window: Tensor, place: Sequence[slice]) -> None:
        """See `Sums`."""
        self.rows[:, :, *place].addcmul_(window, self.weight)

    def mean(self, start: int, count: int) -> Tensor:
        """See `Sums`."""
        total = outer(self.totals[0][start : start + count], *self.totals[1:])
        return self.rows[:, :count].div_(total)


class HalfSums:
    """nnU-Net's sums: weights, sums of logits and sums of weights in half precision,
    the smallest weight in place of those that are zero there.

    rows: zeros `(c + 1, z, y, x)` in half precision, as deep as a patch; the last
    channel sums the weights.
    """

    def __init__(self, rows: Tensor, patch: Sequence[int], copies: int) -> None:
        self.rows = rows
        self.copies = copies
        self.weight = _half_weight(tuple(patch), rows.device)

    def add(self, window: Tensor, place: Sequence[slice]) -> None:
        """See `Sums`."""
        there = self.rows[:, :, *place]
        there[:-1].add_(window / self.copies * self.weight)
        there[-1].add_(self.weight)

    def mean(self, start: int, count: int) -> Tensor:
        """See `Sums`."""
        done = self.rows[:, :count]
        return done[:-1].div_(done[-1:]).float()


def axis_weight(patch: int) -> Tensor:
    """Gaussian weight along one axis, peak 1 at voxel `patch // 2` as in nnU-Net, so
    that its models give its labels.
    """
    weight = _bell(patch)
    return (weight / weight.max()).clamp(min=WEIGHT_FLOOR)


@lru_cache(maxsize=16)
def _axis_weights(patch: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """The weight along each axis, sent to a device once."""
    return [sent(axis_weight(voxels), device) for voxels in patch]


@lru_cache(maxsize=4)
def _half_weight(patch: tuple[int, ...], device: torch.device) -> Tensor:
    """nnU-Net's weights `(z, y, x)` of a window, likewise."""
    axes = [_bell(voxels).double() for voxels in patch]
    weight = (HALF_PEAK * outer(*axes)).half()
    least = weight[weight > 0].min()
    return sent(weight.clamp(min=least), device)


def _bell(patch: int) -> Tensor:
    offset = torch.arange(patch, dtype=torch.float32) - patch // 2
    deviations = offset / (patch * SIGMA)
    return torch.exp(-0.5 * deviations**2)


def outer(z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The product `(z, y, x)` of a vector along each axis."""
    return z[:, None, None] * y[:, None] * x


def _total_weight(starts: Sequence[int], weight: Tensor, size: int) -> Tensor:
    """Sum along an axis of the weights of all windows."""
    total = torch.zeros(size, device=weight.device)
    for start in starts:
        total[start : start + len(weight)] += weight
    return total


def advance(rows: Tensor, steps: int) -> None:
    """Move the rows `steps` towards the front, in place; zeros follow."""
    staying = rows.shape[1] - steps
    for channel in rows:  # the copy in between stays small
        channel[:staying] = channel[steps:].clone()
    rows[:, staying:] = 0
