"""Arrays between a scan's grid and the networks': orientation, intensities, resampling,
windows, components. Arrays are (channel, z, y, x).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Array = np.ndarray[Any, np.dtype[Any]]
Rules = dict[str, Any]
Shape = tuple[int, ...]
Axes = tuple[int, int, int]
Flips = tuple[bool, bool, bool]

SIGMA = 1 / 8  # of the windows' weights, as a share of the patch
WEIGHT_FLOOR = 1e-4
VALUES_AT_ONCE = 2**26  # of restored logits
SMALLEST = 1e-8  # that values are divided by
TIE = 1e-6  # between weights of labels that count as equal
ROUNDING = 1 - 1e-4  # of a voxel's volume as headers store it


def orientation(affine: Array) -> tuple[Axes, Flips]:
    """Source axis of each canonical one (z, y, x), and which of them run backwards."""
    steps = affine[:3, :3]
    directions = steps / np.linalg.norm(steps, axis=0)
    _, source = linear_sum_assignment(-np.abs(directions))  # by world axis: x, y, z
    axes = []
    flips = []
    for world in (2, 1, 0):
        axis = int(source[world])
        cosine = float(directions[world, axis])
        axes.append(2 - axis)
        flips.append(cosine < 0)
    return tuple(axes), tuple(flips)


def oriented(array: Array, axes: Axes, flips: Flips) -> Array:
    """(c, z, y, x) with its axes reordered, then flipped."""
    return flipped(in_order(array, axes), flips)


def unoriented(array: Array, axes: Axes, flips: Flips) -> Array:
    """The inverse of `oriented`."""
    return in_order(flipped(array, flips), np.argsort(axes))


def in_order(array: Array, axes: Iterable[int]) -> Array:
    """(c, z, y, x) with its axes reordered."""
    order = [axis + 1 for axis in axes]
    return array.transpose(0, *order)


def flipped(array: Array, flips: Flips) -> Array:
    """(c, z, y, x) with some of its axes running backwards."""
    backwards = [axis for axis, flip in enumerate(flips, start=1) if flip]
    return np.flip(array, backwards)


def nonzero_box(image: Array) -> tuple[slice, ...]:
    """The smallest box of all voxels that are not zero in every channel."""
    inside = present(image)
    if not inside.any():
        inside[:] = True
    (box,) = ndimage.find_objects(inside.astype(np.int8))
    return box


def foreground(image: Array) -> Array:
    """Voxels that are not zero in every channel, with holes filled."""
    return ndimage.binary_fill_holes(present(image))


def present(image: Array) -> Array:
    """Voxels (z, y, x) that are not zero in every channel."""
    filled = image != 0
    return filled.any(0)


def normalised(image: Array, schemes: list[Rules]) -> Array:
    """Each channel by its scheme; a channel that is zero everywhere stays so."""
    masked = any(how["masked"] for how in schemes)
    mask = foreground(image) if masked else None
    result = np.array(image, np.float32, order="C")
    for channel, how in zip(result, schemes, strict=True):
        if channel.any():
            normalise(channel, how, mask)
    return result


def normalise(channel: Array, how: Rules, mask: Array | None) -> None:
    """One channel in place; mask: what is inside, for schemes that ask for it."""
    scheme = how["scheme"]
    if scheme == "ct":
        np.clip(channel, how["low"], how["high"], out=channel)
        channel -= how["mean"]
        channel /= how["std"]
    elif scheme == "z-score":
        inside = mask if how["masked"] else np.ones(channel.shape, bool)
        values = channel[inside]
        mean = values.mean(dtype=np.float64)
        std = values.std(dtype=np.float64)
        channel -= np.float32(mean)
        channel /= np.float32(max(std, SMALLEST))
        channel[~inside] = 0
    elif scheme == "rescale-0-1":
        low = channel.min()
        reach = channel.max() - low
        channel -= low
        channel /= max(reach, np.float32(SMALLEST))
    elif scheme == "rgb-0-1":
        channel /= 255


def coarse_axis(how: Rules, old: list[float], new: list[float]) -> int | None:
    """The axis along which slices are resampled one by one, if any."""
    if how["slicewise"] is False:
        return None
    grids = [old, new]
    if how["looks_at"] == "new":
        grids.reverse()
    if how["slicewise"]:
        return single_longest(grids[0])
    for edges in grids:
        ratio = max(edges) / min(edges)
        if ratio > how["threshold"]:
            return single_longest(edges)
    return None


def single_longest(edges: list[float]) -> int | None:
    """The longest edge, if only one is."""
    longest = np.isclose(edges, max(edges))
    if longest.sum() > 1:
        return None
    return int(longest.argmax())


def resized(image: Array, shape: Shape, how: Rules, across: int | None) -> Array:
    """Splines along each axis, clipped to the range before; slices across a coarse
    axis one by one.
    """
    slicewise = across is not None and how["clip"] == "slice"
    sizes = image.shape[1:]
    changed = [axis for axis in range(3) if sizes[axis] != shape[axis]]
    inplane = [axis for axis in changed if axis != across]
    growth = [new / old for new, old in zip(shape, sizes, strict=True)]
    inplane.sort(key=growth.__getitem__)  # shrink first, grow last
    low, high = ranges(image, across if slicewise else None)
    if across in changed and not slicewise:
        image = stretched(image, shape, across, 0)
    for axis in inplane:
        image = stretched(image, shape, axis, how["order"])
    if inplane and how["order"] > 1:
        image = image.clip(low, high)
    if across in changed and slicewise:
        image = stretched(image, shape, across, how["order_across"])
    return image


def ranges(image: Array, across: int | None) -> tuple[Array, Array]:
    """Lowest and highest value of each channel, or of each of its slices."""
    axes = tuple(axis + 1 for axis in range(3) if axis != across)
    low = image.min(axes, keepdims=True)
    high = image.max(axes, keepdims=True)
    return low, high


def stretched(image: Array, shape: Shape, axis: int, order: int) -> Array:
    """One axis of (c, z, y, x) brought to its new size."""
    size = image.shape[axis + 1]
    if order == 0:
        return image.take(nearest(size, shape[axis]), axis + 1)
    matrix = spline(size, shape[axis], order)
    moved = np.moveaxis(image, axis + 1, -1)
    product = moved @ matrix.T
    return np.moveaxis(product, -1, axis + 1)


def spline(size: int, new_size: int, order: int) -> Array:
    """The matrix (new_size, size) that resizes one axis, of order 1 and above."""
    unit = np.eye(size)
    if order == 1 or size == 1:
        low, high, weight = neighbours(size, new_size)
        share = weight[:, None]
        lower = unit[low]
        upper = unit[high]
        matrix = lower * (1 - share)
        matrix += upper * share
    else:
        zoom = (new_size / size, 1)
        matrix = ndimage.zoom(unit, zoom, order=order, mode="nearest", grid_mode=True)
    return matrix.astype(np.float32)


def positions(size: int, new_size: int) -> Array:
    """Centres of the new voxels in old voxels."""
    scale = size / new_size
    centres = np.arange(new_size) + 0.5
    return centres * scale - 0.5


def nearest(size: int, new_size: int) -> Array:
    """The old voxel nearest to each new one."""
    centre = positions(size, new_size)
    rounded = np.floor(centre + 0.5).astype(int)
    return rounded.clip(0, size - 1)


def neighbours(size: int, new_size: int) -> tuple[Array, Array, Array]:
    """Lower and upper old voxel of each new one, and the upper one's weight."""
    centre = positions(size, new_size)
    centre = centre.clip(0, size - 1)
    low = np.floor(centre).astype(int)
    high = np.minimum(low + 1, size - 1)
    weight = centre - low
    return low, high, weight.astype(np.float32)


