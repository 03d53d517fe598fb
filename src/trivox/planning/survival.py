"""What resampling destroys: labels and connected components, counted on the label maps
before and after, and a spacing that keeps them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import BoxEdges, read_reference
from trivox.errors import TrivoxError, few
from trivox.memory import free_memory
from trivox.planning.describe import sized
from trivox.planning.footprint import preparation_bytes
from trivox.planning.grid_rules import GridRules
from trivox.planning.spacing import resampled_shape
from trivox.volumes.components import connected
from trivox.volumes.formats import read_header
from trivox.volumes.geometry import canonical_orientation, reorient
from trivox.volumes.resampling import resize_labels
from trivox.volumes.volume import Array, Spacing

LOOKED_AT = 25
"""Cases that are looked at; of more, as many, evenly spread."""
FINER = (0.85, 0.7, 0.5, 0.35)
"""Shares of the planned spacing that are tried, none of them finer than the scans."""
NOTICEABLE = 0.1
"""Share of a label's components whose loss is worth a warning."""

ShowCases = Callable[[Sequence[Case]], Iterable[Case]]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label indices `(z, y, x)` of a case in the order of the plan's axes, and their
    spacing in mm.
    """

    name: str
    indices: Array
    spacing: Spacing


@dataclass(frozen=True)
class Loss:
    """What a label loses in one case: components before, and how many are gone; gone:
    whether the label is.
    """

    components: int
    lost: int
    gone: bool


@dataclass(eq=False)
class Survival:
    """What was counted; losses: case -> label index -> what it loses, of all labels
    that the case has.
    """

    spacing: Spacing
    cases: int
    looked_at: int
    losses: dict[str, dict[int, Loss]] = field(default_factory=dict)
    suggestion: Spacing | None = None

    @property
    def damaged(self) -> dict[str, set[int]]:
        """Labels that are gone, by case."""
        damaged: dict[str, set[int]] = {}
        for name, losses in self.losses.items():
            gone = {index for index, loss in losses.items() if loss.gone}
            if gone:
                damaged[name] = gone
        return damaged

    def warnings(self, labels: LabelScheme) -> list[str]:
        """A line for each label that is lost somewhere, or much of whose components."""
        names = {value: name for name, value in labels.labels.items()}
        lines = []
        for index, value in enumerate(labels.values[1:], start=1):
            line = self._warning(index, names[value])
            if line:
                lines.append(line)
        return lines

    def _warning(self, index: int, name: str) -> str:
        having = self._losses_of(index)
        gone = [case for case, loss in having.items() if loss.gone]
        some = [case for case, loss in having.items() if loss.lost]
        total = sum(loss.components for loss in having.values())
        lost = sum(loss.lost for loss in having.values())
        where = f"at {sized(self.spacing)} mm"
        if gone:
            what = f"{name} is lost in {len(gone)} of {len(having)} cases {where}"
            return f"{what} ({few(gone, shown=3)}){self._remedy()}"
        if lost <= NOTICEABLE * total:
            return ""
        what = f"{name} loses {lost} of {total} components {where}"
        return f"{what} ({few(some, shown=3)}){self._remedy()}"

    def _losses_of(self, index: int) -> dict[str, Loss]:
        """What a label loses, by case that has it."""
        return {
            case: losses[index]
            for case, losses in self.losses.items()
            if index in losses
        }

    def _remedy(self) -> str:
        sampled = ""
        if self.looked_at < self.cases:
            sampled = f"; {self.looked_at} of {self.cases} cases were looked at"
        if self.suggestion is None:
            return f"; no spacing of the scans keeps it{sampled}"
        return (
            f"; a spacing of {sized(self.suggestion)} mm keeps it (set it in plan.json "
            f"and train with --plan){sampled}"
        )

    def summary(self) -> str:
        """What was looked at, in a few words."""
        every = list(chain.from_iterable(of.values() for of in self.losses.values()))
        total = sum(loss.components for loss in every)
        left = total - sum(loss.lost for loss in every)
        return (
            f"keeps {left} of {total} components of labels "
            f"in {self.looked_at} of {self.cases} cases"
        )


def look_at_survival(
    dataset: Dataset,
    spacing: Spacing,
    order: tuple[int, int, int],
    *,
    boxes: Mapping[str, BoxEdges | None] | None = None,
    progress: ShowCases = lambda cases: cases,
) -> Survival:
    """Count what the labels of a dataset lose at `spacing` mm (in `order` of the axes).

    boxes: what cases are cropped to before they are resampled, on canonical axes; label
    maps that cannot be read are passed over.
    """
    labelled = [case for case in dataset.training_cases if case.label is not None]
    chosen = _spread(labelled)
    survival = Survival(spacing, len(labelled), len(chosen))
    damaged: list[LabelMap] = []
    assert dataset.labels is not None
    for case in progress(chosen):
        box = (boxes or {}).get(case.name)
        label_map = _read(case, dataset.labels, order, box)
        if label_map is None or not label_map.indices.size:
            continue
        if not _fits(label_map, spacing):
            continue
        losses = count_losses(label_map, spacing)
        survival.losses[case.name] = losses
        if any(loss.lost for loss in losses.values()):
            damaged.append(label_map)
    if damaged:
        survival.suggestion = _keeping(damaged, spacing)
    return survival


def _spread(cases: Sequence[Case]) -> list[Case]:
    if len(cases) <= LOOKED_AT:
        return list(cases)
    places = np.linspace(0, len(cases) - 1, LOOKED_AT).round().astype(int)
    return [cases[place] for place in places]


def _read(
    case: Case,
    labels: LabelScheme,
    order: tuple[int, int, int],
    box: BoxEdges | None,
) -> LabelMap | None:
    try:
        image = read_header(case.images[0], choice=case.choice)
        volume = read_reference(case, labels, image.grid)
        indices = labels.encode(volume.array, where=case.name)
    except (TrivoxError, OSError):
        return None
    encoded = volume.with_array(indices)
    canonical = reorient(encoded, canonical_orientation(encoded.affine))
    array = canonical.array[0]
    if box is not None:
        array = array[tuple(slice(*edge) for edge in box)]
    first, second, third = order
    spacing = canonical.spacing
    ordered = np.maximum(array.transpose(order), 0)  # ignored voxels are no structure
    return LabelMap(
        case.name,
        np.ascontiguousarray(ordered),
        (spacing[first], spacing[second], spacing[third]),
    )


def _fits(label_map: LabelMap, spacing: Spacing) -> bool:
    """Whether there is memory for the label map once it is resampled."""
    z, y, x = label_map.indices.shape
    shape = resampled_shape((z, y, x), label_map.spacing, spacing)
    return preparation_bytes(shape, channels=1) < free_memory()


def count_losses(label_map: LabelMap, spacing: Spacing) -> dict[int, Loss]:
    """What each label of a case loses when it is resampled as preparation does."""
    indices = label_map.indices
    components = connected(indices)
    count = int(components.max())
    label_of = np.zeros(count + 1, np.int16)
    label_of[components] = indices
    survives = np.zeros(count + 1, bool)
    survives[_resampled(label_map, components, spacing)] = True
    # components compete for a voxel, where a label does not with itself
    left = np.unique(_resampled(label_map, indices, spacing)).tolist()
    losses: dict[int, Loss] = {}
    for index in np.unique(label_of[1:]).tolist():
        parts = label_of == index
        lost = int(np.count_nonzero(parts & ~survives))
        losses[index] = Loss(
            components=int(np.count_nonzero(parts)),
            lost=lost,
            gone=index not in left,
        )
    return losses


def _resampled(label_map: LabelMap, array: Array, spacing: Spacing) -> Array:
    """Whole numbers `(z, y, x)` on the grid of a label map, at another spacing."""
    z, y, x = array.shape
    shape = resampled_shape((z, y, x), label_map.spacing, spacing)
    coarse = GridRules().labels.coarse_axis(label_map.spacing, spacing)
    numbers = torch.from_numpy(array.astype(np.int32))
    resized = resize_labels(numbers, shape, nearest_axis=coarse)
    return np.asarray(resized.numpy())


def _keeping(damaged: Sequence[LabelMap], spacing: Spacing) -> Spacing | None:
    """The coarsest of the finer spacings that keeps every component; None if none
    does.
    """
    for finer in _finer(damaged, spacing):
        if not any(_loses(label_map, finer) for label_map in damaged):
            return finer
    return None


def _loses(label_map: LabelMap, spacing: Spacing) -> bool:
    """Whether a case loses a component at a spacing."""
    losses = count_losses(label_map, spacing)
    return any(loss.lost for loss in losses.values())


def _finer(damaged: Sequence[LabelMap], spacing: Spacing) -> Iterator[Spacing]:
    finest = np.min([label_map.spacing for label_map in damaged], axis=0)
    tried: list[Spacing] = []
    for share in (*FINER, 0.0):
        limited = np.maximum(np.multiply(spacing, share), finest)
        z, y, x = np.minimum(spacing, limited).round(4).tolist()
        if (z, y, x) not in tried:
            tried.append((z, y, x))
            yield z, y, x
