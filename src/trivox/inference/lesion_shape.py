"""Shape, size, parts and place of a lesion from its mask alone."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from trivox.inference.case_masks import box_of
from trivox.volumes import Array, Spacing

AXES = ("z", "y", "x")
FOUR = ("lesion", "core", "rim", "organ")


def shape_features(masks: Mapping[str, Array], depth: Array, spacing: Spacing) -> dict[str, float]:
    """Features of the masks of `case_masks` `(z, y, x)`; depth: of the lesion, see `depth_of`; spacing: mm (z, y, x).

    NaN for all that an empty lesion hides.
    """
    cell = float(np.prod(spacing)) / 1000
    volume = {name: int(mask.sum()) * cell for name, mask in masks.items()}
    found = {"volume of lesion": volume["lesion"], "log volume of lesion": _log(volume["lesion"])}
    found["volume of lesion / organ"] = _ratio(volume["lesion"], volume["organ"])
    found |= {f"{what} of lesion": value for what, value in mask_shape(masks["lesion"], depth, spacing).items()}
    for name in [name for name in masks if name not in FOUR]:
        found[f"log volume of {name}"] = _log(volume[name])
        found[f"volume of {name} / lesion"] = _ratio(
            int((masks[name] & masks["lesion"]).sum()) * cell, volume["lesion"]
        )
        found[f"volume of {name} / organ"] = _ratio(volume[name], volume["organ"])
        found |= {f"{what} of {name}": value for what, value in _part_shape(masks[name], spacing).items()}
        found[f"depth of {name} in lesion"] = _mean_depth(masks[name] & masks["lesion"], masks["lesion"], depth)
    return found | _place(masks["lesion"], masks["organ"])


def depth_of(mask: Array, spacing: Spacing) -> Array:
    """Distance in mm of each voxel of a mask `(z, y, x)` to the next voxel outside, 0 there; the border is outside."""
    result = np.zeros(mask.shape)
    box = box_of(mask)
    if box is not None:
        inner = (slice(1, -1),) * 3
        result[box] = ndimage.distance_transform_edt(np.pad(mask[box], 1), sampling=spacing)[inner]
    return result


def mask_shape(mask: Array, depth: Array, spacing: Spacing) -> dict[str, float]:
    """Shape of one mask `(z, y, x)` in mm; depth: of the mask, see `depth_of`.

    length, width, thickness: of the ellipsoid with the same second moments, along its principal axes (4 standard deviations);
    elongation and flatness: ratios of these (width / length, thickness / length; 1 is a ball); sphericity: surface of the
    ball of equal volume over the surface; compactness: volume over that of the ellipsoid with equal moments; depth: distance
    to the outside (its largest value is the radius of the largest ball that fits in).
    """
    names = (
        *("surface", "sphericity", "length", "width", "thickness", "elongation", "flatness", "compactness"),
        *("largest depth", "mean depth", "spread of depth", "depth relative to ball", "components", "largest component share"),
    )  # fmt: skip
    box = box_of(mask)
    if box is None:
        return dict.fromkeys(names, np.nan)
    mask, depth = mask[box], depth[box][mask[box]]
    volume = int(mask.sum()) * float(np.prod(spacing))
    surface = surface_area(mask, spacing)
    ball = (3 * volume / (4 * np.pi)) ** (1 / 3)
    axes = principal_lengths(mask, spacing)
    values = (
        *(surface, 4 * np.pi * ball**2 / surface, *axes, axes[1] / axes[0], axes[2] / axes[0]),
        volume / (np.pi / 6 * float(np.prod(axes))),
        *(depth.max(), depth.mean(), depth.std(), depth.max() / ball, *_components(mask)),
    )  # fmt: skip
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def surface_area(mask: Array, spacing: Spacing) -> float:
    """Surface of a mask `(z, y, x)` in mm2: the total variation of the mask, blurred by one voxel (coarea formula).

    Voxel faces would count a slanted plane up to 1.7 times. The border counts as outside.
    """
    blurred = ndimage.gaussian_filter(np.pad(mask, 3).astype(np.float32), 1.0, truncate=3)
    squares = sum((np.gradient(blurred, step, axis=axis) ** 2 for axis, step in enumerate(spacing)), np.float32(0))
    return float(np.sqrt(squares).sum(dtype=np.float64) * np.prod(spacing))


def principal_lengths(mask: Array, spacing: Spacing) -> tuple[float, float, float]:
    """Diameters in mm, longest first, of the ellipsoid with the second moments of a mask: 2 sqrt(5 eigenvalue)."""
    points = np.argwhere(mask) * np.asarray(spacing)
    moments = np.cov(points.T, bias=True).reshape(3, 3) + np.diag(np.square(spacing)) / 12  # a voxel is a box
    x, y, z = 2 * np.sqrt(5 * np.clip(np.linalg.eigvalsh(moments), 0, None))
    return float(z), float(y), float(x)


def _part_shape(mask: Array, spacing: Spacing) -> dict[str, float]:
    """The few that describe a part of the lesion; no component is an answer, not a gap."""
    full = mask_shape(mask, depth_of(mask, spacing), spacing)
    chosen = {name: full[name] for name in ("sphericity", "largest depth", "mean depth", "largest component share")}
    return chosen | {"components": full["components"] if mask.any() else 0.0}


def _mean_depth(part: Array, lesion: Array, depth: Array) -> float:
    """Mean depth of a part in the lesion over that of the lesion: below 1 at its border, above 1 in its middle."""
    return float(depth[part].mean() / depth[lesion].mean()) if part.any() else np.nan


def _components(mask: Array) -> tuple[float, float]:
    """How many 26-connected components there are, and the share of the largest one."""
    import cc3d

    sizes = np.bincount(cc3d.connected_components(mask.astype(np.uint8), connectivity=26).reshape(-1))[1:]
    return float(len(sizes)), float(sizes.max() / sizes.sum())


def _place(lesion: Array, organ: Array) -> dict[str, float]:
    """Centre of the lesion in the box of the organ, 0 to 1 along each axis."""
    names = [f"place of lesion in organ along {axis}" for axis in AXES]
    box = box_of(organ)
    if box is None or not lesion.any():
        return dict.fromkeys(names, np.nan)
    centre = np.argwhere(lesion).mean(0) + 0.5
    return {
        name: float((at - side.start) / (side.stop - side.start))
        for name, at, side in zip(names, centre, box, strict=True)
    }


def _log(volume: float) -> float:
    return float(np.log(volume)) if volume > 0 else np.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan
