"""Lesions planted into real CTs: a subtype that is a texture alone, as in
`pancreas_phantoms`, in real surroundings.

The scan stays as it is but for the lesion and its soft edge. The lesion is as dark
against its organ as asked and as rough as the organ itself, for every subtype; it grows
into unlabelled tissue, never into other organs. What a method finds there, it finds in
spite of real noise and real neighbours; it says nothing about real lesions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trivox.datasets.phantoms.abdomens import (
    TEXTURES_MM,
    PancreasPhantomSettings,
    standardised,
    texture_field,
)
from trivox.datasets.phantoms.ellipsoids import Field3, Grid, random_rotation
from trivox.errors import DataError
from trivox.volumes.geometry import require_same_grid
from trivox.volumes.volume import Array, Spacing, Volume

Mask = NDArray[np.bool_]

ORGAN_VALUE, LESION_VALUE = 1, 2
SMALLEST = 60
"""Voxels that a lesion needs to show a texture."""
EDGE = 0.6
"""Sigma of the lesion's soft edge in voxels: partial volume."""


@dataclass(frozen=True)
class _Place:
    """The box that the lesion lies in, and its middle in mm from the middle of that
    box.
    """

    box: tuple[slice, slice, slice]
    centre: NDArray[np.float64]


def plant_lesion(
    image: Volume,
    labels: Volume,
    *,
    organ: int,
    subtype: int,
    seed: int,
    radius_mm: tuple[float, float] = (8.0, 12.0),
    contrast: float = -45.0,
    textures_mm: Sequence[float] | None = None,
) -> tuple[Volume, Volume]:
    """The CT `image` (HU, one channel) with a lesion in the organ of label value
    `organ`, and labels: 1 organ, 2 lesion.

    subtype: index of its texture; place, shape and size depend on `seed` alone.
    radius_mm: range of its half axes; contrast: HU above the organ; textures_mm: sigma
    of each subtype's texture, by default those of the phantoms at the same number of
    voxels. Raises `DataError` if the organ is absent or too small for such a lesion,
    `GeometryError` if the labels lie on another grid.
    """
    if image.channels != 1:
        raise DataError(
            f"lesions are planted into CTs with one channel; this image has {image.channels}"
        )
    require_same_grid(image, labels, where="labels to plant a lesion by")
    organs = labels.array[0]
    if not (organs == organ).any():
        raise DataError(
            f"the label map has no voxel of the organ {organ}; choose one of its values"
        )
    rng = np.random.default_rng(seed)
    place = _place(organs == organ, image.spacing, rng, reach=2 * max(radius_mm))
    lesion = _shape(organs[place.box], organ, place, image.spacing, rng, radius_mm)
    widths = _widths(image.spacing, textures_mm)
    texture = standardised(texture_field(rng, lesion.shape, widths[subtype]), lesion)
    planted = image.array.copy()
    planted[0][place.box] = _blended(
        planted[0][place.box], organs[place.box] == organ, lesion, texture, contrast
    )
    found = np.where(organs == organ, ORGAN_VALUE, 0).astype(np.uint8)
    found[place.box][lesion] = LESION_VALUE
    return image.with_array(planted), labels.with_array(found)


def _place(
    organ: Mask, spacing: Spacing, rng: np.random.Generator, *, reach: float
) -> _Place:
    """A random voxel of the organ's inner third, and the box of `reach` mm round it."""
    depth = ndimage.distance_transform_edt(np.pad(organ, 1), sampling=spacing)[
        1:-1, 1:-1, 1:-1
    ]
    inner = np.argwhere(depth >= 2 / 3 * depth.max())
    voxel = inner[rng.integers(len(inner))]
    margin = np.ceil(reach / np.array(spacing)).astype(int)
    low, high = (
        np.maximum(voxel - margin, 0),
        np.minimum(voxel + margin + 1, organ.shape),
    )
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return _Place((z, y, x), (voxel - (low + high - 1) / 2) * spacing)


def _shape(
    organs: Array,
    organ: int,
    place: _Place,
    spacing: Spacing,
    rng: np.random.Generator,
    radius_mm: tuple[float, float],
) -> Mask:
    """Voxels of the lesion in its box: a bumpy ellipsoid without those of other organs
    and what they cut off.
    """
    grid = Grid.of(organs.shape, spacing)
    radii = rng.uniform(*radius_mm, 3)
    bumps = 0.15 * grid.smooth_noise(rng, float(radii.mean()))
    inside = grid.ellipsoid(place.centre, radii, random_rotation(rng)) < 1 + bumps
    parts, _ = ndimage.label(inside & ((organs == organ) | (organs == 0)))
    lesion: Mask = (parts > 0) & (
        parts == np.argmax(np.bincount(parts.ravel(), minlength=2)[1:]) + 1
    )
    voxels, of_organ = int(lesion.sum()), int((organs[lesion] == organ).sum())
    if (
        voxels < SMALLEST
        or of_organ < voxels / 3
        or of_organ > (organs == organ).sum() / 2
    ):
        raise DataError(
            f"organ {organ} is too small for a lesion of radius {radius_mm[0]:g} to {radius_mm[1]:g} mm: {voxels} voxels, "
            f"{of_organ} of them in the organ (needed: {SMALLEST}, a third in the organ, and half of the organ left over); "
            "change the radius, or choose another organ or seed"
        )
    return lesion


def _widths(spacing: Spacing, textures_mm: Sequence[float] | None) -> list[list[float]]:
    """Sigma of each subtype's texture in voxels `(z, y, x)`."""
    scale = min(spacing) / min(PancreasPhantomSettings().spacing)
    chosen = [mm * scale for mm in TEXTURES_MM] if textures_mm is None else textures_mm
    return [[mm / s for s in spacing] for mm in chosen]


def _blended(
    scan: Array, organ: Mask, lesion: Mask, texture: Field3, contrast: float
) -> Array:
    """The scan with the lesion in it, in the scan's type; level and roughness from the
    organ's median and its spread.
    """
    values = scan.astype(np.float32)
    level = float(np.median(values[organ]))
    spread = 1.4826 * float(
        np.median(np.abs(values[organ] - level))
    )  # robust against vessels and fat in the organ
    share = ndimage.gaussian_filter(lesion.astype(np.float32), EDGE)
    mixed = values + share * (level + contrast + spread * texture - values)
    if not np.issubdtype(scan.dtype, np.integer):
        return np.asarray(mixed.astype(scan.dtype))
    limits = np.iinfo(scan.dtype)
    return np.asarray(mixed.round().clip(limits.min, limits.max).astype(scan.dtype))
