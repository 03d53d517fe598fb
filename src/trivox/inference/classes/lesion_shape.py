"""Shape, size, parts and place of a lesion from its mask alone."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from trivox.datasets.boxes import box_of
from trivox.volumes.components import connected
from trivox.volumes.volume import Array, Spacing

AXES = ("z", "y", "x")
FOUR = ("lesion", "core", "rim", "organ")
SHAPE = (
    "surface",
    "sphericity",
    "length",
    "width",
    "thickness",
    "elongation",
    "flatness",
    "compactness",
    "radius spread",
    "largest depth",
    "mean depth",
    "spread of depth",
    "relative depth",
    "components",
    "largest component share",
)
"""Names of what `mask_shape` finds."""
SHAPE_OF_PARTS = (
    "sphericity",
    "largest depth",
    "mean depth",
    "largest component share",
)
"""What of it describes a part of the lesion."""


def shape_features(
    masks: Mapping[str, Array], depth: Array, spacing: Spacing
) -> dict[str, float]:
    """Features of the masks of `case_masks` `(z, y, x)`; depth: of the lesion, see
    `depth_of`; spacing: mm (z, y, x).

    NaN for all that an empty lesion hides.
    """
    cell = float(np.prod(spacing)) / 1000
    volume = {name: int(mask.sum()) * cell for name, mask in masks.items()}
    lesion = masks["lesion"]
    features = {
        "volume of lesion": volume["lesion"],
        "log volume of lesion": _log(volume["lesion"]),
        "volume of lesion / organ": _ratio(volume["lesion"], volume["organ"]),
    }
    for what, value in mask_shape(lesion, depth, spacing).items():
        features[f"{what} of lesion"] = value
    for name in [name for name in masks if name not in FOUR]:
        part = masks[name]
        shared = int((part & lesion).sum()) * cell
        features[f"log volume of {name}"] = _log(volume[name])
        features[f"volume of {name} / lesion"] = _ratio(shared, volume["lesion"])
        features[f"volume of {name} / organ"] = _ratio(volume[name], volume["organ"])
        for what, value in _part_shape(part, spacing).items():
            features[f"{what} of {name}"] = value
        features[f"depth of {name} in lesion"] = _mean_depth(
            part & lesion, lesion, depth
        )
    return features | _place(lesion, masks["organ"])


def depth_of(mask: Array, spacing: Spacing) -> Array:
    """Distance in mm of each voxel of a mask `(z, y, x)` to the next voxel outside, 0
    there; the border is outside.
    """
    result = np.zeros(mask.shape)
    box = box_of(mask)
    if box is not None:
        padded = np.pad(mask[box], 1)
        distance = ndimage.distance_transform_edt(padded, sampling=spacing)
        result[box] = distance[1:-1, 1:-1, 1:-1]
    return result


def mask_shape(mask: Array, depth: Array, spacing: Spacing) -> dict[str, float]:
    """Shape of one mask `(z, y, x)` in mm; depth: of the mask, see `depth_of`.

    All NaN if it is empty.

    length, width, thickness: diameters of the ellipsoid with the same second moments;
    elongation and flatness: width and thickness over length; compactness: volume over
    that of this ellipsoid; sphericity, relative depth and radius spread: surface,
    largest depth and standard deviation of the distance to the centre, against the ball
    of equal volume. The largest depth is the radius of the largest ball that fits in.
    """
    box = box_of(mask)
    if box is None:
        return dict.fromkeys(SHAPE, np.nan)
    mask = mask[box]
    depth = depth[box][mask]
    volume = int(mask.sum()) * float(np.prod(spacing))
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    surface = surface_area(mask, spacing)
    points = np.argwhere(mask) * np.asarray(spacing, dtype=np.float64)
    points -= points.mean(0)
    length, width, thickness = principal_lengths(points, spacing)
    components, largest = _components(mask)
    shape = {
        "surface": surface,
        "sphericity": 4 * np.pi * radius**2 / surface,
        "length": length,
        "width": width,
        "thickness": thickness,
        "elongation": width / length,
        "flatness": thickness / length,
        "compactness": volume / (np.pi / 6 * length * width * thickness),
        "radius spread": np.linalg.norm(points, axis=1).std() / radius,
        "components": components,
        "largest component share": largest,
        **_depths(depth, radius),
    }
    return {name: float(shape[name]) for name in SHAPE}


def _depths(depth: Array, radius: float) -> dict[str, float]:
    """Depths `(n,)` in mm of a mask, against the radius of the ball of its volume."""
    return {
        "largest depth": depth.max(),
        "mean depth": depth.mean(),
        "spread of depth": depth.std(),
        "relative depth": depth.max() / radius,
    }


def surface_area(mask: Array, spacing: Spacing) -> float:
    """Surface of a mask `(z, y, x)` in mm2: the total variation of the mask, blurred by
    one voxel (coarea formula).

    Voxel faces would count a slanted plane up to 1.7 times. The border counts as
    outside.
    """
    padded = np.pad(mask, 3).astype(np.float32)
    blurred = ndimage.gaussian_filter(padded, 1.0, truncate=3)
    squares = np.zeros((), np.float32)
    for axis, step in enumerate(spacing):
        squares = squares + np.gradient(blurred, step, axis=axis) ** 2
    return float(np.sqrt(squares).sum(dtype=np.float64) * np.prod(spacing))


def principal_lengths(points: Array, spacing: Spacing) -> tuple[float, float, float]:
    """Diameters in mm, longest first, of the ellipsoid with the second moments of
    voxels at `points` `(n, 3)` about 0.

    The second moment along an axis of an ellipsoid is the square of its half-diameter
    over 5.
    """
    voxel = np.diag(np.square(spacing)) / 12  # a box, no point
    moments = points.T @ points / len(points) + voxel
    along_axes = np.clip(np.linalg.eigvalsh(moments), 0, None)
    thickness, width, length = 2 * np.sqrt(5 * along_axes)
    return float(length), float(width), float(thickness)


def _part_shape(mask: Array, spacing: Spacing) -> dict[str, float]:
    """The few that describe a part of the lesion; no component is an answer, not a gap."""
    whole = mask_shape(mask, depth_of(mask, spacing), spacing)
    shape = {name: whole[name] for name in SHAPE_OF_PARTS}
    shape["components"] = whole["components"] if mask.any() else 0.0
    return shape


def _mean_depth(part: Array, lesion: Array, depth: Array) -> float:
    """Mean depth of a part in the lesion over that of the lesion: below 1 at its
    border, above 1 in its middle.
    """
    return float(depth[part].mean() / depth[lesion].mean()) if part.any() else np.nan


def _components(mask: Array) -> tuple[float, float]:
    """How many 26-connected components there are, and the share of the largest one."""
    numbers = connected(mask.astype(np.uint8))
    sizes = np.bincount(numbers.reshape(-1))[1:]
    return float(len(sizes)), float(sizes.max() / sizes.sum())


def _place(lesion: Array, organ: Array) -> dict[str, float]:
    """Centre of the lesion in the box of the organ, 0 to 1 along each axis."""
    names = [f"place of lesion in organ along {axis}" for axis in AXES]
    box = box_of(organ)
    if box is None or not lesion.any():
        return dict.fromkeys(names, np.nan)
    centre = np.argwhere(lesion).mean(0) + 0.5
    place = {}
    for name, at, side in zip(names, centre, box, strict=True):
        place[name] = float((at - side.start) / (side.stop - side.start))
    return place


def _log(volume: float) -> float:
    return float(np.log(volume)) if volume > 0 else np.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan
