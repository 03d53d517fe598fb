"""Distances between the surfaces of two boolean masks, in mm, for two kinds of surface.

voxel: the surface is the set of mask voxels with a face neighbour outside the mask;
    each counts once. HD95 is the larger of the two directed 95th percentiles, as in
    MONAI.
mesh: the surface consists of the marching-cubes elements of all 2x2x2 neighbourhoods,
    weighted by their area; HD95 is the larger of the two directed area-weighted
    percentiles, as in DeepMind's surface-distance (Nikolov et al. 2018,
    arXiv:1809.04430).

Outside the image there is no mask, so a mask that touches the border has a surface there.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.boxes import NOTHING, box_of
from trivox.evaluation.metrics.mesh_areas import CORNERS, element_areas
from trivox.evaluation.metrics.nearest import distances_to
from trivox.evaluation.metrics.overlap import require_same_shape
from trivox.volumes.geometry import Lattice
from trivox.volumes.volume import Array

SurfaceKind = Literal["voxel", "mesh"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distance of each surface element to the other surface, and the weight with which
    it counts, both directions.

    Distances beyond the `limit` they were computed with are infinite; an empty mask has
    no elements.
    """

    to_reference: Floats
    to_prediction: Floats
    prediction_weights: Floats
    reference_weights: Floats
    kind: SurfaceKind

    @cached_property
    def empty(self) -> bool:
        """Whether at least one of the masks is empty, so that no distance exists."""
        return not (self.to_reference.size and self.to_prediction.size)

    def hausdorff_mm(self, percentile: float = 95.0) -> float | None:
        """The larger of both directed percentiles in mm; 100 gives the Hausdorff
        distance. None if a mask is empty.
        """
        if self.empty:
            return None
        if self.kind == "voxel":
            forth = np.percentile(self.to_reference, percentile)
            back = np.percentile(self.to_prediction, percentile)
            return float(max(forth, back))
        return max(
            _weighted_percentile(
                self.to_reference, self.prediction_weights, percentile
            ),
            _weighted_percentile(
                self.to_prediction, self.reference_weights, percentile
            ),
        )

    def pooled_percentile_mm(self, percentile: float = 95.0) -> float | None:
        """The percentile over the elements of both surfaces together, unweighted, as in
        MedPy. None if a mask is empty.
        """
        if self.empty:
            return None
        pooled = np.concatenate([self.to_reference, self.to_prediction])
        return float(np.percentile(pooled, percentile))

    def average_mm(self) -> float | None:
        """Average symmetric surface distance in mm: the mean over all elements of both.

        None if a mask is empty.
        """
        if self.empty:
            return None
        forth = self.to_reference @ self.prediction_weights
        back = self.to_prediction @ self.reference_weights
        weight = self.prediction_weights.sum() + self.reference_weights.sum()
        return float((forth + back) / weight)

    def surface_dice(self, tolerance_mm: float) -> float | None:
        """Normalised surface Dice: share of both surfaces within `tolerance_mm` of the
        other, 0..1.

        0 if only one of the masks is empty, None if both are.
        """
        total = self.prediction_weights.sum() + self.reference_weights.sum()
        if not total:
            return None
        forth = self.prediction_weights[within(self.to_reference, tolerance_mm)]
        back = self.reference_weights[within(self.to_prediction, tolerance_mm)]
        return float((forth.sum() + back.sum()) / total)


def within(distances: Floats, limit_mm: float) -> NDArray[np.bool_]:
    """Which distances are at most `limit_mm`, in single precision: a distance of
    2.0000000000000004 mm lies within 2 mm.
    """
    return distances.astype(np.float32) <= np.float32(limit_mm)


def surface_distances(
    prediction: Array,
    reference: Array,
    *,
    spacing: Lattice,
    surface: SurfaceKind = "voxel",
    limit_mm: float = np.inf,
    workers: int = 2,
) -> SurfaceDistances:
    """Both directed surface distances of two boolean masks `(z, y, x)`; spacing in mm
    `(z, y, x)`, or the steps of a sheared grid.

    surface: of voxels or of mesh elements. limit_mm: distances above it are infinite,
    which saves time where only the surface Dice is wanted. Raises `GeometryError` if
    the shapes differ.
    """
    require_same_shape(prediction, reference)
    prediction = prediction.astype(bool, copy=False)
    reference = reference.astype(bool, copy=False)
    box = box_of(prediction | reference) or NOTHING
    elements = _voxel_elements if surface == "voxel" else _mesh_elements
    predicted, weights = elements(np.pad(prediction[box], 1), spacing)
    expected, other_weights = elements(np.pad(reference[box], 1), spacing)
    forth = _nearest(predicted, expected, spacing, limit_mm, workers)
    back = _nearest(expected, predicted, spacing, limit_mm, workers)
    return SurfaceDistances(forth, back, weights, other_weights, surface)


def _voxel_elements(mask: Array, spacing: Lattice) -> tuple[Array, Floats]:
    """The voxels of a padded mask with one of the six face neighbours outside, as a
    mask without that rim, and the weight 1 of each; spacing does not matter.
    """
    core = (slice(1, -1),) * 3
    inner = mask[core].copy()
    for axis in range(3):
        for side in (slice(0, -2), slice(2, None)):
            inner &= mask[(*core[:axis], side, *core[axis + 1 :])]
    edges = np.asarray(mask[core] & ~inner)
    return edges, np.ones(np.count_nonzero(edges))


def _mesh_elements(mask: Array, spacing: Lattice) -> tuple[Array, Floats]:
    """The 2x2x2 neighbourhoods of a padded mask that the surface passes through, as a
    mask, and the area in mm² within each.
    """
    codes = _neighbourhood_codes(mask)
    edges = (codes != 0) & (codes != 255)
    return edges, element_areas(spacing)[codes[edges]]


def _neighbourhood_codes(mask: Array) -> NDArray[np.uint8]:
    """Which of the eight corners are inside, as a bit each, for all 2x2x2
    neighbourhoods of a padded mask.
    """
    z, y, x = (n - 1 for n in mask.shape)
    codes = np.zeros((z, y, x), dtype=np.uint8)
    voxels = mask.astype(np.uint8)
    for bit, (k, j, i) in enumerate(CORNERS):
        codes |= voxels[k : k + z, j : j + y, i : i + x] << bit
    return codes


def _nearest(
    elements: Array, others: Array, spacing: Lattice, limit_mm: float, workers: int
) -> Floats:
    """Distance of each element of a surface to the nearest one of the other surface.

    Elements that both surfaces share are at distance 0; only the rest is looked up,
    which good predictions have few of.
    """
    alone = elements & ~others
    distances = np.zeros(np.count_nonzero(elements))
    distances[alone[elements]] = distances_to(
        alone, others, spacing=spacing, limit_mm=limit_mm, workers=workers
    )
    return distances


def _weighted_percentile(
    distances: Floats, weights: Floats, percentile: float
) -> float:
    """The smallest distance within which `percentile` of the total weight lies."""
    order = np.argsort(distances)
    share = np.cumsum(weights[order]) / weights.sum()
    position = int(np.searchsorted(share, percentile / 100))
    return float(distances[order][min(position, len(order) - 1)])
