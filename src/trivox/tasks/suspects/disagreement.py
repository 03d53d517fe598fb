"""How a label map differs from a prediction of a network that was not trained on it.

A border that is drawn otherwise is thin everywhere and differs in every case. What is
wrong is thick: a structure that is missing, exchanged, moved or made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from trivox.datasets.boxes import box_of
from trivox.datasets.labels import LabelScheme
from trivox.evaluation.metrics.overlap import confusion, dice
from trivox.volumes.components import connected
from trivox.volumes.volume import Array, Shape, Spacing

CORE_MM = 2.0
"""Depth from which on a difference is no border."""
ROUNDED = 0.01
"""Added to Dice and to its complement, so that 0 and 1 have finite log odds."""
NOWHERE = (0, 0, 0)


@dataclass(frozen=True)
class Disagreement:
    """Of one case.

    dice: of each target, None where it is in neither; depth_mm: the largest distance of
    a voxel whose label differs to the next one whose label does not; core_ml: what lies
    at least 2 mm deep; island_ml: the largest component of foreground in one map that
    touches none in the other; place: voxel `(z, y, x)` of the deepest difference,
    island_place: of the middle of the island.
    """

    dice: Mapping[str, float | None]
    depth_mm: float
    core_ml: float
    island_ml: float
    voxel_ml: float
    place: Shape = NOWHERE
    island_place: Shape = NOWHERE

    @property
    def signs(self) -> dict[str, float]:
        """Larger where labels are more doubtful: log odds of 1 - Dice by `dice TARGET`,
        depth in mm, and logarithms of the volumes in voxels.
        """
        values = {
            "depth": self.depth_mm,
            "core": float(np.log1p(self.core_ml / self.voxel_ml)),
            "island": float(np.log1p(self.island_ml / self.voxel_ml)),
        }
        for target, overlap in self.dice.items():
            if overlap is not None:
                odds = (1 - overlap + ROUNDED) / (overlap + ROUNDED)
                values[f"dice {target}"] = float(np.log(odds))
        return values


def disagreement(
    label: Array, prediction: Array, scheme: LabelScheme, spacing: Spacing
) -> Disagreement:
    """Compare label indices `(z, y, x)` of one grid (-1: ignored, where nothing
    differs); spacing: mm (z, y, x).
    """
    label = np.asarray(label)
    prediction = np.where(label < 0, label, prediction)
    overlaps = {}
    for name, indices in scheme.targets.items():
        counts = confusion(np.isin(prediction, indices), np.isin(label, indices))
        overlaps[name] = dice(counts)
    depth, place = _deepest(label != prediction, spacing)
    islands = [
        _island(label > 0, prediction > 0),
        _island(prediction > 0, label > 0),
    ]
    voxels, middle = max(islands)
    cell = float(np.prod(spacing)) / 1000
    return Disagreement(
        dice=overlaps,
        depth_mm=float(depth.max(initial=0)),
        core_ml=int((depth >= CORE_MM).sum()) * cell,
        island_ml=voxels * cell,
        voxel_ml=cell,
        place=place,
        island_place=middle,
    )


def _deepest(wrong: Array, spacing: Spacing) -> tuple[Array, Shape]:
    """Distances in mm from each voxel that differs to the next that does not, of the
    box of all; and the voxel where it is largest. Along an axis of one voxel, that of a
    picture, there is no depth.
    """
    box = box_of(wrong)
    if box is None:
        return np.zeros((0,)), NOWHERE
    rims = [min(size - 1, 1) for size in wrong.shape]
    padded = np.pad(wrong[box], [(rim, rim) for rim in rims])
    distance = ndimage.distance_transform_edt(padded, sampling=spacing)
    inner = (slice(rim, -rim or None) for rim in rims)
    depth = distance[tuple(inner)]
    inside = np.unravel_index(int(depth.argmax()), depth.shape)
    z, y, x = (int(index) + side.start for index, side in zip(inside, box, strict=True))
    return depth, (z, y, x)


def _island(mask: Array, other: Array) -> tuple[int, Shape]:
    """Voxels and middle of the largest component of a mask that shares none with the
    other.
    """
    box = box_of(mask)
    if box is None:
        return 0, NOWHERE
    numbers = connected(mask[box])
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    sizes[np.unique(numbers[other[box] & mask[box]])] = 0
    largest = int(sizes.argmax())
    if not sizes[largest]:
        return 0, NOWHERE
    voxels = np.argwhere(numbers == largest)
    middle = voxels[np.linalg.norm(voxels - voxels.mean(0), axis=1).argmin()]
    z, y, x = (int(index) + side.start for index, side in zip(middle, box, strict=True))
    return int(sizes[largest]), (z, y, x)
