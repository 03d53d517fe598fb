"""From a source image to the network's grid, and the record that leads back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.reading import BoxEdges, CroppedCase
from trivox.planning.plan import ImagePlan
from trivox.planning.spacing import ANISOTROPY
from trivox.preparation.normalise import foreground_mask, normalise
from trivox.volumes.geometry import Orientation
from trivox.volumes.resampling import resize_image, resize_labels
from trivox.volumes.volume import Array, Shape, Spacing, Volume


@dataclass(frozen=True, eq=False)
class GridRecord:
    """How a case came into the network's grid, and the way back.

    There are three grids: the `source`'s; the *cropped* one, with canonical axes cut to
    `box` and put in `axis_order`, still at the source's spacing; and the network's,
    which is the cropped one resampled. Prediction restores its answer from the
    network's to the cropped grid (`trivox.inference.restore`), and from there with
    `to_source`.

    source: as it was read; orientation: source to canonical axes; canonical_shape, box:
    size of, and part of, the canonical grid; cropped_shape, shape: sizes of the cropped
    and of the network's grid; nearest_axis: axis of both that is resampled slice by
    slice, if any.
    """

    source: Volume
    orientation: Orientation
    canonical_shape: Shape
    box: BoxEdges
    axis_order: tuple[int, int, int]
    cropped_shape: Shape
    shape: Shape
    nearest_axis: int | None

    def to_source(self, ordered: Array, *, fill: int | float = 0) -> Volume:
        """From the cropped grid, `(z, y, x)` or `(c, z, y, x)`, to the source's: a
        volume `(c, z, y, x)` that is `fill` outside the box.
        """
        array = ordered if ordered.ndim == 4 else ordered[None]
        axes = np.argsort(self.axis_order)
        array = array.transpose(0, *(int(axis) + 1 for axis in axes))
        size = (array.shape[0], *self.canonical_shape)
        whole = np.full(size, fill, dtype=array.dtype)
        whole[:, *self._inside] = array
        return self.source.with_array(self.orientation.undo(whole))

    def from_source(self, array: Array) -> Array:
        """From the source's grid to the cropped one, both `(z, y, x)`; the inverse of
        `to_source`. A view, no copy.
        """
        canonical = self.orientation.apply(array[None])[0]
        return np.asarray(canonical[self._inside].transpose(self.axis_order))

    def to_grid(self, indices: Array) -> Array:
        """Label indices `(z, y, x)` from the source's grid to the network's, int16,
        resampled as `prepare` does.
        """
        cropped = np.ascontiguousarray(self.from_source(indices), dtype=np.int16)
        labels = torch.from_numpy(cropped)
        resized = resize_labels(labels, self.shape, nearest_axis=self.nearest_axis)
        return np.asarray(resized.numpy())

    @property
    def _inside(self) -> tuple[slice, ...]:
        return tuple(slice(*edge) for edge in self.box)


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
    first, second, third = plan.axis_order
    spacing = (case.spacing[first], case.spacing[second], case.spacing[third])
    cropped = (case.shape[first], case.shape[second], case.shape[third])
    shape = resampled_shape(cropped, spacing, plan.spacing)
    coarse = slicewise_axis(spacing, plan.spacing)

    def on_grid(labels: Array) -> Tensor:
        ordered = labels.transpose(plan.axis_order).astype(np.int16, order="C")
        return resize_labels(torch.from_numpy(ordered), shape, nearest_axis=coarse)

    image = normalise(case.image, plan.normalisations)  # (c, z, y, x)
    axes = [axis + 1 for axis in plan.axis_order]
    ordered = torch.from_numpy(np.ascontiguousarray(image.transpose(0, *axes)))
    resized = resize_image(ordered, shape, nearest_axis=coarse)
    if plan.mask_channel:
        mask = on_grid(foreground_mask(case.image))
        resized = torch.cat([resized, mask[None].to(resized.dtype)])
    record = GridRecord(
        source=case.source,
        orientation=case.orientation,
        canonical_shape=case.canonical_shape,
        box=case.box,
        axis_order=plan.axis_order,
        cropped_shape=cropped,
        shape=shape,
        nearest_axis=coarse,
    )
    label = None if case.label is None else on_grid(case.label)
    return PreparedCase(resized, label, record)


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
