"""Which patch comes next: every sample is a pure function of (seed, step, position in
the batch).

So a resumed run continues with the very same patches, ranks draw disjoint parts of one
global batch, and reader threads may run ahead in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trivox.datasets.labels import IGNORED
from trivox.preparation.store import Store
from trivox.volumes.volume import Array, Shape

T = TypeVar("T")


@dataclass(frozen=True)
class PatchRequest:
    """A patch: the case and the voxel at the patch's centre (which may lie near the
    border).
    """

    case: str
    centre: tuple[int, int, int]


def sample_rng(
    seed: int, step: int, position: int, *, stream: int = 0
) -> np.random.Generator:
    """The generator of one sample; `stream` keeps training, validation and augmentation
    apart.
    """
    return np.random.default_rng([seed, stream, step, position])


@dataclass(frozen=True)
class LesionSampling:
    """Patches centred on the lesion, that the class of a case is learnt from.

    indices: label indices of the lesion; fraction: of each batch, its last positions;
    groups: cases to draw from, first a group and then a case in it, each equally likely
    (one group a class: a balanced sampler).
    """

    indices: tuple[int, ...]
    fraction: float
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PatchSampler:
    """Draws cases uniformly; the last `foreground_fraction` of each batch is centred on
    a voxel of a random class.

    lesions: positions at the end that are centred on a lesion instead.
    """

    store: Store
    cases: Sequence[str]
    patch_size: Shape
    batch_size: int
    foreground_fraction: float = 0.33
    lesions: LesionSampling | None = None

    def is_forced(self, position: int) -> bool:
        """Whether this position of the batch is forced to foreground (nnU-Net's rule: a
        batch of 2 has one).
        """
        unforced = round(self.batch_size * (1 - self.foreground_fraction))
        return position >= unforced

    def on_lesion(self, position: int) -> bool:
        """Whether this position of the batch is centred on a lesion; at least one is,
        if any fraction is asked for.
        """
        if self.lesions is None or not self.lesions.fraction or not self.lesions.groups:
            return False
        share = self.batch_size * self.lesions.fraction
        return position >= self.batch_size - max(1, round(share))

    def draw(self, rng: np.random.Generator, position: int) -> PatchRequest:
        """Choose a case and a centre voxel."""
        if self.lesions is not None and self.on_lesion(position):
            return self._on_lesion(rng, self.lesions)
        case = _any_of(rng, self.cases)
        counts = self._voxels(case)
        partly = counts.pop(IGNORED, 0) > 0  # keep to labelled voxels
        classes = [index for index in counts if index > 0]
        forced = self.is_forced(position)
        if partly and counts and not (forced and classes):
            classes = [_by_share(rng, counts)]
        if (forced or partly) and classes:
            return self._on_voxel_of(rng, case, _any_of(rng, classes))
        centre: list[int] = []
        for size, patch in zip(self.store.shape(case), self.patch_size, strict=True):
            low, high = _centre_range(size, patch)
            place = rng.integers(low, high + 1)
            centre.append(int(place))
        z, y, x = centre
        return PatchRequest(case, (z, y, x))

    def _voxels(self, case: str) -> dict[int, int]:
        """Voxels of a case for each of its label indices."""
        facts = self.store.facts(case)
        return {int(index): count for index, count in facts["present"].items()}

    def _on_voxel_of(
        self, rng: np.random.Generator, case: str, index: int
    ) -> PatchRequest:
        """A patch round a random voxel of a label index."""
        voxels = self.store.foreground(case, index)  # (n, 3)
        chosen = int(rng.integers(len(voxels)))
        z, y, x = voxels[chosen].tolist()
        return PatchRequest(case, (z, y, x))

    def _on_lesion(
        self, rng: np.random.Generator, lesions: LesionSampling
    ) -> PatchRequest:
        """A random voxel of the lesion of a case; where no mask is known, the middle of
        the case.
        """
        case = _any_of(rng, _any_of(rng, lesions.groups))
        voxels = self._voxels(case)
        counts = {index: voxels.get(index, 0) for index in lesions.indices}
        if any(counts.values()):
            return self._on_voxel_of(rng, case, _by_share(rng, counts))
        z, y, x = (size // 2 for size in self.store.shape(case))
        return PatchRequest(case, (z, y, x))

    def read(self, request: PatchRequest, size: Shape) -> tuple[Array, Array]:
        """Image and label in a box of `size` round the request's centre, kept inside
        the case where it fits.
        """
        start = self.corner(request, size)
        return self.store.read_box(request.case, start, size)

    def corner(self, request: PatchRequest, size: Shape) -> tuple[int, int, int]:
        """First voxel of a box of `size` round the request's centre."""
        limits = self.store.shape(request.case)
        start: list[int] = []
        for axis, (patch, box) in enumerate(zip(self.patch_size, size, strict=True)):
            first = patch_start(request.centre[axis], patch, limits[axis])
            margin = (box - patch) // 2
            start.append(first - margin)
        z, y, x = start
        return z, y, x


def patch_start(centre: int, patch: int, limit: int) -> int:
    """First voxel of a patch round `centre`: shifted to lie inside an axis of `limit`
    voxels, or centred if too long.
    """
    if patch >= limit:
        return -((patch - limit) // 2)
    first = max(centre - patch // 2, 0)
    return min(first, limit - patch)


def _centre_range(size: int, patch: int) -> tuple[int, int]:
    """Centres for which all patches inside the axis are equally likely."""
    if patch >= size:
        return size // 2, size // 2
    lowest = patch // 2
    return lowest, size - patch + lowest


def _any_of(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, each equally likely."""
    return items[int(rng.integers(len(items)))]


def _by_share(rng: np.random.Generator, counts: Mapping[int, int]) -> int:
    """One of the keys, each as likely as its share of the counts."""
    voxels = np.array(list(counts.values()))
    shares = voxels / voxels.sum()
    return int(rng.choice(list(counts), p=shares))
