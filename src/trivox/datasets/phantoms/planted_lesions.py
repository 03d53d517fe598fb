"""Lesions planted into real CTs: a subtype that is a texture alone, as in
`abdomens`, in real surroundings.

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
    widths_in_voxels,
)
from trivox.datasets.phantoms.ellipsoids import Field3, VoxelCentres, random_rotation
from trivox.errors import DataError
from trivox.volumes.geometry import on_grid_of
from trivox.volumes.volume import Array, Spacing, Volume

Mask = NDArray[np.bool_]

ORGAN_VALUE = 1
LESION_VALUE = 2
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
    """Plant a lesion into an organ of a CT.

    Returns the CT, changed in the lesion and its soft edge alone, and a uint8 label
    map: 0 elsewhere, 1 organ, 2 lesion; both `(1, z, y, x)`.

    image: HU, one channel; labels: label map on the same grid, in which `organ` is the
    value of the organ and 0 is what no organ holds. The lesion starts in the organ and
    grows into 0, never into another organ. subtype: index of its texture; place, shape
    and size depend on `seed` alone. radius_mm: range of its half axes; contrast: HU
    above the organ's median, so negative for a dark lesion; textures_mm: sigma of each
    subtype's texture, by default those of the phantoms at the same number of voxels.

    Raises `DataError` if the image has several channels or the organ is absent or too
    small for such a lesion, `GeometryError` if the labels lie on another grid.
    """
    labels = _fitting(labels, image, organ)
    organs = labels.array[0]
    rng = np.random.default_rng(seed)
    place = _place(organs == organ, image.spacing, rng, reach=2 * max(radius_mm))
    lesion = _shape(organs[place.box], organ, place, image.spacing, rng, radius_mm)
    widths = _widths(image.spacing, textures_mm)
    texture = standardised(texture_field(rng, lesion.shape, widths[subtype]), lesion)
    planted = image.array.copy()
    scan = planted[0][place.box]
    around = organs[place.box] == organ
    planted[0][place.box] = _blended(scan, around, lesion, texture, contrast)
    values = np.where(organs == organ, ORGAN_VALUE, 0).astype(np.uint8)
    values[place.box][lesion] = LESION_VALUE
    return image.with_array(planted), labels.with_array(values)


def _fitting(labels: Volume, image: Volume, organ: int) -> Volume:
    """The labels with the image's axes; raises what `plant_lesion` does."""
    if image.channels != 1:
        raise DataError(
            "lesions are planted into CTs with one channel; "
            f"this image has {image.channels}"
        )
    labels = on_grid_of(image, labels, where="labels to plant a lesion by")
    if not (labels.array[0] == organ).any():
        raise DataError(
            f"the label map has no voxel of the organ {organ}; choose one of its values"
        )
    return labels


def _place(
    organ: Mask, spacing: Spacing, rng: np.random.Generator, *, reach: float
) -> _Place:
    """A random voxel of the organ's inner third, and the box of `reach` mm round it."""
    padded = np.pad(organ, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=spacing)
    depth = depth[1:-1, 1:-1, 1:-1]
    inner = np.argwhere(depth >= 2 / 3 * depth.max())
    voxel = inner[rng.integers(len(inner))]
    margin = np.ceil(reach / np.array(spacing)).astype(int)
    low = np.maximum(voxel - margin, 0)
    high = np.minimum(voxel + margin + 1, organ.shape)
    z, y, x = (
        slice(int(first), int(end)) for first, end in zip(low, high, strict=True)
    )
    middle = (low + high - 1) / 2
    return _Place((z, y, x), (voxel - middle) * spacing)


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
    grid = VoxelCentres.of(organs.shape, spacing)
    radii = rng.uniform(*radius_mm, 3)
    bumps = 0.15 * grid.smooth_noise(rng, float(radii.mean()))
    inside = grid.ellipsoid(place.centre, radii, random_rotation(rng)) < 1 + bumps
    growable = (organs == organ) | (organs == 0)
    parts, _ = ndimage.label(inside & growable)
    sizes = np.bincount(parts.ravel(), minlength=2)
    largest = np.argmax(sizes[1:]) + 1
    lesion: Mask = (parts > 0) & (parts == largest)
    _require_texture(lesion, organs == organ, organ, radius_mm)
    return lesion


def _require_texture(
    lesion: Mask, organ: Mask, value: int, radius_mm: tuple[float, float]
) -> None:
    """Raise `DataError` for a lesion that shows no texture, lies mostly elsewhere or
    takes most of the organ.
    """
    voxels = int(lesion.sum())
    of_organ = int((lesion & organ).sum())
    enough = voxels >= SMALLEST and of_organ >= voxels / 3
    if enough and of_organ <= organ.sum() / 2:
        return
    smallest, largest = radius_mm
    raise DataError(
        f"organ {value} is too small for a lesion of radius {smallest:g} to "
        f"{largest:g} mm: {voxels} voxels, {of_organ} of them in the organ "
        f"(needed: {SMALLEST}, a third in the organ, and half of the organ left over); "
        "change the radius, or choose another organ or seed"
    )


def _widths(spacing: Spacing, textures_mm: Sequence[float] | None) -> list[list[float]]:
    """Sigma of each subtype's texture in voxels `(z, y, x)`."""
    if textures_mm is None:
        scale = min(spacing) / min(PancreasPhantomSettings().spacing)
        textures_mm = [mm * scale for mm in TEXTURES_MM]
    return [widths_in_voxels(mm, spacing) for mm in textures_mm]


def _blended(
    scan: Array, organ: Mask, lesion: Mask, texture: Field3, contrast: float
) -> Array:
    """The scan with the lesion in it, in the scan's type; level and roughness from the
    organ's median and its spread.
    """
    values = scan.astype(np.float32)
    level = float(np.median(values[organ]))
    # The median deviation does not mind vessels and fat in the organ.
    spread = 1.4826 * float(np.median(np.abs(values[organ] - level)))
    share = ndimage.gaussian_filter(lesion.astype(np.float32), EDGE)
    inside = level + contrast + spread * texture
    mixed = values + share * (inside - values)
    if not np.issubdtype(scan.dtype, np.integer):
        return np.asarray(mixed.astype(scan.dtype))
    limits = np.iinfo(scan.dtype)
    whole = mixed.round().clip(limits.min, limits.max)
    return np.asarray(whole.astype(scan.dtype))
