"""What a network makes of one window of a case: its feature maps, and how each input
voxel moves the prediction.

Pure functions on tensors; positions are voxels `(z, y, x)` of the network's grid unless
they are called source voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from trivox.errors import DataError
from trivox.inference.windows import SlidingWindows, pad_to
from trivox.preparation.grid import GridRecord
from trivox.volumes.volume import Array, Shape

DEAD = 0.01
"""A channel is dead if it varies less than this share of the variation of its whole
stage.
"""


@dataclass(frozen=True, eq=False)
class Window:
    """What the network sees at once: `image` `(c, z, y, x)` of the plan's patch size.

    start: its first voxel in the image's grid, negative where padding stands in front;
    point: the voxel in question, counted from the window's first.
    """

    image: Tensor
    start: Shape
    point: Shape

    @property
    def voxel(self) -> Shape:
        """The voxel in question in the image's grid."""
        z, y, x = (s + p for s, p in zip(self.start, self.point, strict=True))
        return z, y, x


def grid_voxel(record: GridRecord, source: Shape, *, where: str) -> Shape:
    """The voxel of the network's grid at a source voxel (array index of the file);
    raises `DataError` outside.
    """
    shape = record.source.shape
    if not _is_inside(source, [(0, size) for size in shape]):
        raise DataError(
            f"{where}: point {source} (z y x) is not in the image of {shape} voxels; "
            "indices run from 0 to size - 1"
        )
    orientation = record.orientation
    canonical = []
    for axis, flip, size in zip(
        orientation.axes, orientation.flips, record.canonical_shape, strict=True
    ):
        index = source[axis]
        canonical.append(size - 1 - index if flip else index)
    if not _is_inside(canonical, record.box):
        raise DataError(
            f"{where}: point {source} (z y x) lies where the image is empty (all "
            "zero); choose another one"
        )
    inside = [canonical[axis] - record.box[axis][0] for axis in record.axis_order]
    z, y, x = (
        _rescaled(index, old, new)
        for index, old, new in zip(
            inside, record.cropped_shape, record.shape, strict=True
        )
    )
    return z, y, x


def source_voxel(record: GridRecord, voxel: Shape) -> Shape:
    """The source voxel at a voxel of the network's grid: the inverse of `grid_voxel` up
    to the coarser of both grids.
    """
    canonical = [0, 0, 0]
    for number, axis in enumerate(record.axis_order):
        new = record.cropped_shape[number]
        index = _rescaled(voxel[number], record.shape[number], new)
        canonical[axis] = record.box[axis][0] + index
    orientation = record.orientation
    source = [0, 0, 0]
    for number, axis in enumerate(orientation.axes):
        index = canonical[number]
        if orientation.flips[number]:
            index = record.canonical_shape[number] - 1 - index
        source[axis] = index
    z, y, x = source
    return z, y, x


def _is_inside(voxel: Sequence[int], box: Sequence[tuple[int, int]]) -> bool:
    """Whether a voxel lies in a box, whose ends lie behind its last voxel."""
    edges = zip(voxel, box, strict=True)
    return all(low <= index < high for index, (low, high) in edges)


def _rescaled(index: int, size: int, new_size: int) -> int:
    """The voxel that covers the centre of voxel `index` when an axis of `size` voxels
    gets `new_size`.
    """
    return min(new_size - 1, int((index + 0.5) * new_size / size))


def window_around(image: Tensor, patch: Shape, centre: Shape) -> Window:
    """The window of `patch` voxels around `centre`, moved inside `image` `(c, z, y, x)`
    where it would stick out.
    """
    padded, before = pad_to(image, patch)
    inside: list[slice] = []
    starts: list[int] = []
    points: list[int] = []
    for axis, size in enumerate(patch):
        at = centre[axis] + before[axis]
        last = padded.shape[axis + 1] - size
        start = min(max(0, at - size // 2), last)
        inside.append(slice(start, start + size))
        starts.append(start - before[axis])
        points.append(at - start)
    return Window(
        image=padded[(slice(None), *inside)],
        start=(starts[0], starts[1], starts[2]),
        point=(points[0], points[1], points[2]),
    )


def foreground(windows: SlidingWindows, image: Tensor, *, exclusive: bool) -> Tensor:
    """Where `image` `(c, z, y, x)` is predicted to be foreground, `(z, y, x)`, slab by
    slab.
    """
    parts = []
    for slab in windows.slabs(image):
        threshold = slab.logits[:1] if exclusive else 0
        labels = slab.logits[1:] if exclusive else slab.logits
        parts.append((labels > threshold).any(0).cpu())
    return torch.cat(parts)


def central_voxel(mask: Tensor) -> Shape | None:
    """The voxel of `mask` nearest to its centre of mass (which may lie outside of a
    bent or divided one).
    """
    voxels = mask.nonzero()
    if not len(voxels):
        return None
    distance = (voxels - voxels.float().mean(0)).square().sum(1)
    z, y, x = voxels[distance.argmin()].tolist()
    return z, y, x


def label_masks(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Where each output channel is predicted, `(outputs, z, y, x)`: the largest logit,
    or with regions any above 0.
    """
    if not exclusive:
        return logits > 0
    return nn.functional.one_hot(logits.argmax(0), len(logits)).movedim(-1, 0).bool()


@torch.no_grad()
def window_logits(network: nn.Module, window: Window) -> Tensor:
    """Logits `(outputs, z, y, x)` of a window, fp32."""
    logits: Tensor = network(window.image[None])[0]
    return logits.float()


@torch.no_grad()
def feature_maps(network: nn.Module, window: Window) -> list[Tensor]:
    """Feature maps `(c, z, y, x)` of the encoder's stages, finest first; none if the
    network does not show any.
    """
    encode = getattr(network, "encode", None)
    if encode is None:
        return []
    return [stage[0].float() for stage in encode(window.image[None])]


@dataclass(frozen=True, eq=False)
class Features:
    """Statistics of a feature map.

    mean, std: over voxels, for each channel; dead: share of channels that hardly vary.
    """

    mean: Array
    std: Array
    dead: float | None

    def strongest(self, count: int) -> list[int]:
        """The `count` channels that vary most, in falling order."""
        order = np.argsort(-self.std, kind="stable")
        return [int(channel) for channel in order[:count]]


def measure_features(features: Tensor) -> Features:
    """Statistics of `(c, z, y, x)`; `dead` is None for a map of one voxel, where
    nothing can vary.
    """
    flat = features.flatten(1)
    std = flat.std(1, correction=0)
    dead = None
    if flat.shape[1] > 1:
        still = std <= DEAD * flat.std(correction=0)
        dead = float(still.float().mean())
    return Features(flat.mean(1).cpu().numpy(), std.cpu().numpy(), dead)


def saliency(network: nn.Module, image: Tensor, chosen: Tensor) -> Tensor:
    """How much the summed logits at `chosen` change with each input voxel: |d sum / d
    image|, `(c, z, y, x)`.

    chosen: bool `(outputs, z, y, x)`. Simonyan et al. 2014. Unit: logits for one unit
    of normalised intensity.
    """
    image = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = network(image[None])[0][chosen].sum()
        (gradient,) = torch.autograd.grad(total, image)
    return gradient.abs().float()


def smoothed(values: Array, *, sigma: float = 1.0) -> Array:
    """`(z, y, x)` after a Gaussian of `sigma` voxels: single voxels of a gradient are
    noise (Smilkov et al. 2017).
    """
    return np.asarray(gaussian_filter(values, sigma, mode="nearest", truncate=3))


def mean_distance(
    weights: Array, point: Sequence[int], voxel_mm: Sequence[float]
) -> float | None:
    """Mean distance in mm from `point` of what `weights` `(z, y, x)` point at; None if
    all are zero.
    """
    total = float(weights.sum())
    if total <= 0:
        return None
    z, y, x = (
        ((np.arange(voxels) - at) * size) ** 2
        for voxels, at, size in zip(weights.shape, point, voxel_mm, strict=True)
    )
    distance = np.sqrt(z[:, None, None] + y[:, None] + x)
    return float((weights * distance).sum() / total)