def linear(image: Array, shape: Shape, across: int | None) -> Array:
    """Linear interpolation of (c, z, y, x)."""
    for axis in range(3):
        order = 0 if axis == across else 1
        if image.shape[axis + 1] != shape[axis]:
            image = stretched(image, shape, axis, order)
    return image


def restored_labels(
    logits: Array, shape: Shape, across: int | None, decide: Callable[[Array], Array]
) -> Array:
    """Labels of linearly interpolated logits, some rows at a time."""
    outputs, size, *_ = logits.shape
    depth, height, width = shape
    low, high, weight = neighbours(size, depth)
    if across == 0:
        low = high = nearest(size, depth)
        weight = np.zeros(depth, np.float32)
    rows = max(1, VALUES_AT_ONCE // (outputs * height * width))
    result = np.zeros(shape, np.int16)
    for start in range(0, depth, rows):
        part = slice(start, start + rows)
        share = weight[part, None, None]
        mixed = logits[:, low[part]] * (1 - share)
        mixed += logits[:, high[part]] * share
        count = mixed.shape[1]
        rows_in_plane = linear(mixed, (count, height, width), across)
        result[part] = decide(rows_in_plane)
    return result


def resized_labels(labels: Array, shape: Shape, across: int | None) -> Array:
    """Label indices (z, y, x) of another size: each voxel takes what has most linear
    weight around it, the smallest of equals.
    """
    if labels.shape == tuple(shape):
        return labels
    best = np.zeros(shape, np.float32)
    result = np.zeros(shape, np.int16)
    for index in np.unique(labels):
        mask = labels == index
        share = linear(mask[None].astype(np.float32), shape, across)[0]
        better = share > best + TIE
        result[better] = index
        best[better] = share[better]
    return result


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis, evenly spread."""
    if size <= patch:
        return [0]
    room = size - patch
    longest = patch * (1 - overlap)
    steps = math.ceil(room / longest)
    step = room / steps
    places = step * np.arange(steps + 1)
    starts = np.unique(places.round())
    return starts.astype(int).tolist()


def bell(patch: int) -> Array:
    """Gaussian weight along one axis."""
    voxels = np.arange(patch, dtype=np.float32)
    offset = voxels - patch // 2
    deviations = offset / (patch * SIGMA)
    weight = np.exp(-0.5 * deviations**2)
    relative = weight / weight.max()
    return relative.clip(WEIGHT_FLOOR)


def cleaned(labels: Array, rules: Rules, voxel_mm3: float) -> Array:
    """Label indices after the rules of the largest components, then those of regions."""
    simple = rules["postprocessing"]
    if simple["largest_foreground"]:
        labels = without(labels, labels > 0, largest)
    for index in simple["largest_of"]:
        labels = without(labels, labels == index, largest)
    for step in rules["region_steps"]:
        labels = region_cleaned(labels, step, voxel_mm3)
    return labels


def without(labels: Array, mask: Array, rule: Callable[[Array], Array]) -> Array:
    """Label indices, 0 where the rule leaves a part of a mask out."""
    leaves = mask & ~rule(mask)
    return np.where(leaves, 0, labels)


def region_cleaned(labels: Array, step: Rules, voxel_mm3: float) -> Array:
    """Label indices after a region's rule; what leaves it falls back to what encloses
    it.
    """
    mask = np.isin(labels, step["indices"])
    parts, sizes = components(mask)
    volumes = sizes * voxel_mm3
    stays = np.ones(len(volumes), bool)
    if step["largest"] and len(volumes):
        stays[:] = False
        stays[volumes.argmax()] = True
    least = step["remove_small"] * ROUNDING
    stays &= volumes >= least
    enough = step["replace_small"] * ROUNDING
    if volumes[stays].sum() < enough:
        stays[:] = False
    outside = [False]
    remains = np.append(outside, stays)
    leaves = mask & ~remains[parts]
    fallback = np.array(step["fallback"], labels.dtype)
    return np.where(leaves, fallback[labels], labels)


def largest(mask: Array) -> Array:
    """The largest component of a mask."""
    parts, sizes = components(mask)
    if not len(sizes):
        return mask
    return parts == sizes.argmax() + 1


def components(mask: Array) -> tuple[Array, Array]:
    """Numbers from 1 on of the components of a mask, voxels touching at corners
    included, and the voxels of each.
    """
    corners = np.ones((3, 3, 3))
    parts, _ = ndimage.label(mask, corners)
    sizes = np.bincount(parts[mask])
    return parts, sizes[1:]
