"""From a source image to the network's grid, and the record that leads back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import IGNORED
from trivox.datasets.reading import BoxEdges, CroppedCase
from trivox.memory import require_memory
from trivox.planning.describe import sized
from trivox.planning.footprint import preparation_bytes
from trivox.planning.grid_rules import Interpolation
from trivox.planning.plan import ImagePlan
from trivox.planning.spacing import resampled_shape
from trivox.preparation.normalise import NormalisedRows, foreground_mask
from trivox.volumes.geometry import Orientation
from trivox.volumes.resampling import resize_labels
from trivox.volumes.rows import Rows, resize_rows, resize_rows_by_slices, whole
from trivox.volumes.volume import Array, Shape, Spacing, Ties, Volume


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
    and of the network's grid; cropped_spacing: of the former, mm; image_axis,
    labels_axis, logits_axis: axis of both along which each is resampled slice by slice,
    if any; ties: which of two labels of equal weight wins.
    """

    source: Volume
    orientation: Orientation
    canonical_shape: Shape
    box: BoxEdges
    axis_order: tuple[int, int, int]
    cropped_shape: Shape
    cropped_spacing: Spacing
    shape: Shape
    image_axis: int | None
    labels_axis: int | None
    logits_axis: int | None
    ties: Ties
    half_logits: bool

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
        return np.asarray(self.resize(torch.from_numpy(cropped)).numpy())

    def resize(self, labels: Tensor) -> Tensor:
        """Label indices `(z, y, x)` from the cropped grid to the network's."""
        return resize_labels(
            labels,
            self.shape,
            nearest_axis=self.labels_axis,
            ties=self.ties,
        )

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


def prepare(
    case: CroppedCase, plan: ImagePlan, *, before: Array | None = None
) -> PreparedCase:
    """Normalise, order the axes and resample a cropped case as the plan says; raises
    `DataError` before it takes more memory than there is.

    before: label indices `(z, y, x)` on the case's grid that a coarser model found, for
    a plan that `refines` them.
    """
    record = _record(case, plan)
    require_memory(
        preparation_bytes(record.shape, channels=len(plan.inputs)),
        f"{sized(record.shape)} voxels at {sized(plan.spacing)} mm",
        "correct the voxel size of the image, or plan a coarser spacing",
    )
    inside: Array | None = None
    seen: Array | None = None
    if before is not None:
        inside = foreground_mask(case.image) | (before > 0)
        # nnU-Net lets what lies outside the object vote as a label of its own
        seen = np.where(inside, before, IGNORED)
    rows = NormalisedRows.of(case.image, plan.normalisations, mask=inside)
    resized = _resized(rows.ordered(plan.axis_order), record, plan.grid.image)

    def on_grid(labels: Array) -> Tensor:
        ordered = labels.transpose(plan.axis_order).astype(np.int16, order="C")
        return record.resize(torch.from_numpy(ordered))

    if plan.mask_channel:
        mask = on_grid(foreground_mask(case.image))
        resized = torch.cat([resized, mask[None].to(resized.dtype)])
    if seen is not None:
        coarse = on_grid(seen)
        channels = len(plan.inputs) - len(resized)
        labels = torch.arange(1, channels + 1)[:, None, None, None]
        resized = torch.cat([resized, (coarse == labels).to(resized.dtype)])
    label = None if case.label is None else on_grid(case.label)
    return PreparedCase(resized, label, record)


def _record(case: CroppedCase, plan: ImagePlan) -> GridRecord:
    """Where a case lies on the grids of a plan."""
    first, second, third = plan.axis_order
    spacing = (case.spacing[first], case.spacing[second], case.spacing[third])
    cropped = (case.shape[first], case.shape[second], case.shape[third])
    rules = plan.grid
    target = rules.target(spacing, plan.spacing)
    shape = shape_on_grid(case.shape, case.spacing, plan)
    image = rules.image or rules.labels
    return GridRecord(
        source=case.source,
        orientation=case.orientation,
        canonical_shape=case.canonical_shape,
        box=case.box,
        axis_order=plan.axis_order,
        cropped_shape=cropped,
        cropped_spacing=spacing,
        shape=shape,
        image_axis=image.coarse_axis(spacing, target),
        labels_axis=rules.labels.coarse_axis(spacing, target),
        logits_axis=rules.logits.coarse_axis(target, spacing),
        ties=rules.labels.ties,
        half_logits=rules.logits.half,
    )


def _resized(rows: Rows, record: GridRecord, rule: Interpolation | None) -> Tensor:
    """An image `(c, z, y, x)` on the network's grid."""
    if rule is None:
        return whole(rows)
    axis = record.image_axis
    if axis is None or rule.clip == "channel":
        return resize_rows(rows, record.shape, order=rule.order, nearest_axis=axis)
    return resize_rows_by_slices(
        rows,
        record.shape,
        axis=axis,
        order=rule.order,
        order_across=rule.order_across,
    )


def shape_on_grid(shape: Shape, spacing: Spacing, plan: ImagePlan) -> Shape:
    """Size in the network's grid of a case with this size and spacing on canonical
    axes.
    """
    first, second, third = plan.axis_order
    size = (shape[first], shape[second], shape[third])
    edges = (spacing[first], spacing[second], spacing[third])
    if plan.grid.image is None:
        return size
    return resampled_shape(size, edges, plan.grid.target(edges, plan.spacing))
