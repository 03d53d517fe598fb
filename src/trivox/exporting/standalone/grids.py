"""Arrays between a scan's grid and the networks': orientation, intensities, resampling,
windows, components. Arrays are (channel, z, y, x).
"""

import math
from collections.abc import Callable
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


def orientation(affine: Array) -> tuple[Axes, Flips]:
    """Source axis of each canonical one (z, y, x), and which of them run backwards."""
    directions = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(0))
    world, index = linear_sum_assignment(-np.abs(directions))
    source = dict(zip(world.tolist(), index.tolist(), strict=True))
    axes = tuple(2 - source[w] for w in (2, 1, 0))
    flips = tuple(bool(directions[w, source[w]] < 0) for w in (2, 1, 0))
    return axes, flips


def oriented(array: Array, axes: Axes, flips: Flips) -> Array:
    """(c, z, y, x) with its axes reordered, then flipped."""
    array = array.transpose(0, *(axis + 1 for axis in axes))
    return array[:, *(slice(None, None, -1 if flip else 1) for flip in flips)]


def unoriented(array: Array, axes: Axes, flips: Flips) -> Array:
    """The inverse of `oriented`."""
    array = array[:, *(slice(None, None, -1 if flip else 1) for flip in flips)]
    return array.transpose(0, *(int(axis) + 1 for axis in np.argsort(axes)))


def nonzero_box(image: Array) -> tuple[slice, ...]:
    """The smallest box of all voxels that are not zero in every channel."""
    present = (image != 0).any(0)
    if not present.any():
        return tuple(slice(0, size) for size in present.shape)
    return ndimage.find_objects(present.astype(np.int8))[0]


def foreground(image: Array) -> Array:
    """Voxels that are not zero in every channel, with holes filled."""
    return ndimage.binary_fill_holes((image != 0).any(0))


def normalised(image: Array, schemes: list[Rules]) -> Array:
    """Each channel by its scheme."""
    mask = foreground(image) if any(how["masked"] for how in schemes) else None
    result = np.array(image, np.float32, order="C")
    for channel, how in zip(result, schemes, strict=True):
        if channel.any():
            normalise(channel, how, mask if how["masked"] else None)
    return result


def normalise(channel: Array, how: Rules, mask: Array | None) -> None:
    """One channel in place."""
    scheme = how["scheme"]
    if scheme == "ct":
        np.clip(channel, how["low"], how["high"], out=channel)
        channel -= how["mean"]
        channel /= how["std"]
    elif scheme == "z-score":
        inside = channel if mask is None else channel[mask]
        mean = inside.mean(dtype=np.float64) if inside.size else 0.0
        std = inside.std(dtype=np.float64) if inside.size else 1.0
        channel -= np.float32(mean)
        channel /= np.float32(max(std, 1e-8))
        if mask is not None:
            channel[~mask] = 0
    elif scheme == "rescale-0-1":
        low = channel.min()
        reach = channel.max() - low
        channel -= low
        channel /= max(reach, np.float32(1e-8))
    elif scheme == "rgb-0-1":
        channel /= np.float32(255)


def coarse_axis(how: Rules, old: list[float], new: list[float]) -> int | None:
    """The axis along which slices are resampled one by one, if any."""
    if how["slicewise"] is False:
        return None
    grids = (old, new) if how["looks_at"] == "old" else (new, old)
    if how["slicewise"]:
        return single_longest(grids[0])
    for edges in grids:
        if max(edges) / min(edges) > how["threshold"]:
            return single_longest(edges)
    return None


def single_longest(edges: list[float]) -> int | None:
    """The longest edge, if only one is."""
    longest = np.isclose(edges, max(edges))
    return int(np.argmax(longest)) if longest.sum() == 1 else None


def resized(image: Array, shape: Shape, how: Rules, across: int | None) -> Array:
    """Splines along each axis, clipped to the range before; slices across a coarse
    axis one by one.
    """
    slicewise = across is not None and how["clip"] == "slice"
    axes = tuple(a + 1 for a in range(3) if not slicewise or a != across)
    low = image.min(axes, keepdims=True)
    high = image.max(axes, keepdims=True)
    changed = [a for a in range(3) if image.shape[a + 1] != shape[a]]
    inplane = [axis for axis in changed if axis != across]
    inplane.sort(key=lambda a: shape[a] / image.shape[a + 1])  # shrink first, grow last
    if across in changed and not slicewise:
        image = image.take(nearest(image.shape[across + 1], shape[across]), across + 1)
    for axis in inplane:
        image = along(
            image, spline(image.shape[axis + 1], shape[axis], how["order"]), axis
        )
    if inplane and how["order"] > 1:
        image = image.clip(low, high)
    if slicewise and across in changed:
        size = image.shape[across + 1]
        image = along(image, spline(size, shape[across], how["order_across"]), across)
    return image


