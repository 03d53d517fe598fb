"""A case as pictures need it: channels, prediction and reference on one canonical grid,
and where to look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.reading import BoxEdges, nonzero_box
from trivox.volumes.volume import Array, Shape, Spacing, spacing_of

MARGIN_MM = 12.0
LEAST_MM = 40.0
"""Around labels, and of the side of the cube that is shown."""


Affine = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CaseView:
    """A case on canonical axes (x to the right, y to the front, z upwards).

    image: `(c, z, y, x)`. prediction, reference: label indices `(z, y, x)`, 0
    background, -1 ignored. affine: 4x4, maps `(x, y, z, 1)` indices to RAS mm.
    channels: names. labels: names of the indices 1, 2, ... targets: name -> label
    indices that belong to it; they may overlap. dice: of each target, None where it
    does not count.
    """

    image: Array
    prediction: Array
    reference: Array | None
    affine: Affine
    channels: Sequence[str]
    labels: Sequence[str]
    targets: Mapping[str, tuple[int, ...]]
    dice: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """Size in voxels `(z, y, x)`."""
        z, y, x = self.prediction.shape
        return z, y, x

    @cached_property
    def spacing(self) -> Spacing:
        """Voxel size in mm `(z, y, x)`."""
        return spacing_of(self.affine)

    @property
    def overlapping(self) -> bool:
        """Whether a label belongs to more than one target: regions instead of exclusive
        labels.
        """
        members = list(chain.from_iterable(self.targets.values()))
        return len(members) > len(set(members))

    def depth(self, target: str) -> int:
        """How many other targets hold all labels of this one and more."""
        labels = set(self.targets[target])
        return sum(labels < set(others) for others in self.targets.values())

    @property
    def shown(self) -> Array:
        """What decides where to look: the reference, or the prediction where that holds
        nothing.
        """
        reference = self.reference
        if reference is None or not (reference > 0).any():
            return self.prediction
        return reference

    def position_mm(self, axis: int, index: int) -> float:
        """World coordinate of a slice at the middle of the grid; axis 0, 1, 2 is z, y,
        x.
        """
        z, y, x = self.shape
        middle = np.array([x - 1, y - 1, z - 1, 2]) / 2
        middle[2 - axis] = index
        world = self.affine @ middle
        return float(world[2 - axis])

    def cropped(self, box: BoxEdges) -> "CaseView":
        """The part inside `box`; world positions stay."""
        inside = tuple(slice(*edge) for edge in box)
        affine = self.affine.copy()
        first_voxel = np.array([start for start, _ in box[::-1]], float)
        affine[:3, 3] += affine[:3, :3] @ first_voxel
        reference = None if self.reference is None else self.reference[inside]
        return replace(
            self,
            image=self.image[(slice(None), *inside)],
            prediction=self.prediction[inside],
            reference=reference,
            affine=affine,
        )

    def without_margin(self) -> "CaseView":
        """Cropped to what is not zero in every channel, as long as that keeps all
        labels.
        """
        rim = nonzero_box(self.image)
        labelled = self._labelled_box()
        return self.cropped(rim if labelled is None else _union(rim, labelled))

    def labelled(self) -> "CaseView":
        """Cropped to the labels of prediction and reference; all of it where there are
        none.
        """
        box = self._labelled_box()
        return self if box is None else self.cropped(box)

    def zoomed(self) -> "CaseView":
        """Cropped to a cube (in mm) around prediction and reference, as far as the
        image reaches.
        """
        box = self._labelled_box()
        if box is None:
            return self.without_margin()
        lengths = [stop - start for start, stop in box]
        longest = max(np.multiply(lengths, self.spacing).tolist())
        side = max(longest + 2 * MARGIN_MM, LEAST_MM)
        z, y, x = (
            _widened(edge, size, mm, side)
            for edge, size, mm in zip(box, self.shape, self.spacing, strict=True)
        )
        return self.cropped((z, y, x))

    def _labelled_box(self) -> BoxEdges | None:
        labelled = self.prediction > 0
        if self.reference is not None:
            labelled = labelled | (self.reference > 0)
        return nonzero_box(labelled[None]) if labelled.any() else None


def _widened(
    edge: tuple[int, int], size: int, mm: float, side: float
) -> tuple[int, int]:
    """`edge` grown round its middle to `side` mm and moved into the image."""
    first, last = edge
    length = min(size, max(last - first, round(side / mm)))
    centred = (first + last - length) // 2
    start = min(max(0, centred), size - length)
    return start, start + length


def _union(first: BoxEdges, second: BoxEdges) -> BoxEdges:
    z, y, x = (
        (min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(first, second, strict=True)
    )
    return z, y, x


def member_mask(labels: Array, indices: Sequence[int]) -> Mask:
    """Where a label map holds one of `indices`."""
    largest = max(int(labels.max(initial=0)), *indices)
    table = np.zeros(largest + 2, bool)
    # the last entry stays false and answers for -1
    table[list(indices)] = True
    return np.asarray(table[labels])


def best_slices(labels: Array, targets: Sequence[Sequence[int]]) -> Shape:
    """For each axis the slice that shows the targets best: the areas, each as a share
    of the target's largest, summed.

    So a small target counts as much as a large one. labels: `(z, y, x)`. The middle
    where there is nothing to see.
    """
    z, y, x = labels.shape
    labelled = labels > 0
    if not labelled.any():
        return z // 2, y // 2, x // 2
    box = nonzero_box(labelled[None])
    inside = labels[tuple(slice(*edge) for edge in box)].clip(min=0)
    starts = [start for start, _ in box]
    z, y, x = (start + _best(inside, k, targets) for k, start in enumerate(starts))
    return z, y, x


def _best(labels: Array, axis: int, targets: Sequence[Sequence[int]]) -> int:
    """The slice along an axis that shows the targets best."""
    largest = max(int(labels.max()), *(max(target) for target in targets))
    planes = np.moveaxis(labels, axis, 0)
    counts = [np.bincount(plane.ravel(), minlength=largest + 1) for plane in planes]
    histogram = np.stack(counts)  # (slice, index)
    shares = np.zeros(len(histogram))
    for target in targets:
        areas = histogram[:, list(target)].sum(axis=1)
        shares += areas / areas.max().clip(min=1)
    return int(shares.argmax())


def clearest_channel(image: Array, mask: Array) -> int:
    """The channel in which `mask` differs most from what surrounds it: difference of
    means by the standard deviation.

    Looks at the box around the mask, half as wide again to each side; voxels that are
    zero in every channel are left out.
    """
    if not mask.any() or len(image) == 1:
        return 0
    box = [
        _widened(edge, size, 1.0, 2.0 * (edge[1] - edge[0]))
        for edge, size in zip(nonzero_box(mask[None]), mask.shape, strict=True)
    ]
    near = tuple(slice(*edge) for edge in box)
    inside = mask[near]
    outside = ~inside & (image[(slice(None), *near)] != 0).any(axis=0)
    if not outside.any():
        return 0
    effects = [_effect(channel[near], inside, outside) for channel in image]
    return int(np.nan_to_num(effects).argmax())


def _effect(values: Array, inside: Mask, outside: Mask) -> float:
    """Difference of the means by the pooled standard deviation; 0 without spread."""
    one = values[inside].astype(float)
    other = values[outside].astype(float)
    spread = np.sqrt((one.var() + other.var()) / 2)
    if not spread > 0:
        return 0.0
    difference = abs(one.mean() - other.mean())
    return float(difference / spread)
