"""From logits on the network's grid to labels on the source's voxels, slab by slab.

Where all eight surrounding voxels agree on the winning class, linear interpolation
cannot change it, so the label is copied. Only the voxels at boundaries interpolate
logits, and only of the classes that win at one of their corners. Another class can win
there only if the interpolated runner-up values exceed the best of those; these few
voxels interpolate all classes. So the labels are exactly the argmax of all interpolated
logits, at a cost that hardly grows with the number of classes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from trivox.inference.engines.room import MEMORY, fits
from trivox.inference.logits.labels import largest
from trivox.inference.windows import BESIDE, Slab
from trivox.uploads import sent
from trivox.volumes.resampling import (
    Corners,
    corner_weights,
    gather,
    mixed_cells,
    nearest,
    neighbours,
)
from trivox.volumes.volume import Array, Shape

TIE = 1e-5
"""Rounding of interpolated logits: what is that close is computed for all classes."""
HALF_STEP = 2**-10
"""Twice the relative rounding of half precision."""
Rounding = Callable[[Tensor], Tensor]
"""What becomes of interpolated logits."""
Painting = Callable[[Array], Array]
"""Label indices `(z, y, x)` of regions `(region, z, y, x)`."""
VALUES_A_CHUNK = 2**26
"""Restored logits at a time on a GPU, unless a CPU would take more."""


@dataclass(frozen=True)
class Portions:
    """How much is done at a time: chunk: restored voxels, which bounds the extra memory;
    boundary: voxels between classes; hard: those that look at every class.
    """

    chunk: int
    boundary: int
    hard: int


IN_CACHE = Portions(2**20, 2**14, 2**12)
"""On a CPU."""
ON_A_GPU = Portions(2**23, 2**20, 2**17)
"""Each portion waits for it."""


class Sampler(Protocol):
    """Looks at labels as they are restored and asks for the logits of some voxels."""

    def choose(self, start: int, labels: Tensor) -> Tensor:
        """Voxels `(n, 3)`, counted from row `start`, of restored rows: labels `(z, y,
        x)` or regions `(c, z, y, x)`.
        """
        ...

    def keep(self, logits: Tensor) -> None:
        """Logits `(c, n)` of the voxels that were chosen last."""
        ...


def axis_corners(size: int, new_size: int, *, by_nearest: bool) -> Corners:
    """Lower and upper neighbour and the upper weight; the nearest slice alone along an
    axis that is not interpolated.
    """
    if by_nearest:
        at = nearest(size, new_size)
        return at, at, torch.zeros(new_size)
    return neighbours(size, new_size)


def restore_labels(
    logits: Tensor, shape: Shape, *, nearest_axis: int | None = None
) -> Tensor:
    """Class indices (int16) of `(c, z, y, x)` logits resized linearly to `shape`."""
    size = tuple(logits.shape[1:])
    return restore([Slab(0, logits)], size, shape, nearest_axis=nearest_axis)


def restore(
    slabs: Iterable[Slab],
    size: Sequence[int],
    shape: Shape,
    *,
    nearest_axis: int | None = None,
    exclusive: bool = True,
    sampler: Sampler | None = None,
    half: bool = False,
    paint: Painting | None = None,
) -> Tensor:
    """Labels of size `shape` from slabs of a grid of `size`.

    exclusive: int16 `(z, y, x)` class indices; otherwise bool `(region, z, y, x)`, true
    where the logit is above 0. sampler: is shown the labels of each chunk of rows, and
    given the logits of the voxels that it chooses. half: interpolated logits are
    rounded to half precision before they are compared, as in nnU-Net, where the first
    of two equal classes wins. paint: makes label indices of regions, which are returned
    in place of them.
    """
    chunks = _row_chunks(slabs, size, shape, nearest_axis, whole=not exclusive)
    whole: Tensor | None = None
    start = 0
    for rows, part in chunks:
        if exclusive:
            labels = _winning_class(rows, part, half=half)
        else:
            labels = _interpolate(rows, part) > 0
        if sampler is not None:
            voxels = sent(sampler.choose(start, labels), rows.device)
            sampler.keep(_at_voxels(rows, part, voxels))
        if paint is not None and not labels.is_cuda:
            labels = torch.from_numpy(paint(labels.numpy()))
        if whole is None:
            whole = _room_for_all(labels, shape)
        count = len(part[0][0])
        whole.narrow(-3, start, count).copy_(labels)
        start += count
    assert whole is not None
    if paint is not None and whole.ndim == 4:
        return torch.from_numpy(paint(whole.cpu().numpy()))
    return whole.cpu()


def _room_for_all(labels: Tensor, shape: Shape) -> Tensor:
    """Where the labels of some rows wait for the others: on the GPU if all of them fit,
    so that they are fetched at once.
    """
    size = (*labels.shape[:-3], *shape)
    needed = math.prod(size) * labels.itemsize
    place = labels.device if fits(BESIDE * needed, labels.device) else MEMORY
    return torch.empty(size, dtype=labels.dtype, device=place)


def restored_logits(
    slabs: Iterable[Slab],
    size: Sequence[int],
    shape: Shape,
    *,
    nearest_axis: int | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """First row and logits `(c, rows, y, x)` of all channels, interpolated to size
    `shape`, a few rows at a time.
    """
    start = 0
    for rows, part in _row_chunks(slabs, size, shape, nearest_axis, whole=True):
        yield start, _interpolate(rows, part)
        start += len(part[0][0])


@lru_cache(maxsize=16)
def _corners(
    size: tuple[int, ...],
    shape: tuple[int, ...],
    nearest_axis: int | None,
    device: torch.device,
) -> list[Corners]:
    """The corners along each axis, sent to a device once for all slabs and votes."""
    tables: list[Corners] = []
    for axis, (old, new) in enumerate(zip(size, shape, strict=True)):
        low, high, weight = axis_corners(old, new, by_nearest=axis == nearest_axis)
        tables.append((sent(low, device), sent(high, device), sent(weight, device)))
    return tables


def _portions(device: torch.device) -> Portions:
    return ON_A_GPU if device.type == "cuda" else IN_CACHE


def _at_voxels(logits: Tensor, corners: list[Corners], voxels: Tensor) -> Tensor:
    """Linear interpolation of all channels at new voxels `(n, 3)`: `(c, n)` float32."""
    index, weight = corner_weights(voxels, corners, logits.shape[1:])
    flat = logits.reshape(logits.shape[0], -1)
    total = torch.zeros(logits.shape[0], len(voxels), device=logits.device)
    for corner, share in zip(index, weight, strict=True):
        total += flat[:, corner] * share
    return total


def _row_chunks(
    slabs: Iterable[Slab],
    size: Sequence[int],
    shape: Shape,
    nearest_axis: int | None,
    *,
    whole: bool = False,
) -> Iterable[tuple[Tensor, list[Corners]]]:
    """Pair new rows with the old rows that they lie between, as soon as a slab brings
    them; whole: so few that their logits of all channels fit.
    """
    low, high, _ = axis_corners(size[0], shape[0], by_nearest=nearest_axis == 0)
    # copied rows in front of the slab that the next new rows need as well
    held = Slab(0, torch.empty(0))
    done = 0
    for slab in slabs:
        device = slab.logits.device
        along, *across = _corners(tuple(size), tuple(shape), nearest_axis, device)
        channels = len(slab.logits) if whole else 1
        step = _rows_a_chunk(shape, channels, device)
        end = slab.start + slab.logits.shape[1]
        ready = int((high < end).sum())
        while done < ready:
            stop = min(done + step, ready)
            first = int(low[done:stop].min())
            last = int(high[done:stop].max()) + 1
            part = _part(along, slice(done, stop), first)
            yield _rows(held, slab, first, last), [part, *across]
            done = stop
        keep = min(int(low[done]), end) if done < len(low) else end
        held = Slab(keep, _rows(held, slab, keep, end).clone())


def _rows_a_chunk(shape: Shape, channels: int, device: torch.device) -> int:
    """New rows at a time; of logits of several channels not more than on a CPU, unless
    these are few.
    """
    voxels = _portions(device).chunk
    if channels > 1:
        voxels = min(voxels, max(IN_CACHE.chunk, VALUES_A_CHUNK // channels))
    return max(1, voxels // (shape[1] * shape[2]))


def _part(along: Corners, rows: slice, first: int) -> Corners:
    """The corners of some new rows, counted from the first old row that they need."""
    low, high, weight = along
    return low[rows] - first, high[rows] - first, weight[rows]


def _rows(held: Slab, slab: Slab, first: int, last: int) -> Tensor:
    """Rows `first` to `last` from the slab and, where they begin before it, from what
    was held.
    """
    there = slab.logits[:, max(first - slab.start, 0) : max(last - slab.start, 0)]
    if first >= slab.start:
        return there
    before = held.logits[:, first - held.start : last - held.start]
    return torch.cat([before, there], dim=1)


@torch.inference_mode()
def _winning_class(
    logits: Tensor, corners: list[Corners], *, half: bool = False
) -> Tensor:
    """Class indices of the new voxels that `corners` describe; see the module."""
    rounded = _to_half if half else _unchanged
    highest, winners = largest(logits)
    lows = [low for low, _, _ in corners]
    result = gather(winners, lows)
    boundary = torch.nonzero(gather(mixed_cells(winners), lows))  # (n, 3)
    flat_logits = logits.reshape(logits.shape[0], -1)
    flat_winners = winners.reshape(-1)
    second = None
    if len(logits) > 2 and len(boundary):
        second = _runners_up(logits, winners.long(), highest).reshape(-1)
    portions = _portions(logits.device)
    for voxels in boundary.split(portions.boundary):
        index, weight = corner_weights(voxels, corners, winners.shape)  # (8, n)
        candidates = flat_winners[index].long()
        best, value = _best_candidate(flat_logits, candidates, index, weight, rounded)
        if second is not None:
            # a class that wins at no corner has there at most the second largest logit
            others = (second[index] * weight).sum(0)
            near = TIE + HALF_STEP * value.abs() if half else TIE
            undecided = torch.nonzero(others >= value - near)[:, 0]
            best[undecided] = _best_of_all(
                flat_logits, index[:, undecided], weight[:, undecided], rounded
            )
        result[tuple(voxels.T)] = best.to(torch.int16)
    return result


def _runners_up(logits: Tensor, winners: Tensor, highest: Tensor) -> Tensor:
    """The second largest logit of each voxel; the winners are covered for a moment, not
    copied around.
    """
    logits.scatter_(0, winners[None], float("-inf"))
    second = logits.amax(0)
    logits.scatter_(0, winners[None], highest[None])
    return second


def _unchanged(values: Tensor) -> Tensor:
    return values


def _to_half(values: Tensor) -> Tensor:
    return values.half().float()


def _best_of_all(
    logits: Tensor, index: Tensor, weight: Tensor, rounded: Rounding
) -> Tensor:
    """The class with the largest interpolated logit of all, the smaller class where two
    are equal.
    """
    parts = []
    few = _portions(logits.device).hard
    chunks = zip(index.split(few, 1), weight.split(few, 1), strict=True)
    for corner, share in chunks:
        total = torch.zeros(len(logits), corner.shape[1], device=logits.device)
        for at, part in zip(corner, share, strict=True):
            total += logits[:, at] * part
        parts.append(largest(rounded(total))[1].long())
    return torch.cat(parts) if parts else index.new_zeros(0)


def _best_candidate(
    logits: Tensor,
    candidates: Tensor,
    index: Tensor,
    weight: Tensor,
    rounded: Rounding,
) -> tuple[Tensor, Tensor]:
    """The corner winner with the largest interpolated logit, and that; `(8, n)`
    candidates, corner indices and weights.
    """
    first = candidates[0]
    other = candidates.max(0).values
    other = torch.where(other == first, candidates.min(0).values, other)
    value = rounded(_interpolated(logits, first, index, weight))
    other_value = rounded(_interpolated(logits, other, index, weight))
    # ties go to the smaller class, as with an argmax over all of them
    better = (other_value > value) | ((other_value == value) & (other < first))
    best = torch.where(better, other, first)
    value = torch.maximum(value, other_value)
    two = ((candidates == first) | (candidates == other)).all(0)
    many = torch.nonzero(~two)[:, 0]
    if len(many):
        most = value[many]
        chosen = best[many]
        corner = index[:, many]
        share = weight[:, many]
        for candidate in candidates[1:, many]:
            score = rounded(_interpolated(logits, candidate, corner, share))
            better = (score > most) | ((score == most) & (candidate < chosen))
            chosen = torch.where(better, candidate, chosen)
            most = torch.maximum(score, most)
        best[many] = chosen
        value[many] = most
    return best, value


def _interpolated(
    logits: Tensor, classes: Tensor, index: Tensor, weight: Tensor
) -> Tensor:
    """Linear interpolation at `(n,)` voxels of one class each."""
    # a slab's rows are not contiguous over classes, and a copy of them would be large
    stride = logits.stride(0)
    length = (logits.shape[0] - 1) * stride + logits.shape[1]
    flat = logits.as_strided((length,), (1,))
    offset = classes * stride
    total = torch.zeros_like(weight[0])
    for corner, share in zip(index, weight, strict=True):
        total += flat[offset + corner] * share
    return total


def _interpolate(logits: Tensor, corners: list[Corners]) -> Tensor:
    """Linear interpolation of all channels."""
    for axis, (low, high, weight) in enumerate(corners, start=1):
        lower = logits.index_select(axis, low)
        upper = logits.index_select(axis, high)
        shape = [1] * 4
        shape[axis] = -1
        share = weight.reshape(shape)
        logits = torch.lerp(lower, upper, share)
    return logits
