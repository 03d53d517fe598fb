"""Hand-made features of a case: intensity, contrast, texture, shape and place of its
lesion, under names that can be read.

What cannot be known (the contrast to an empty rim, the texture of a lesion of one
voxel) is NaN, never an invented zero. Features "in lesion" and "in core" depend on no
voxel outside the lesion.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from trivox.inference.classes.case_masks import box_of
from trivox.inference.classes.lesion_shape import FOUR, depth_of, shape_features
from trivox.inference.classes.lesion_texture import texture_features
from trivox.volumes.volume import Array, Spacing

PERCENTILES = (10, 50, 90)


def handmade_features(
    image: Array,
    masks: Mapping[str, Array],
    spacing: Spacing,
    *,
    channels: Sequence[str],
) -> dict[str, float]:
    """Features of one case by name; the names depend on `channels` and the names of the
    masks alone.

    image: raw or normalised intensities `(c, z, y, x)`; masks: of `case_masks`, `(z, y,
    x)`; spacing: mm (z, y, x); channels: names, one a channel.
    """
    box = box_of(masks["organ"] | masks["lesion"] | masks["rim"]) or (slice(0, 1),) * 3
    inside = {name: np.ascontiguousarray(mask[box]) for name, mask in masks.items()}
    values = {
        name: array[box].astype(np.float64)
        for name, array in zip(channels, image, strict=True)
    }
    depth = depth_of(inside["lesion"], spacing)
    found = shape_features(inside, depth, spacing)
    places = _places(inside)
    for name, channel in values.items():
        found |= _channel_features(name, channel, places, depth)
        texture = texture_features(channel, inside["core"], spacing)
        found |= {f"{name} {what} in core": value for what, value in texture.items()}
    lesion = inside["lesion"]
    for first, second in combinations(channels, 2):
        found[f"correlation of {first} and {second} in lesion"] = _correlation(
            values[first][lesion], values[second][lesion]
        )
    return found


def _places(masks: Mapping[str, Array]) -> dict[str, Array]:
    """Where intensities are measured: places that overlap as little as they can, since
    an overlap only repeats a feature.
    """
    parts = {name: mask for name, mask in masks.items() if name not in FOUR}
    places = {
        "lesion": masks["lesion"],
        "rim": masks["rim"],
        "rest of organ": masks["organ"] & ~masks["lesion"],
    }
    if parts:
        places["rest of lesion"] = masks["lesion"] & ~np.logical_or.reduce(
            list(parts.values())
        )
    return places | parts


def _channel_features(
    channel: str, values: Array, places: Mapping[str, Array], depth: Array
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, mask in places.items():
        found |= {
            f"{channel} {what} in {name}": value
            for what, value in intensity_features(values[mask]).items()
        }
    mean, spread = found[f"{channel} mean in lesion"], found[f"{channel} std in lesion"]
    for other in ("rim", "rest of organ"):
        found[f"{channel} contrast of lesion to {other}"] = (
            mean - found[f"{channel} mean in {other}"]
        )
    found[f"{channel} spread of lesion / rim"] = _ratio(
        spread, found[f"{channel} std in rim"]
    )
    inside = places["lesion"]
    found[f"{channel} correlation with depth in lesion"] = _correlation(
        values[inside], depth[inside]
    )
    return found


def intensity_features(values: Array) -> dict[str, float]:
    """Moments and percentiles of the values `(n,)` of a mask; all NaN if there are
    none.
    """
    names = ("mean", "std", "skewness", *(f"percentile {p}" for p in PERCENTILES))
    if not values.size:
        return dict.fromkeys(names, np.nan)
    mean, std = values.mean(), values.std()
    skewness = (
        ((values - mean) ** 3).mean() / std**3 if std > _rounding(values) else np.nan
    )
    return dict(
        zip(
            names,
            map(float, (mean, std, skewness, *np.percentile(values, PERCENTILES))),
            strict=True,
        )
    )


def _correlation(first: Array, second: Array) -> float:
    """Pearson's; NaN where one of them does not vary."""
    if (
        not first.size
        or first.std() <= _rounding(first)
        or second.std() <= _rounding(second)
    ):
        return np.nan
    return float(
        ((first - first.mean()) * (second - second.mean())).mean()
        / (first.std() * second.std())
    )


def _rounding(values: Array) -> float:
    """Standard deviation that equal values may show."""
    return 1e-6 * float(np.abs(values).max())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else np.nan
