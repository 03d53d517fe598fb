"""Resampling by small matrices, one an axis; the same trick blurs and simulates low
resolution (`trivox.volumes.blurring`).

Spline interpolation on a regular grid is a linear, separable operator. Applying scipy's
1-D operator to the unit vectors gives its matrix; three matrix products then resize a
volume exactly as scikit-image does (order 3, mode "edge"), at about a sixteenth of the
CPU time (`benchmarks/resampling.py`). Rows decay fast, so products run in bands.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from trivox.volumes.volume import Order, Shape, Ties

Corners = tuple[Tensor, Tensor, Tensor]
"""Lower neighbour, upper neighbour and the upper one's weight, for each new voxel along
an axis.
"""
BAND = 64
"""Rows of a matrix that are multiplied at once."""
NEGLIGIBLE = 1e-7
"""Matrix entries below this are left out of the bands; far below float32 rounding of
the sum.
"""


@lru_cache(maxsize=64)
def spline_matrix(size: int, new_size: int, order: Order = 3) -> Tensor:
    """The `(new_size, size)` float32 operator that resizes one axis by spline
    interpolation of `order` (0 to 5).

    Voxel centres of the new grid sit at `(i + 0.5) * size / new_size - 0.5`; outside,
    the edge value continues.
    """
    if order > 1 and size > 1:
        zoom = (new_size / size, 1)
        spline = ndimage.zoom(
            np.eye(size), zoom, order=order, mode="nearest", grid_mode=True
        )
        return torch.from_numpy(spline.astype(np.float32))
    if order == 0:
        at = nearest(size, new_size)
        nothing = torch.zeros(new_size)
        return linear_matrix((at, at, nothing), size)
    return linear_matrix(neighbours(size, new_size), size)


def linear_matrix(corners: Corners, size: int) -> Tensor:
    """The `(new, size)` operator of linear interpolation between lower and upper
    neighbours.
    """
    low, high, weight = corners
    rows = torch.arange(len(low))
    matrix = torch.zeros(len(low), size)
    matrix.index_put_((rows, low), 1 - weight, accumulate=True)
    matrix.index_put_((rows, high), weight, accumulate=True)
    return matrix


def positions(size: int, new_size: int) -> Tensor:
    """Centres of the new voxels in old voxel coordinates, float64, not clamped."""
    new = torch.arange(new_size, dtype=torch.float64)
    return (new + 0.5) * (size / new_size) - 0.5


def nearest(size: int, new_size: int) -> Tensor:
    """Index of the old voxel nearest to each new one; halves go up, as in scipy
    (torch.round would go to even).
    """
    centres = positions(size, new_size)
    rounded = torch.floor(centres + 0.5)
    return rounded.long().clamp(0, size - 1)


def neighbours(size: int, new_size: int) -> Corners:
    """For linear interpolation: lower index, upper index (both clamped) and the upper
    one's float32 weight.
    """
    centres = positions(size, new_size)
    return neighbours_of(centres, size)


def neighbours_of(
    centre: Tensor, size: int, dtype: torch.dtype = torch.float32
) -> Corners:
    """The same for any positions in voxels along an axis of `size`."""
    centre = centre.clamp(0, size - 1)
    floor = torch.floor(centre)
    low = floor.long()
    high = (low + 1).clamp(max=size - 1)
    return low, high, (centre - low).to(dtype)


def apply_along(array: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply axis `axis` (0, 1, 2 for z, y, x) of `(c, z, y, x)` by `(m, n)`, band by
    band, without moving axes.
    """
    # found where the matrix was made: a GPU would be waited for
    bands = bands_of(matrix)
    if array.is_cuda and not matrix.is_cuda:
        matrix = matrix.pin_memory()
    matrix = matrix.to(array, non_blocking=True)
    parts = []
    for (_, first, end), rows in zip(bands, matrix.split(BAND), strict=True):
        source = array.narrow(axis + 1, first, end - first)
        product = multiply(source, rows[:, first:end], axis)
        parts.append(product)
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts, dim=axis + 1)


def bands_of(matrix: Tensor) -> list[tuple[Tensor, int, int]]:
    """Some rows of `(m, n)` each, cut to the columns that count: from one to another."""
    bands: list[tuple[Tensor, int, int]] = []
    for rows in matrix.split(BAND):
        counts = rows.abs() > NEGLIGIBLE
        used = torch.nonzero(counts.any(0))
        first = int(used[0]) if len(used) else 0
        end = int(used[-1]) + 1 if len(used) else 1
        bands.append((rows[:, first:end], first, end))
    return bands


def multiply(array: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Axis `axis` of `(c, z, y, x)` times all of a matrix."""
    channels, depth, height, width = array.shape  # (c, z, y, x)
    if axis == 2:
        return array @ matrix.T
    if axis == 1:
        return matrix @ array
    planes = array.reshape(channels, depth, height * width)
    product = matrix @ planes
    return product.reshape(channels, -1, height, width)


def resize_image(
    image: Tensor, shape: Shape, *, order: Order = 3, nearest_axis: int | None = None
) -> Tensor:
    """Resize `(c, z, y, x)` float32 to `shape` by spline interpolation, clipped to each
    channel's old range.

    nearest_axis: a coarse axis (0, 1, 2) along which the nearest slice is taken
    instead, nnU-Net's rule for anisotropic scans. Equals
    `skimage.transform.resize(order=3, mode="edge", anti_aliasing=False)` to 3e-6.
    """
    sizes = image.shape[1:]
    changed = shrinking_first(sizes, shape)
    if not changed:
        return image
    low, high = torch.aminmax(image.flatten(1), dim=1)
    if nearest_axis is not None and nearest_axis in changed:
        slices = nearest(sizes[nearest_axis], shape[nearest_axis])
        slices = slices.to(image.device)
        image = image.index_select(nearest_axis + 1, slices)
        changed.remove(nearest_axis)
    for axis in changed:
        matrix = spline_matrix(sizes[axis], shape[axis], order)
        image = apply_along(image, matrix, axis)
    if not changed or order < 2:
        return image
    low = low[:, None, None, None]
    high = high[:, None, None, None]
    return image.clamp_(low, high)


def shrinking_first(sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    """The axes whose size changes, those that grow last."""
    changed = [axis for axis in range(3) if shape[axis] != sizes[axis]]
    return sorted(changed, key=lambda axis: shape[axis] / sizes[axis])


def resize_slices(
    image: Tensor, shape: Shape, *, axis: int, order: Order = 3, order_across: Order = 0
) -> Tensor:
    """Resize `(c, z, y, x)` float32 to `shape` slice by slice, each clipped to its own
    range, then along `axis` by splines of `order_across`: what nnU-Net does with
    anisotropic scans.
    """
    sizes = image.shape[1:]
    plane = [other for other in range(3) if other != axis]
    slices = [other + 1 for other in plane]
    low = image.amin(slices, keepdim=True)
    high = image.amax(slices, keepdim=True)
    for other in plane:
        if shape[other] != sizes[other]:
            matrix = spline_matrix(sizes[other], shape[other], order)
            image = apply_along(image, matrix, other)
    image = image.clamp(low, high)
    if shape[axis] == sizes[axis]:
        return image
    if order_across == 0:
        taken = nearest(sizes[axis], shape[axis])
        taken = taken.to(image.device)
        return image.index_select(axis + 1, taken)
    matrix = spline_matrix(sizes[axis], shape[axis], order_across)
    return apply_along(image, matrix, axis)


def resize_labels(
    labels: Tensor,
    shape: Shape,
    *,
    nearest_axis: int | None = None,
    ties: Ties = "smallest",
) -> Tensor:
    """Resize an integer label map `(z, y, x)`: each new voxel takes the label with most
    linear weight around it.

    ties: which of two labels of equal weight wins, see `Ties`. Equals the argmax of
    linearly resized one-hot maps except for exact ties; the cost does not depend on the
    number of labels, since only voxels whose eight neighbours disagree are voted on.
    """
    sizes = labels.shape
    if nearest_axis is not None and shape[nearest_axis] != sizes[nearest_axis]:
        slices = nearest(sizes[nearest_axis], shape[nearest_axis])
        labels = labels.index_select(nearest_axis, slices)
    if tuple(labels.shape) == tuple(shape):
        return labels
    axes = list(zip(labels.shape, shape, strict=True))
    corners = [neighbours(size, new) for size, new in axes]
    resized = resample_labels(labels, corners)
    if ties != "smallest":
        closest = gather(labels, [nearest(size, new) for size, new in axes])
        _settle_ties(resized, labels, closest, ties)
    return resized


def _settle_ties(resized: Tensor, labels: Tensor, closest: Tensor, ties: Ties) -> None:
    """Vote again, in place, wherever several labels meet, with the sums of nnU-Net's
    functions: in double precision, summed in scipy's order, or in half precision.
    """
    axes = zip(labels.shape, resized.shape, strict=True)
    corners = [
        neighbours_of(positions(size, new), size, torch.float64) for size, new in axes
    ]
    mixed = gather(mixed_cells(labels), [low for low, _, _ in corners])
    for part in torch.nonzero(mixed).split(2**18):
        at = tuple(part.T)
        index, weight = corner_weights(part, corners, labels.shape)
        candidates = labels.reshape(-1)[index]
        sums = torch.zeros_like(weight)
        for corner, share in zip(candidates, weight, strict=True):
            sums += (candidates == corner) * share
        if ties == "half":
            sums = (1000 * sums).half()
        best = sums == sums.amax(0)
        none = torch.iinfo(candidates.dtype).max
        winner = candidates.masked_fill(~best, none).amin(0)
        if ties == "nearest":
            near = (best & (candidates == closest[at])).any(0)
            winner = torch.where(near, closest[at], winner)
        resized[at] = winner


def resample_labels(labels: Tensor, corners: Sequence[Corners]) -> Tensor:
    """The linear vote at new voxels that lie between the `corners` of each axis; see
    `resize_labels`.
    """
    lower = [low for low, _, _ in corners]
    result = gather(labels, lower)
    mixed = gather(mixed_cells(labels), lower)
    undecided = torch.nonzero(mixed)  # (n, 3)
    for part in undecided.split(2**20):
        index, weight = corner_weights(part, corners, labels.shape)
        flat = labels.reshape(-1)
        candidates = flat[index]
        result[tuple(part.T)] = vote(candidates, weight)
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
        last = labels.narrow(axis, size - 1, 1)
        labels = torch.cat([labels, last], dim=axis)
    return mixed_inner_cells(labels)


def mixed_inner_cells(labels: Tensor) -> Tensor:
    """The same for the cells between voxels, one fewer than voxels along each axis."""
    low = labels
    high = labels
    for axis in range(labels.ndim):
        low = torch.minimum(*_neighbouring(low, axis))
        high = torch.maximum(*_neighbouring(high, axis))
    return low != high


def _neighbouring(array: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The voxels before and after each gap along an axis."""
    gaps = array.shape[axis] - 1
    before = array.narrow(axis, 0, gaps)
    after = array.narrow(axis, 1, gaps)
    return before, after


def corner_weights(
    voxels: Tensor, corners: Sequence[Corners], shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Flat indices and linear weights `(8, n)` of the corners round new voxels `(n,
    3)`; `corners` from `neighbours`, of an array of `shape`.
    """
    cells: list[Corners] = []
    for at, along in zip(voxels.T, corners, strict=True):
        low, high, upper = (part.to(at.device)[at] for part in along)
        cells.append((low, high, upper))
    return cell_corners(cells, shape)


def cell_corners(
    cells: Sequence[Corners], shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Flat indices and linear weights `(8, n)` of the corners of cells in an array of
    `shape`; cells: `(n,)` lower and upper voxel and the upper one's weight, an axis.
    """
    _, rows, columns = shape
    strides = (rows * columns, columns, 1)
    low, _, share = cells[0]
    index = low.new_zeros(1, 1)
    weight = share.new_ones(1, 1)
    for (low, high, share), stride in zip(cells, strides, strict=True):
        ends = torch.stack((low, high))  # (2, n)
        shares = torch.stack((1 - share, share))
        index = index[:, None] + stride * ends  # (k, 2, n)
        index = index.flatten(0, 1)
        weight = weight[:, None] * shares
        weight = weight.flatten(0, 1)
    return index, weight


def vote(labels: Tensor, weight: Tensor) -> Tensor:
    """The label with the largest summed weight among the candidates `(k, n)`; ties go
    to the smallest label.
    """
    low, high = torch.aminmax(labels, dim=0)
    is_low = labels == low
    share = (weight * is_low).sum(0)
    others = weight.sum(0) - share
    best = torch.where(share >= others, low, high)
    # few voxels see more than two labels
    is_high = labels == high
    of_two = (is_low | is_high).all(0)
    several = torch.nonzero(~of_two)[:, 0]
    if len(several):
        candidates = labels[:, several]
        weights = weight[:, several]
        best[several] = _vote_of_many(candidates, weights)
    return best


def _vote_of_many(labels: Tensor, weight: Tensor) -> Tensor:
    best = labels[0].clone()
    best_weight = torch.full_like(weight[0], -1)
    for candidate in labels:
        total = (weight * (labels == candidate)).sum(0)
        tie = (total == best_weight) & (candidate < best)
        better = (total > best_weight) | tie
        best = torch.where(better, candidate, best)
        best_weight = torch.where(better, total, best_weight)
    return best
