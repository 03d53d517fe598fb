"""Sliding windows that give finished slabs of logits along z; nothing of the size
classes x volume is ever held.

Window positions are nnU-Net's: as few as the overlap allows, spread evenly. Their
Gaussian weights are separable and the windows form a product grid, so the sum of
weights is an outer product of three vectors and needs no map.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from trivox.inference.engines.engine import Engine
from trivox.learning.microbatch import available_memory
from trivox.volumes.volume import Shape

SIGMA = 1 / 8
"""Standard deviation of the window weight as a share of the patch."""
WEIGHT_FLOOR = 1e-4
"""Smallest weight along one axis relative to its peak, so that no voxel divides by
almost nothing.
"""


@dataclass(frozen=True, eq=False)
class Slab:
    """Logits `(c, z, y, x)` float32 of rows `start` to `start + z` of the network's
    grid, valid until the next slab.
    """

    start: int
    logits: Tensor


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows that cover an axis of `size` voxels, evenly spread."""
    if size <= patch:
        return [0]
    room = size - patch
    steps = math.ceil(room / (patch * (1 - overlap)))
    # rounding may give a start twice, with slices (a patch of 1) in particular
    starts = {round(index * room / steps) for index in range(steps + 1)}
    return sorted(starts)


def axis_weight(patch: int) -> Tensor:
    """Gaussian weight along one axis, peak 1 at voxel `patch // 2` as in nnU-Net, so
    that its models give its labels.
    """
    offset = torch.arange(patch, dtype=torch.float32) - patch // 2
    deviations = offset / (patch * SIGMA)
    weight = torch.exp(-0.5 * deviations**2)
    return (weight / weight.max()).clamp(min=WEIGHT_FLOOR)


