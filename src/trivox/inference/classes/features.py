"""Hand-made features of a case: intensity, contrast, texture, shape and place of its
lesion, under names that can be read.

What cannot be known (the contrast to an empty rim, the texture of a lesion of one
voxel) is NaN, never an invented zero. Features "in lesion" and "in core" depend on no
voxel outside the lesion.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from trivox.datasets.boxes import box_of
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
    wanted = masks["organ"] | masks["lesion"] | masks["rim"]
    box = box_of(wanted) or (slice(0, 1), slice(0, 1), slice(0, 1))
    inside = {name: np.ascontiguousarray(mask[box]) for name, mask in masks.items()}
    lesion = inside["lesion"]
    values: dict[str, Array] = {}
    for name, array in zip(channels, image, strict=True):
        values[name] = array[box].astype(np.float64)
    depth = depth_of(lesion, spacing)
    features = shape_features(inside, depth, spacing)
    places = _places(inside)
    for name, channel in values.items():
        features |= _channel_features(name, channel, places, depth)
        texture = texture_features(channel, inside["core"], spacing)
        features |= {f"{name} {what} in core": value for what, value in texture.items()}
    for first, second in combinations(channels, 2):
        features[f"correlation of {first} and {second} in lesion"] = _correlation(
            values[first][lesion], values[second][lesion]
        )
    return features


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
        covered = np.logical_or.reduce(list(parts.values()))
        places["rest of lesion"] = masks["lesion"] & ~covered
    return places | parts


def _channel_features(
    channel: str, values: Array, places: Mapping[str, Array], depth: Array
) -> dict[str, float]:
    """Intensity and contrast of one channel, under names that begin with it."""
    features: dict[str, float] = {}
    for place, mask in places.items():
        for what, value in intensity_features(values[mask]).items():
            features[f"{channel} {what} in {place}"] = value
    mean = features[f"{channel} mean in lesion"]
    for other in ("rim", "rest of organ"):
        contrast = mean - features[f"{channel} mean in {other}"]
        features[f"{channel} contrast of lesion to {other}"] = contrast
    features[f"{channel} spread of lesion / rim"] = _ratio(
        features[f"{channel} std in lesion"], features[f"{channel} std in rim"]
    )
    inside = places["lesion"]
    features[f"{channel} correlation with depth in lesion"] = _correlation(
        values[inside], depth[inside]
    )
    return features


def intensity_features(values: Array) -> dict[str, float]:
    """Moments and percentiles of the values `(n,)` of a mask; all NaN if there are
    none.
    """
    names = ("mean", "std", "skewness", *(f"percentile {p}" for p in PERCENTILES))
    if not values.size:
        return dict.fromkeys(names, np.nan)
    mean = values.mean()
    std = values.std()
    skewness = np.nan
    if std > _rounding(values):
        skewness = ((values - mean) ** 3).mean() / std**3
    measured = (mean, std, skewness, *np.percentile(values, PERCENTILES))
    return {name: float(value) for name, value in zip(names, measured, strict=True)}


def _correlation(first: Array, second: Array) -> float:
    """Pearson's; NaN where one of them does not vary."""
    if not first.size:
        return np.nan
    if first.std() <= _rounding(first) or second.std() <= _rounding(second):
        return np.nan
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    return float(covariance / (first.std() * second.std()))


def _rounding(values: Array) -> float:
    """Standard deviation that equal values may show."""
    return 1e-6 * float(np.abs(values).max())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else np.nan
