"""Resampling by small matrices, one an axis; the same trick blurs and simulates low
resolution.

Spline interpolation on a regular grid is a linear, separable operator. Applying scipy's
1-D operator to the unit vectors gives its matrix; three matrix products then resize a
volume exactly as scikit-image does (order 3, mode "edge"), at about a sixteenth of the
CPU time (`benchmarks/resampling.py`). Rows decay fast, so products run in bands.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trivox.volumes.volume import Shape

Corners = tuple[Tensor, Tensor, Tensor]
"""Lower neighbour, upper neighbour and the upper one's weight, for each new voxel along
an axis.
"""
BAND = 64
NEGLIGIBLE = 1e-7
"""Matrix entries below this are left out of the bands; far below float32 rounding of
the sum.
"""


@lru_cache(maxsize=64)
def spline_matrix(size: int, new_size: int, order: int = 3) -> Tensor:
    """The `(new_size, size)` float32 operator that resizes one axis by spline
    interpolation of `order` (0, 1 or 3).

    Voxel centres of the new grid sit at `(i + 0.5) * size / new_size - 0.5`; outside,
    the edge value continues.
    """
    if order == 3 and size > 1:
        from scipy import ndimage

        spline = ndimage.zoom(
            np.eye(size), (new_size / size, 1), order=3, mode="nearest", grid_mode=True
        )
        return torch.from_numpy(spline.astype(np.float32))
    if order == 0:
        at = nearest(size, new_size)
        return linear_matrix((at, at, torch.zeros(new_size)), size)
    return linear_matrix(neighbours(size, new_size), size)


def linear_matrix(corners: Corners, size: int) -> Tensor:
    """The `(new, size)` operator of linear interpolation between lower and upper
    neighbours.
    """
    low, high, weight = corners
    rows = torch.arange(len(low))
    matrix = torch.zeros(len(low), size)
    matrix.index_put_((rows, low), 1 - weight, accumulate=True)
    return matrix.index_put_((rows, high), weight, accumulate=True)


def positions(size: int, new_size: int) -> Tensor:
    """Centres of the new voxels in old voxel coordinates, float64, not clamped."""
    return (torch.arange(new_size, dtype=torch.float64) + 0.5) * (size / new_size) - 0.5


def nearest(size: int, new_size: int) -> Tensor:
    """Index of the old voxel nearest to each new one; halves go up, as in scipy
    (torch.round would go to even).
    """
    return torch.floor(positions(size, new_size) + 0.5).long().clamp(0, size - 1)


def neighbours(size: int, new_size: int) -> Corners:
    """For linear interpolation: lower index, upper index (both clamped) and the upper
    one's float32 weight.
    """
    return neighbours_of(positions(size, new_size), size)


def neighbours_of(centre: Tensor, size: int) -> Corners:
    """The same for any positions in voxels along an axis of `size`."""
    centre = centre.clamp(0, size - 1)
    low = torch.floor(centre).long()
    return low, (low + 1).clamp(max=size - 1), (centre - low).float()


def apply_along(array: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply axis `axis` (0, 1, 2 for z, y, x) of `(c, z, y, x)` by `(m, n)`, band by
    band, without moving axes.
    """
    matrix = matrix.to(array)
    new_size = matrix.shape[0]
    bands = [(start, min(start + BAND, new_size)) for start in range(0, new_size, BAND)]
    parts = []
    for start, stop in bands:
        rows = matrix[start:stop]
        used = torch.nonzero((rows.abs() > NEGLIGIBLE).any(0))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        parts.append(
            _multiply(
                array.narrow(axis + 1, first, last - first), rows[:, first:last], axis
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis + 1)


def _multiply(array: Tensor, matrix: Tensor, axis: int) -> Tensor:
    channels, depth, height, width = array.shape  # (c, z, y, x)
    if axis == 2:
        return array @ matrix.T
    if axis == 1:
        return matrix @ array
    product = matrix @ array.reshape(channels, depth, height * width)
    return product.reshape(channels, -1, height, width)


def resize_image(
    image: Tensor, shape: Shape, *, order: int = 3, nearest_axis: int | None = None
) -> Tensor:
    """Resize `(c, z, y, x)` float32 to `shape` by spline interpolation, clipped to each
    channel's old range.

    nearest_axis: a coarse axis (0, 1, 2) along which the nearest slice is taken
    instead, nnU-Net's rule for anisotropic scans. Equals
    `skimage.transform.resize(order=3, mode="edge", anti_aliasing=False)` to 3e-6.
    """
    sizes = image.shape[1:]
    changed = [axis for axis in range(3) if shape[axis] != sizes[axis]]
    if not changed:
        return image
    low, high = torch.aminmax(image.reshape(image.shape[0], -1), dim=1)
    if nearest_axis is not None and nearest_axis in changed:
        image = image.index_select(
            nearest_axis + 1,
            nearest(sizes[nearest_axis], shape[nearest_axis]).to(image.device),
        )
        changed.remove(nearest_axis)
    for axis in sorted(
        changed, key=lambda axis: shape[axis] / sizes[axis]
    ):  # shrink first, grow last
        image = apply_along(image, spline_matrix(sizes[axis], shape[axis], order), axis)
    return (
        image.clamp_(low[:, None, None, None], high[:, None, None, None])
        if changed and order == 3
        else image
    )


def resize_labels(
    labels: Tensor, shape: Shape, *, nearest_axis: int | None = None
) -> Tensor:
    """Resize an integer label map `(z, y, x)`: each new voxel takes the label with most
    linear weight around it.

    Equals the argmax of linearly resized one-hot maps except for exact ties; the cost
    does not depend on the number of labels, since only voxels whose eight neighbours
    disagree are voted on.
    """
    sizes = labels.shape
    if nearest_axis is not None and shape[nearest_axis] != sizes[nearest_axis]:
        labels = labels.index_select(
            nearest_axis, nearest(sizes[nearest_axis], shape[nearest_axis])
        )
    if tuple(labels.shape) == tuple(shape):
        return labels
    return resample_labels(
        labels,
        [neighbours(size, new) for size, new in zip(labels.shape, shape, strict=True)],
    )


def resample_labels(labels: Tensor, corners: Sequence[Corners]) -> Tensor:
    """The linear vote at new voxels that lie between the `corners` of each axis; see
    `resize_labels`.
    """
    result = gather(labels, [low for low, _, _ in corners])
    undecided = torch.nonzero(
        gather(mixed_cells(labels), [low for low, _, _ in corners])
    )  # (n, 3)
    for part in undecided.split(2**20):
        index, weight = corner_weights(part, corners, labels.shape)
        result[tuple(part.T)] = vote(labels.reshape(-1)[index], weight)
    return result


def gather(array: Tensor, index: Sequence[Tensor]) -> Tensor:
    """`array[z[:, None, None], y[:, None], x]` for `(z, y, x)`, one axis after the
    other.
    """
    for axis, along in enumerate(index):
        array = array.index_select(axis, along.to(array.device))
    return array


def mixed_cells(labels: Tensor) -> Tensor:
    """Whether the cell from voxel (z, y, x) to its upper neighbours (clamped at the
    border) holds several labels.
    """
    for axis, size in enumerate(labels.shape):
        labels = torch.cat([labels, labels.narrow(axis, size - 1, 1)], dim=axis)
    return mixed_inner_cells(labels)


def mixed_inner_cells(labels: Tensor) -> Tensor:
    """The same for the cells between voxels, one fewer than voxels along each axis."""
    low, high = labels, labels
    for axis, size in enumerate(
        labels.shape
    ):  # running minimum and maximum over the cell's corners
        low, high = (
            op(part.narrow(axis, 0, size - 1), part.narrow(axis, 1, size - 1))
            for op, part in ((torch.minimum, low), (torch.maximum, high))
        )
    return low != high


def corner_weights(
    voxels: Tensor, corners: Sequence[Corners], shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Flat indices and linear weights `(8, n)` of the corners round new voxels `(n,
    3)`; `corners` from `neighbours`.
    """
    stride = (shape[1] * shape[2], shape[2], 1)
    flat = [torch.zeros(1, dtype=torch.long, device=voxels.device)]
    weights = [torch.ones(1, device=voxels.device)]
    for axis, (low, high, upper) in enumerate(corners):
        at = voxels[:, axis]
        share = upper.to(voxels.device)[at]
        pair = [
            (low.to(voxels.device)[at], 1 - share),
            (high.to(voxels.device)[at], share),
        ]
        flat = [old + along * stride[axis] for old in flat for along, _ in pair]
        weights = [old * share for old in weights for _, share in pair]
    return torch.stack(flat), torch.stack(weights)


def vote(labels: Tensor, weight: Tensor) -> Tensor:
    """The label with the largest summed weight among the candidates `(k, n)`; ties go
    to the smallest label.
    """
    low, high = torch.aminmax(labels, dim=0)
    is_low = labels == low
    share = (weight * is_low).sum(0)
    best = torch.where(share >= weight.sum(0) - share, low, high)
    several = torch.nonzero(~(is_low | (labels == high)).all(0))[
        :, 0
    ]  # few voxels see more than two labels
    if len(several):
        best[several] = _vote_of_many(labels[:, several], weight[:, several])
    return best


def _vote_of_many(labels: Tensor, weight: Tensor) -> Tensor:
    best, best_weight = labels[0].clone(), torch.full_like(weight[0], -1)
    for candidate in labels:
        total = (weight * (labels == candidate)).sum(0)
        better = (total > best_weight) | ((total == best_weight) & (candidate < best))
        best, best_weight = (
            torch.where(better, candidate, best),
            torch.where(better, total, best_weight),
        )
    return best


def blur_matrix(size: int, sigma: Tensor | float) -> Tensor:
    """Gaussian blur of one axis as a `(size, size)` operator; sigma in voxels.

    Equals `scipy.ndimage.gaussian_filter1d` (truncate 4, mode "nearest").
    """
    reach = int(4 * float(sigma) + 0.5)
    taps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (taps / max(float(sigma), 1e-6)) ** 2)
    columns = (torch.arange(size)[:, None] + taps).clamp(0, size - 1)
    matrix = torch.zeros(size, size)
    return matrix.scatter_add_(
        1, columns, (weights / weights.sum()).expand(size, -1).contiguous()
    )


@lru_cache(maxsize=512)
def low_resolution_matrix(size: int, coarse: int) -> Tensor:
    """The `(size, size)` operator of sampling an axis at `coarse` points (nearest) and
    going back linearly.
    """
    taken = nearest(size, coarse)
    low, high, weight = neighbours(coarse, size)
    rows = torch.arange(size)
    matrix = torch.zeros(size, size)
    matrix.index_put_((rows, taken[low]), 1 - weight, accumulate=True)
    return matrix.index_put_((rows, taken[high]), weight, accumulate=True)
