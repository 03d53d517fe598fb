"""From a source image to the network's grid, and the record that leads back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.reading import Box, CroppedCase
from trivox.planning.plan import ImagePlan
from trivox.planning.spacing import ANISOTROPY
from trivox.preparation.normalise import foreground_mask, normalise
from trivox.volumes.geometry import Orientation
from trivox.volumes.resampling import resize_image, resize_labels
from trivox.volumes.volume import Array, Shape, Spacing, Volume


@dataclass(frozen=True, eq=False)
class GridRecord:
    """How a case came into the network's grid: source -> canonical axes -> box -> axis
    order -> resampled.
    """

    source: Volume
    orientation: Orientation
    canonical_shape: Shape
    box: Box
    axis_order: tuple[int, int, int]
    cropped_shape: Shape
    """In axis order, before resampling."""
    shape: Shape
    nearest_axis: int | None
    """Axis (of the ordered grid) resampled slice by slice."""

    def to_source(self, ordered: Array, *, fill: int | float = 0) -> Volume:
        """Put `(z, y, x)` or `(c, z, y, x)` at cropped resolution back on the source
        grid; outside the box is `fill`.
        """
        array = ordered if ordered.ndim == 4 else ordered[None]
        array = array.transpose(
            0, *(int(axis) + 1 for axis in np.argsort(self.axis_order))
        )
        whole = np.full(
            (array.shape[0], *self.canonical_shape), fill, dtype=array.dtype
        )
        whole[(slice(None), *(slice(*edge) for edge in self.box))] = array
        return Volume(self.orientation.undo(whole), self.source.affine)

    def from_source(self, array: Array) -> Array:
        """The inverse of `to_source`, for `(z, y, x)` on the source grid: ordered axes,
        cropped, not resampled.
        """
        canonical = self.orientation.apply(array[None])[0]
        return np.asarray(
            canonical[tuple(slice(*edge) for edge in self.box)].transpose(
                self.axis_order
            )
        )

    def to_grid(self, indices: Array) -> Array:
        """Label indices `(z, y, x)` on the source grid, brought to the network's grid
        as `prepare` does.
        """
        ordered = np.ascontiguousarray(self.from_source(indices), dtype=np.int16)
        return np.asarray(
            resize_labels(
                torch.from_numpy(ordered), self.shape, nearest_axis=self.nearest_axis
            ).numpy()
        )


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case in the network's grid: image `(c, z, y, x)` float32, label indices `(z, y,
    x)` int16 if known.
    """

    image: Tensor
    label: Tensor | None
    record: GridRecord


def prepare(case: CroppedCase, plan: ImagePlan) -> PreparedCase:
    """Normalise, order the axes and resample a cropped case as the plan says."""
    order = plan.axis_order
    image = _ordered(normalise(case.image, plan.normalisations), order)
    spacing = tuple(case.spacing[axis] for axis in order)
    cropped = tuple(case.shape[axis] for axis in order)
    shape = resampled_shape(cropped, spacing, plan.spacing)  # type: ignore[arg-type]
    coarse = slicewise_axis(spacing, plan.spacing)  # type: ignore[arg-type]
    resized = resize_image(torch.from_numpy(image), shape, nearest_axis=coarse)
    if plan.mask_channel:
        mask = torch.from_numpy(
            _ordered(foreground_mask(case.image)[None].astype(np.int16), order)[0]
        )
        resized = torch.cat(
            [
                resized,
                resize_labels(mask, shape, nearest_axis=coarse)[None].to(resized.dtype),
            ]
        )
    label = None
    if case.label is not None:
        ordered = np.ascontiguousarray(case.label.transpose(order), dtype=np.int16)
        label = resize_labels(torch.from_numpy(ordered), shape, nearest_axis=coarse)
    record = GridRecord(
        source=case.source,
        orientation=case.orientation,
        canonical_shape=case.canonical_shape,
        box=case.box,
        axis_order=order,
        cropped_shape=cropped,  # type: ignore[arg-type]
        shape=shape,
        nearest_axis=coarse,
    )
    return PreparedCase(resized, label, record)


def _ordered(array: Array, order: tuple[int, int, int]) -> Array:
    """`(c, z, y, x)` with its axes in the plan's order."""
    return np.ascontiguousarray(array.transpose(0, *(axis + 1 for axis in order)))


def resampled_shape(shape: Shape, spacing: Spacing, target: Spacing) -> Shape:
    """Voxels an axis at `target` spacing, at least one."""
    z, y, x = (
        max(1, round(old / new * size))
        for size, old, new in zip(shape, spacing, target, strict=True)
    )
    return z, y, x


def slicewise_axis(spacing: Spacing, target: Spacing) -> int | None:
    """The coarse axis along which slices are not interpolated: spacing ratio above 3,
    in the source or else the target.

    Two axes that share the largest spacing have no single coarse direction; then all
    three are interpolated.
    """
    for edges in (spacing, target):
        if max(edges) / min(edges) > ANISOTROPY:
            coarse = [axis for axis in range(3) if np.isclose(edges[axis], max(edges))]
            return coarse[0] if len(coarse) == 1 else None
    return None