def mirrored(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All combinations of flipped axes, the unflipped first."""
    copies = []
    for flips in product((False, True), repeat=len(axes)):
        chosen = zip(axes, flips, strict=True)
        copies.append(tuple(axis for axis, flip in chosen if flip))
    return copies


@dataclass(frozen=True)
class SlidingWindows:
    """Predicts with one or several networks of the same plan; their logits and those of
    mirrored copies are averaged.

    engines: compute one network each, all on one device.
    """

    engines: Sequence[Engine]
    patch_size: Shape
    outputs: int
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    voxels_a_batch: int | None = None
    """Patch voxels computed at once; None: as the engines want it."""
    only_flip: tuple[int, ...] | None = None
    """The one mirrored copy to predict from; None: all that `mirror_axes` allows."""

    @property
    def device(self) -> torch.device:
        """Where the engines compute."""
        return self.engines[0].device

    @property
    def flips(self) -> list[tuple[int, ...]]:
        """Axes that each copy is mirrored along."""
        return (
            mirrored(self.mirror_axes) if self.only_flip is None else [self.only_flip]
        )

    def votes(self) -> list["SlidingWindows"]:
        """Each network with each mirrored copy alone; the mean of their logits is what
        all of them together give.
        """
        return [
            replace(self, engines=[engine], only_flip=flip)
            for engine, flip in product(self.engines, self.flips)
        ]

    @torch.inference_mode()
    def slabs(self, image: Tensor) -> Iterator[Slab]:
        """Slabs in order of z that together cover `image` `(c, z, y, x)` exactly once.

        One buffer serves all of them (fresh memory of this size costs more than the
        sums): use or copy a slab before asking for the next.
        """
        padded, before = pad_to(image, self.patch_size)
        size = padded.shape[1:]
        rows = self._buffer(size)
        starts: list[list[int]] = []
        weights: list[Tensor] = []
        totals: list[Tensor] = []
        for voxels, patch in zip(size, self.patch_size, strict=True):
            places = window_starts(voxels, patch, self.overlap)
            weight = axis_weight(patch).to(rows.device)
            starts.append(places)
            weights.append(weight)
            totals.append(_total_weight(places, weight, voxels))
        window_weight = _outer(*weights)
        # what is summed up becomes a mean
        window_weight /= len(self.engines) * len(self.flips)
        along_z, along_y, along_x = starts
        corners = list(product(along_y, along_x))
        ends = [*along_z[1:], size[0]]
        for z, end in zip(along_z, ends, strict=True):
            layer = padded[:, z : z + self.patch_size[0]]
            self._add_windows(rows, layer, corners, window_weight)
            total = _outer(totals[0][z:end], *totals[1:])
            done = rows[:, : end - z].div_(total)
            slab = _unpad(Slab(z, done), before, image.shape[1:])
            if slab.logits.shape[1]:
                yield slab
            _advance(rows, end - z)

    def _buffer(self, size: Sequence[int]) -> Tensor:
        """Zeros `(outputs, z, y, x)`, as deep as a patch: on the GPU if three of them
        fit beside the network, else in memory.
        """
        shape = (self.outputs, self.patch_size[0], *size[1:])
        device = self.device
        needed = 3 * 4 * math.prod(shape)
        if device.type == "cuda" and needed > available_memory(device):
            device = torch.device("cpu")
        return torch.zeros(shape, device=device)

    def _add_windows(
        self,
        rows: Tensor,
        layer: Tensor,
        corners: Sequence[tuple[int, int]],
        weight: Tensor,
    ) -> None:
        """Add the weighted logits of all windows of a layer `(c, patch, y, x)`, whose
        first voxels in y and x are `corners`.
        """
        voxels = math.prod(self.patch_size) * len(self.flips)
        together = max(1, self._budget // voxels)
        for first in range(0, len(corners), together):
            part = corners[first : first + together]
            windows = [self._window_of(layer, corner) for corner in part]
            logits = self._predict(torch.stack(windows)).to(rows.device)
            for corner, window in zip(part, logits, strict=True):
                place = self._window_of(rows, corner)
                place.addcmul_(window, weight)

    def _window_of(self, layer: Tensor, corner: tuple[int, int]) -> Tensor:
        """The window of a layer `(c, patch, y, x)` at its first voxel in y and x."""
        y, x = corner
        _, height, width = self.patch_size
        return layer[:, :, y : y + height, x : x + width]

    def _predict(self, patches: Tensor) -> Tensor:
        """Sum of the logits over networks and mirrored copies for `(n, c, z, y, x)`, as
        many copies at once as fit.
        """
        patches = patches.to(self.device)
        voxels = patches[:, 0].numel()
        together = max(1, self._budget // max(1, voxels))
        total: Tensor | None = None
        for start in range(0, len(self.flips), together):
            flips = self.flips[start : start + together]
            copies = torch.cat([_flipped(patches, flip) for flip in flips])
            for engine in self.engines:
                logits = engine.logits(copies)
                parts = logits.chunk(len(flips))
                for part, flip in zip(parts, flips, strict=True):
                    part = _flipped(part, flip)
                    total = part.float() if total is None else total.add_(part)
        assert total is not None
        return total

    @property
    def _budget(self) -> int:
        return self.voxels_a_batch or self.engines[0].voxels_a_batch


def pad_to(image: Tensor, patch: Sequence[int]) -> tuple[Tensor, Shape]:
    """Zero-pad `(c, z, y, x)` on both sides to at least `patch`; also returns the
    voxels added in front.
    """
    front: list[int] = []
    edges: list[int] = []  # as torch wants them: the last axis first
    for voxels, wanted in zip(image.shape[1:], patch, strict=True):
        missing = max(0, wanted - voxels)
        before = missing // 2
        front.append(before)
        edges = [before, missing - before, *edges]
    if any(edges):
        image = nn.functional.pad(image, edges)
    z, y, x = front
    return image, (z, y, x)


def _flipped(patches: Tensor, axes: Sequence[int]) -> Tensor:
    """Patches `(n, c, z, y, x)` mirrored along axes of the volume."""
    if not axes:
        return patches
    return patches.flip([axis + 2 for axis in axes])


def _outer(z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The product `(z, y, x)` of a vector along each axis."""
    return z[:, None, None] * y[:, None] * x


def _total_weight(starts: Sequence[int], weight: Tensor, size: int) -> Tensor:
    """Sum along an axis of the weights of all windows."""
    total = torch.zeros(size, device=weight.device)
    for start in starts:
        total[start : start + len(weight)] += weight
    return total


def _advance(rows: Tensor, steps: int) -> None:
    """Move the rows `steps` towards the front, in place; zeros follow."""
    staying = rows.shape[1] - steps
    for channel in rows:  # the copy in between stays small
        channel[:staying] = channel[steps:].clone()
    rows[:, staying:] = 0


def _unpad(slab: Slab, before: Shape, size: Sequence[int]) -> Slab:
    """Cut the padding off a slab."""
    depth, height, width = size
    z, y, x = before
    start = max(slab.start, z)
    end = min(slab.start + slab.logits.shape[1], z + depth)
    first = max(start - slab.start, 0)
    last = max(end - slab.start, 0)
    inside = slab.logits[:, first:last, y : y + height, x : x + width]
    return Slab(start - z, inside)
