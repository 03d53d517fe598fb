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

from trivox.inference.engines.engine import Engine, require_finite
from trivox.inference.engines.room import MEMORY, fits
from trivox.inference.logits.heads import Features, features_of
from trivox.inference.window_sums import HalfSums, SingleSums, Sums, advance
from trivox.learning.runtime import large_blocks_kept
from trivox.uploads import sent
from trivox.volumes.volume import Shape

BESIDE = 3
"""Copies of what lies on a GPU that are left room for: what is computed from it."""


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
    # divided first, as nnU-Net does: halves would be rounded otherwise
    step = room / steps
    # rounding may give a start twice, with slices (a patch of 1) in particular
    starts = {round(index * step) for index in range(steps + 1)}
    return sorted(starts)


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

    engines: compute one network each, all on one device; half: sum as nnU-Net does, in
    half precision.
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
    half: bool = False
    lean: bool = False
    """Whether a GPU holds the network alone, and the image and the sums stay in memory."""

    @property
    def device(self) -> torch.device:
        """Where the engines compute."""
        return self.engines[0].device

    @property
    def flips(self) -> list[tuple[int, ...]]:
        """Axes that each copy is mirrored along."""
        if self.only_flip is not None:
            return [self.only_flip]
        copies = mirrored(self.mirror_axes)
        if self.half:  # nnU-Net's order
            copies.sort(key=lambda flip: (len(flip), flip))
        return copies

    def votes(self) -> list["SlidingWindows"]:
        """Each network with each mirrored copy alone; the mean of their logits is what
        all of them together give.
        """
        return [
            replace(self, engines=[engine], only_flip=flip)
            for engine, flip in product(self.engines, self.flips)
        ]

    def place_for(self, shape: Sequence[int], *, copies: int) -> torch.device:
        """Where `copies` tensors of float32 that are computed with may lie: on the GPU,
        if they fit beside the network.
        """
        needed = 4 * copies * math.prod(shape)
        if not self.lean and fits(needed, self.device):
            return self.device
        return MEMORY

    def placed(self, image: Tensor) -> Tensor:
        """The image where windows are cut out of it: on the GPU if it fits beside the
        sums, so that it is sent there once and not window by window.
        """
        if image.device == self.device:
            return image
        depth, height, width = self._padded_shape(image.shape[1:])
        planes = image.shape[0] * depth + self.outputs * self.patch_size[0]
        place = self.place_for((planes, height, width), copies=BESIDE)
        return sent(image, place)

    @torch.inference_mode()
    def slabs(self, image: Tensor) -> Iterator[Slab]:
        """Slabs in order of z that together cover `image` `(c, z, y, x)` exactly once.

        image: in memory, or `placed` before where it is looked at several times. One
        buffer serves all of them (fresh memory of this size costs more than the
        sums): use or copy a slab before asking for the next. Raises `BundleError` where
        a network gives what is no number, on a GPU after the last slab.
        """
        image = self.placed(image)
        if self.half and len(self.engines) > 1:
            yield from self._network_by_network(image)
            return
        features = self._narrower()
        if features is not None:
            yield from self._by_features(features, image)
            return
        padded, before = pad_to(image, self.patch_size)
        size = padded.shape[1:]
        axes = zip(size, self.patch_size, strict=True)
        starts = [window_starts(voxels, patch, self.overlap) for voxels, patch in axes]
        sums = self._sums(size, starts)
        along_z, along_y, along_x = starts
        corners = list(product(along_y, along_x))
        ends = [*along_z[1:], size[0]]
        totals: list[Tensor] = []  # on a GPU, read once at the end
        for z, end in zip(along_z, ends, strict=True):
            layer = padded[:, z : z + self.patch_size[0]]
            self._add_windows(sums, layer, corners)
            done = sums.mean(z, end - z)
            if done.is_cuda:
                totals.append(done.sum(dtype=torch.float32))
            else:
                require_finite(done)
            slab = _unpad(Slab(z, done), before, image.shape[1:])
            if slab.logits.shape[1]:
                yield slab
            advance(sums.rows, end - z)
        if totals:
            require_finite(torch.stack(totals))

    @property
    def summed_channels(self) -> int:
        """Channels that are summed."""
        features = self._narrower()
        return self.outputs if features is None else features.weight.shape[1]

    def _narrower(self) -> Features | None:
        """What is summed in place of logits, where it has fewer channels."""
        return None if self.half else features_of(self.engines, self.outputs)

    def _by_features(self, features: Features, image: Tensor) -> Iterator[Slab]:
        """Slabs of few rows, made of slabs of features."""
        count = features.weight.shape[1]
        windows = replace(self, engines=[features], outputs=count)
        for slab in windows.slabs(image):
            start = slab.start
            for logits in features.rows(slab.logits):
                require_finite(logits)
                yield Slab(start, logits)
                start += logits.shape[1]

    def _padded_shape(self, size: Sequence[int]) -> Shape:
        """At least as large as a window."""
        pairs = zip(size, self.patch_size, strict=True)
        depth, height, width = (max(pair) for pair in pairs)
        return depth, height, width

    def _network_by_network(self, image: Tensor) -> Iterator[Slab]:
        """The mean of networks that are summed each for itself, in half precision."""
        alone = [replace(self, engines=[engine]) for engine in self.engines]
        streams = [windows.slabs(image) for windows in alone]
        for first, *others in zip(*streams, strict=True):
            total = first.logits.half()
            for other in others:
                logits = other.logits.half()
                total.add_(logits)
            total.div_(len(alone))
            yield Slab(first.start, total.float())

    def _sums(self, size: Sequence[int], starts: Sequence[Sequence[int]]) -> Sums:
        """What the windows of a volume of `size` are added to."""
        if self.half:
            rows = self._buffer(self.outputs + 1, size, torch.half)
            return HalfSums(rows, self.patch_size, len(self.flips))
        rows = self._buffer(self.outputs, size, torch.float32)
        copies = len(self.engines) * len(self.flips)
        return SingleSums(rows, self.patch_size, size, starts, copies)

    def _buffer(self, channels: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros `(channels, z, y, x)`, as deep as a patch."""
        shape = (channels, self.patch_size[0], *size[1:])
        place = self.place_for(shape, copies=BESIDE)
        return torch.zeros(shape, dtype=dtype, device=place)

    def _add_windows(
        self, sums: Sums, layer: Tensor, corners: Sequence[tuple[int, int]]
    ) -> None:
        """Add the weighted logits of all windows of a layer `(c, patch, y, x)`, whose
        first voxels in y and x are `corners`.
        """
        voxels = math.prod(self.patch_size) * len(self.flips)
        together = max(1, self._budget // voxels)
        for first in range(0, len(corners), together):
            part = corners[first : first + together]
            places = [self._place(corner) for corner in part]
            windows = [layer[:, :, *place] for place in places]
            with large_blocks_kept():
                logits = self._predict(torch.stack(windows)).to(sums.rows.device)
                for place, window in zip(places, logits, strict=True):
                    sums.add(window, place)

    def _place(self, corner: tuple[int, int]) -> tuple[slice, slice]:
        """Of a window in y and x, from its first voxel."""
        y, x = corner
        _, height, width = self.patch_size
        rows = slice(y, y + height)
        columns = slice(x, x + width)
        return rows, columns

    def _predict(self, patches: Tensor) -> Tensor:
        """Sum of the logits over networks and mirrored copies for `(n, c, z, y, x)`, as
        many copies at once as fit.
        """
        patches = sent(patches, self.device)
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


def _unpad(slab: Slab, before: Shape, size: Sequence[int]) -> Slab:
    """Cut the padding off a slab."""
    depth, height, width = size
    z, y, x = before
    stop = slab.start + slab.logits.shape[1]
    start = max(slab.start, z)
    end = min(stop, z + depth)
    first = max(start - slab.start, 0)
    last = max(end - slab.start, 0)
    logits = slab.logits[:, first:last]
    rows = slice(y, y + height)
    columns = slice(x, x + width)
    inside = logits[:, :, rows, columns]
    return Slab(start - z, inside)