def spline(size: int, new_size: int, order: int) -> Array:
    """The matrix (new_size, size) that resizes one axis."""
    if order == 0:
        return np.eye(size, dtype=np.float32)[nearest(size, new_size)]
    if order == 1 or size == 1:
        low, high, weight = neighbours(size, new_size)
        eye = np.eye(size, dtype=np.float32)
        return eye[low] * (1 - weight)[:, None] + eye[high] * weight[:, None]
    zoom = (new_size / size, 1)
    matrix = ndimage.zoom(
        np.eye(size), zoom, order=order, mode="nearest", grid_mode=True
    )
    return matrix.astype(np.float32)


def along(image: Array, matrix: Array, axis: int) -> Array:
    """A matrix applied to one axis of (c, z, y, x)."""
    moved = np.moveaxis(image, axis + 1, -1) @ matrix.T
    return np.moveaxis(moved, -1, axis + 1)


def positions(size: int, new_size: int) -> Array:
    """Centres of the new voxels in old voxels."""
    return (np.arange(new_size) + 0.5) * (size / new_size) - 0.5


def nearest(size: int, new_size: int) -> Array:
    """The old voxel nearest to each new one."""
    return np.floor(positions(size, new_size) + 0.5).astype(int).clip(0, size - 1)


def neighbours(size: int, new_size: int) -> tuple[Array, Array, Array]:
    """Lower and upper old voxel of each new one, and the upper one's weight."""
    centre = positions(size, new_size).clip(0, size - 1)
    low = np.floor(centre).astype(int)
    high = (low + 1).clip(max=size - 1)
    return low, high, (centre - low).astype(np.float32)


def linear(image: Array, shape: Shape, across: int | None) -> Array:
    """Linear interpolation of (c, z, y, x)."""
    for axis in range(3):
        size = image.shape[axis + 1]
        if size != shape[axis]:
            order = 0 if axis == across else 1
            image = along(image, spline(size, shape[axis], order), axis)
    return image


def restored_labels(
    logits: Array, shape: Shape, across: int | None, decide: Callable[[Array], Array]
) -> Array:
    """Labels of linearly interpolated logits, some rows at a time."""
    size = logits.shape[1]
    low, high, weight = neighbours(size, shape[0])
    if across == 0:
        low = high = nearest(size, shape[0])
        weight = np.zeros(shape[0], np.float32)
    rows = max(1, VALUES_AT_ONCE // (len(logits) * shape[1] * shape[2]))
    result = np.zeros(shape, np.int16)
    for start in range(0, shape[0], rows):
        part = slice(start, start + rows)
        share = weight[part, None, None]
        mixed = logits[:, low[part]] * (1 - share) + logits[:, high[part]] * share
        inplane = linear(mixed, (mixed.shape[1], *shape[1:]), across)
        result[part] = decide(inplane)
    return result


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis, evenly spread."""
    if size <= patch:
        return [0]
    room = size - patch
    steps = math.ceil(room / (patch * (1 - overlap)))
    step = room / steps
    return sorted({round(index * step) for index in range(steps + 1)})


def bell(patch: int) -> Array:
    """Gaussian weight along one axis."""
    offset = np.arange(patch, dtype=np.float32) - patch // 2
    weight = np.exp(-0.5 * (offset / (patch * SIGMA)) ** 2)
    return (weight / weight.max()).clip(WEIGHT_FLOOR)


def cleaned(labels: Array, rules: Rules, voxel_mm3: float) -> Array:
    """Label indices after the rules of the largest components, then those of regions."""
    simple = rules["postprocessing"]
    if simple["largest_foreground"]:
        labels = np.where(largest(labels > 0), labels, 0)
    for index in simple["largest_of"]:
        mask = labels == index
        labels = np.where(mask & ~largest(mask), 0, labels)
    for step in rules["region_steps"]:
        labels = region_cleaned(labels, step, voxel_mm3)
    return labels


def region_cleaned(labels: Array, step: Rules, voxel_mm3: float) -> Array:
    """Label indices after a region's rule; what leaves it falls back to what encloses
    it.
    """
    mask = np.isin(labels, step["indices"])
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    volumes = np.bincount(parts.ravel(), minlength=count + 1) * voxel_mm3
    stays = np.ones(count + 1, bool)
    if step["largest"] and count:
        stays[1:] = np.arange(1, count + 1) == volumes[1:].argmax() + 1
    rounding = 1 - 1e-4  # of a voxel's volume as headers store it
    stays[1:] &= volumes[1:] >= step["remove_small"] * rounding
    if volumes[1:][stays[1:]].sum() < step["replace_small"] * rounding:
        stays[1:] = False
    leaves = mask & ~stays[parts]
    fallback = np.array(step["fallback"], labels.dtype)
    return np.where(leaves, fallback[labels], labels)


def largest(mask: Array) -> Array:
    """The largest component of a mask, voxels touching at corners included."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()
