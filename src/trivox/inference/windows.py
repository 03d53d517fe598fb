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

from trivox.learning.runtime import Runtime
from trivox.volumes.volume import Shape

SIGMA = 1 / 8
"""Standard deviation of the window weight as a share of the patch."""
WEIGHT_FLOOR = 1e-4
"""Smallest weight along one axis relative to its peak, so that no voxel divides by
almost nothing.
"""
VOXELS_A_BATCH = {"cpu": 2**18, "cuda": 2**23}
"""Patch voxels a forward pass.

On a CPU one window of 64^3 stays in its cache and takes 0.35 s, in a batch of two 0.52
s each (31 M parameters, bf16); a GPU wants to be kept busy.
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
    steps = math.ceil((size - patch) / (patch * (1 - overlap)))
    # rounding may give a start twice, with slices (a patch of 1) in particular
    return sorted({round(index * (size - patch) / steps) for index in range(steps + 1)})


def axis_weight(patch: int) -> Tensor:
    """Gaussian weight along one axis, peak 1 at voxel `patch // 2` as in nnU-Net, so
    that its models give its labels.
    """
    offset = torch.arange(patch, dtype=torch.float32) - patch // 2
    weight = torch.exp(-0.5 * (offset / (patch * SIGMA)) ** 2)
    return (weight / weight.max()).clamp(min=WEIGHT_FLOOR)


def mirrored(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All combinations of flipped axes, the unflipped first."""
    return [
        tuple(a for a, flip in zip(axes, flips, strict=True) if flip)
        for flips in product((0, 1), repeat=len(axes))
    ]


@dataclass(frozen=True)
class SlidingWindows:
    """Predicts with one or several networks of the same plan; their logits and those of
    mirrored copies are averaged.
    """

    networks: Sequence[nn.Module]
    patch_size: Shape
    outputs: int
    runtime: Runtime
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    voxels_a_batch: int | None = None
    only_flip: tuple[int, ...] | None = None
    """The one mirrored copy to predict from; None: all that `mirror_axes` allows."""

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
            replace(self, networks=[network], only_flip=flip)
            for network in self.networks
            for flip in self.flips
        ]

    @torch.inference_mode()
    def slabs(self, image: Tensor) -> Iterator[Slab]:
        """Slabs in order of z that together cover `image` `(c, z, y, x)` exactly once.

        One buffer serves all of them (fresh memory of this size costs more than the
        sums): use or copy a slab before asking for the next.
        """
        padded, before = pad_to(image, self.patch_size)
        starts = [
            window_starts(n, p, self.overlap)
            for n, p in zip(padded.shape[1:], self.patch_size, strict=True)
        ]
        depth, height, width = padded.shape[1:]
        device = self._accumulator(
            self.outputs * self.patch_size[0] * height * width * 4
        )
        weights = [axis_weight(p).to(device) for p in self.patch_size]
        totals = [
            _total_weight(s, w, n)
            for s, w, n in zip(starts, weights, padded.shape[1:], strict=True)
        ]
        window_weight = weights[0][:, None, None] * weights[1][:, None] * weights[2]
        window_weight /= len(self.networks) * len(
            self.flips
        )  # what was summed up becomes a mean
        rows = torch.zeros(
            self.outputs, self.patch_size[0], height, width, device=device
        )
        for index, z in enumerate(starts[0]):
            for part in self._batches(list(product(starts[1], starts[2]))):
                logits = self._predict(
                    torch.stack(
                        [padded[(slice(None), *self._box(z, y, x))] for y, x in part]
                    )
                ).to(device)
                for (y, x), window in zip(part, logits, strict=True):
                    place = rows[
                        :, :, y : y + self.patch_size[1], x : x + self.patch_size[2]
                    ]
                    place.addcmul_(window, window_weight)
            end = starts[0][index + 1] if index + 1 < len(starts[0]) else depth
            done = rows[:, : end - z].div_(
                totals[0][z:end, None, None] * totals[1][:, None] * totals[2]
            )
            slab = _unpad(Slab(z, done), before, image.shape[1:])
            if slab.logits.shape[1]:
                yield slab
            _advance(rows, end - z)

    def _accumulator(self, size: int) -> torch.device:
        """Where a slab of `size` bytes is summed up: on the GPU if three of them fit
        beside the network, else in memory.
        """
        device = self.runtime.device
        if device.type == "cuda" and 3 * size > torch.cuda.mem_get_info(device)[0]:
            return torch.device("cpu")
        return device

    def _box(self, *start: int) -> tuple[slice, ...]:
        return tuple(
            slice(s, s + p) for s, p in zip(start, self.patch_size, strict=True)
        )

    def _batches(
        self, windows: list[tuple[int, int]]
    ) -> Iterator[list[tuple[int, int]]]:
        size = max(1, self._budget // (math.prod(self.patch_size) * len(self.flips)))
        for start in range(0, len(windows), size):
            yield windows[start : start + size]

    def _predict(self, patches: Tensor) -> Tensor:
        """Sum of the logits over networks and mirrored copies for `(n, c, z, y, x)`, as
        many copies at once as fit.
        """
        patches = patches.to(self.runtime.device)
        together = max(1, self._budget // max(1, patches[:, 0].numel()))
        total: Tensor | None = None
        for start in range(0, len(self.flips), together):
            flips = self.flips[start : start + together]
            copies = torch.cat(
                [
                    patches.flip([axis + 2 for axis in flip]) if flip else patches
                    for flip in flips
                ]
            )
            for network in self.networks:
                with self.runtime.autocast():
                    logits = network(copies)
                for part, flip in zip(logits.chunk(len(flips)), flips, strict=True):
                    part = part.flip([axis + 2 for axis in flip]) if flip else part
                    total = part.float() if total is None else total.add_(part)
        assert total is not None
        return total

    @property
    def _budget(self) -> int:
        return self.voxels_a_batch or VOXELS_A_BATCH.get(
            self.runtime.device.type, 2**21
        )


def pad_to(image: Tensor, patch: Sequence[int]) -> tuple[Tensor, Shape]:
    """Zero-pad `(c, z, y, x)` on both sides to at least `patch`; also returns the
    voxels added in front.
    """
    missing = [max(0, p - n) for n, p in zip(image.shape[1:], patch, strict=True)]
    before = [m // 2 for m in missing]
    if any(missing):
        edges = [
            edge
            for m, b in zip(reversed(missing), reversed(before), strict=True)
            for edge in (b, m - b)
        ]
        image = nn.functional.pad(image, edges)
    return image, (before[0], before[1], before[2])


def _total_weight(starts: Sequence[int], weight: Tensor, size: int) -> Tensor:
    total = torch.zeros(size, device=weight.device)
    for start in starts:
        total[start : start + len(weight)] += weight
    return total


def _advance(rows: Tensor, steps: int) -> None:
    """Move the rows `steps` towards the front, in place; zeros follow."""
    kept = rows.shape[1] - steps
    for channel in rows:  # the copy in between stays small
        channel[:kept] = channel[steps:].clone()
    rows[:, kept:] = 0


def _unpad(slab: Slab, before: Shape, size: Sequence[int]) -> Slab:
    """Cut the padding off a slab."""
    first = max(slab.start, before[0])
    last = min(slab.start + slab.logits.shape[1], before[0] + size[0])
    rows = slab.logits[:, max(first - slab.start, 0) : max(last - slab.start, 0)]
    (y, x), (height, width) = before[1:], size[1:]
    return Slab(first - before[0], rows[:, :, y : y + height, x : x + width])
