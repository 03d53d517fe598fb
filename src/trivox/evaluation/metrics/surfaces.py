"""Distances between the surfaces of two boolean masks, in mm, under two named
conventions.

voxel: the surface is the set of mask voxels with a face neighbour outside the mask; each counts once. HD95 is the
    larger of the two directed 95th percentiles, as in MONAI.
mesh: the surface consists of the marching-cubes elements of all 2x2x2 neighbourhoods, weighted by their area; HD95 is
    the larger of the two directed area-weighted percentiles, as in DeepMind's surface-distance (Nikolov et al. 2018,
    arXiv:1809.04430).
Outside the image there is no mask, so a mask that touches the border has a surface there.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.metrics.mesh_areas import CORNERS, element_areas
from trivox.evaluation.metrics.nearest import distances_to
from trivox.evaluation.metrics.overlap import require_same_shape
from trivox.volumes.volume import Array, Spacing

Convention = Literal["voxel", "mesh"]
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
    convention: Convention

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
        if self.convention == "voxel":
            return float(
                max(
                    np.percentile(d, percentile)
                    for d in (self.to_reference, self.to_prediction)
                )
            )
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
        return float(
            np.percentile(
                np.concatenate([self.to_reference, self.to_prediction]), percentile
            )
        )

    def average_mm(self) -> float | None:
        """Average symmetric surface distance in mm: the mean over all elements of both.

        None if a mask is empty.
        """
        if self.empty:
            return None
        total = (
            self.to_reference @ self.prediction_weights
            + self.to_prediction @ self.reference_weights
        )
        return float(
            total / (self.prediction_weights.sum() + self.reference_weights.sum())
        )

    def surface_dice(self, tolerance_mm: float) -> float | None:
        """Normalised surface Dice: share of both surfaces within `tolerance_mm` of the
        other, 0..1.

        0 if only one of the masks is empty, None if both are.
        """
        total = self.prediction_weights.sum() + self.reference_weights.sum()
        if not total:
            return None
        limit = np.float32(
            tolerance_mm
        )  # in single precision, a distance of 2.0000000000000004 mm lies within 2 mm
        near = self.prediction_weights[
            self.to_reference.astype(np.float32) <= limit
        ].sum()
        near += self.reference_weights[
            self.to_prediction.astype(np.float32) <= limit
        ].sum()
        return float(near / total)


def surface_distances(
    prediction: Array,
    reference: Array,
    *,
    spacing: Spacing,
    convention: Convention = "voxel",
    limit_mm: float = np.inf,
    workers: int = 2,
) -> SurfaceDistances:
    """Both directed surface distances of two boolean masks `(z, y, x)`; spacing in mm
    `(z, y, x)`.

    limit_mm: distances above it are infinite, which saves time where only the surface
    Dice is wanted. Raises `GeometryError` if the shapes differ.
    """
    require_same_shape(prediction, reference)
    prediction, reference = (
        prediction.astype(bool, copy=False),
        reference.astype(bool, copy=False),
    )
    box = bounding_box(prediction | reference)
    predicted, expected = (np.pad(mask[box], 1) for mask in (prediction, reference))
    surfaces = (_voxel_surface if convention == "voxel" else _mesh_surface)(
        predicted, expected, spacing
    )
    (edges, weights), (other_edges, other_weights) = surfaces
    forth, back = _nearest(edges, other_edges, spacing, limit_mm, workers)
    return SurfaceDistances(forth, back, weights, other_weights, convention)


def bounding_box(mask: Array) -> tuple[slice, slice, slice]:
    """The smallest box `(z, y, x)` that holds the mask; an empty box for an empty mask."""
    slices = [slice(0, 0)] * 3
    inside: Array = mask
    for axis in range(
        3
    ):  # one axis after the other, each within what the last one left
        hits = np.flatnonzero(
            inside.any(axis=tuple(other for other in range(3) if other != axis))
        )
        if not hits.size:
            return slice(0, 0), slice(0, 0), slice(0, 0)
        slices[axis] = slice(int(hits[0]), int(hits[-1]) + 1)
        inside = mask[tuple(slices[: axis + 1])]
    return slices[0], slices[1], slices[2]


def _voxel_surface(
    prediction: Array, reference: Array, spacing: Spacing
) -> list[tuple[Array, Floats]]:
    """Edge masks of two padded masks and the weight 1 of each edge voxel."""
    edges = [_edge_voxels(mask) for mask in (prediction, reference)]
    return [(edge, np.ones(np.count_nonzero(edge))) for edge in edges]


def _edge_voxels(mask: Array) -> Array:
    """Voxels with one of the six face neighbours outside, of a mask with an empty rim;
    without that rim.
    """
    core = (slice(1, -1),) * 3
    inner = mask[core].copy()
    for axis in range(3):
        for side in (slice(0, -2), slice(2, None)):
            inner &= mask[(*core[:axis], side, *core[axis + 1 :])]
    return np.asarray(mask[core] & ~inner)


def _mesh_surface(
    prediction: Array, reference: Array, spacing: Spacing
) -> list[tuple[Array, Floats]]:
    """Masks of the 2x2x2 neighbourhoods that the surface passes through, and the area
    in mm² within each.
    """
    areas = element_areas(spacing)
    codes = [_neighbourhood_codes(mask) for mask in (prediction, reference)]
    edges = [(code != 0) & (code != 255) for code in codes]
    return [(edge, areas[code[edge]]) for edge, code in zip(edges, codes, strict=True)]


def _neighbourhood_codes(mask: Array) -> NDArray[np.uint8]:
    """Which of the eight corners are inside, as a bit each, for all 2x2x2
    neighbourhoods of a padded mask.
    """
    size = tuple(n - 1 for n in mask.shape)
    codes = np.zeros(size, dtype=np.uint8)
    voxels = mask.astype(np.uint8)
    for bit, corner in enumerate(CORNERS):
        codes |= (
            voxels[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))]
            << bit
        )
    return codes


def _nearest(
    edges: Array, other: Array, spacing: Spacing, limit_mm: float, workers: int
) -> tuple[Floats, Floats]:
    """Distance of each true voxel of one mask to the nearest of the other, both ways.

    Elements that both surfaces share are at distance 0; only the rest is looked up,
    which good predictions have few of.
    """
    found = []
    for own, target in ((edges, other), (other, edges)):
        alone = own & ~target
        distances = np.zeros(np.count_nonzero(own))
        distances[alone[own]] = distances_to(
            alone, target, spacing=spacing, limit_mm=limit_mm, workers=workers
        )
        found.append(distances)
    return found[0], found[1]


def _weighted_percentile(
    distances: Floats, weights: Floats, percentile: float
) -> float:
    """The smallest distance within which `percentile` of the total weight lies."""
    order = np.argsort(distances)
    share = np.cumsum(weights[order]) / weights.sum()
    position = int(np.searchsorted(share, percentile / 100))
    return float(distances[order][min(position, len(order) - 1)])
