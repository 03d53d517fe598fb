"""Which patch comes next.

Every sample is a pure function of (seed, step, position in the batch).

So a resumed run continues with the very same patches, ranks draw disjoint parts of one
global batch, and reader threads may run ahead in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trivox.datasets.labels import IGNORED
from trivox.preparation.store import Store
from trivox.volumes.volume import Array, Shape


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
        return position >= round(self.batch_size * (1 - self.foreground_fraction))

    def on_lesion(self, position: int) -> bool:
        """Whether this position of the batch is centred on a lesion; at least one is,
        if any fraction is asked for.
        """
        if self.lesions is None or not self.lesions.fraction or not self.lesions.groups:
            return False
        return position >= self.batch_size - max(
            1, round(self.batch_size * self.lesions.fraction)
        )

    def draw(self, rng: np.random.Generator, position: int) -> PatchRequest:
        """Choose a case and a centre voxel."""
        if self.lesions is not None and self.on_lesion(position):
            return self._on_lesion(rng, self.lesions)
        case = self.cases[int(rng.integers(len(self.cases)))]
        counts = {
            int(index): count
            for index, count in self.store.facts(case)["present"].items()
        }
        voxels = {index: count for index, count in counts.items() if index >= 0}
        present = [index for index in voxels if index > 0]
        partly = IGNORED in counts  # keep to labelled voxels
        if partly and voxels and not (self.is_forced(position) and present):
            shares = np.array(list(voxels.values())) / sum(voxels.values())
            present = [int(rng.choice(list(voxels), p=shares))]
        if (self.is_forced(position) or partly) and present:
            spots = self.store.foreground(
                case, present[int(rng.integers(len(present)))]
            )
            z, y, x = (int(v) for v in spots[int(rng.integers(len(spots)))])
            return PatchRequest(case, (z, y, x))
        z, y, x = (
            int(rng.integers(low, high + 1))
            for low, high in (
                _centre_range(size, patch)
                for size, patch in zip(
                    self.store.shape(case), self.patch_size, strict=True
                )
            )
        )
        return PatchRequest(case, (z, y, x))

    def _on_lesion(
        self, rng: np.random.Generator, lesions: LesionSampling
    ) -> PatchRequest:
        """A random voxel of the lesion of a case; where no mask is known, the middle of
        the case.
        """
        group = lesions.groups[int(rng.integers(len(lesions.groups)))]
        case = group[int(rng.integers(len(group)))]
        counts = {
            index: self.store.facts(case)["present"].get(str(index), 0)
            for index in lesions.indices
        }
        total = sum(counts.values())
        if not total:
            z, y, x = (n // 2 for n in self.store.shape(case))
            return PatchRequest(case, (z, y, x))
        index = int(rng.choice(list(counts), p=np.array(list(counts.values())) / total))
        spots = self.store.foreground(case, index)
        z, y, x = (int(v) for v in spots[int(rng.integers(len(spots)))])
        return PatchRequest(case, (z, y, x))

    def read(self, request: PatchRequest, size: Shape) -> tuple[Array, Array]:
        """Image and label in a box of `size` round the request's centre, kept inside
        the case where it fits.
        """
        start = [
            patch_start(centre, patch, limit) - (box - patch) // 2
            for centre, patch, box, limit in zip(
                request.centre,
                self.patch_size,
                size,
                self.store.shape(request.case),
                strict=True,
            )
        ]
        return self.store.read_box(request.case, start, size)


def patch_start(centre: int, patch: int, limit: int) -> int:
    """First voxel of a patch round `centre`: shifted to lie inside an axis of `limit`
    voxels, or centred if too long.
    """
    if patch >= limit:
        return -((patch - limit) // 2)
    return min(max(centre - patch // 2, 0), limit - patch)


def _centre_range(size: int, patch: int) -> tuple[int, int]:
    """Centres for which all patches inside the axis are equally likely."""
    return (
        (size // 2, size // 2)
        if patch >= size
        else (patch // 2, size - patch + patch // 2)
    )
