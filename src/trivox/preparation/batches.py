"""Batches of augmented patches: drawn, read ahead by threads, finished on the device of
the network.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trivox.config.options import Augmentation
from trivox.preparation.intensity import (
    IntensityChange,
    apply_intensity,
    draw_intensity,
    mirror,
)
from trivox.preparation.masking import Masking, hide
from trivox.preparation.sampler import PatchSampler, sample_rng
from trivox.preparation.spatial import (
    SpatialChange,
    apply_spatial,
    common_box,
    draw_spatial,
)
from trivox.volumes.volume import Spacing

MASKS = 16
"""First of the streams of random numbers that masks are drawn from."""


@dataclass(frozen=True, eq=False)
class ClassedLabels:
    """Label indices `(b, z, y, x)` with the class of each sample's case, `(b,)`.

    classes: index, -1 where it is not known or not to be learnt from this patch;
    lesion: voxels of the case's lesion, -1 where its mask is not known.
    """

    labels: Tensor
    classes: Tensor
    lesion: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "ClassedLabels":
        return ClassedLabels(self.labels[part], self.classes[part], self.lesion[part])


Targets = Tensor | ClassedLabels
"""What a network is to say about a batch of images."""


class Unfinished(Protocol):
    """A batch as read."""

    def finish(self, device: torch.device) -> tuple[Any, Any]:
        """What the network is given, and what it is to say about it; both have a length
        and can be sliced.
        """


class Source(Protocol):
    """Batches as a pure function of the step."""

    def read(self, step: int) -> Unfinished:
        """Draw and read the batch of a step; touches no device and no shared state."""


@dataclass(frozen=True)
class CaseClasses:
    """Index of the class and lesion voxels of each case by name; cases left out have no
    class.
    """

    index: Mapping[str, int]
    lesion_voxels: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class RawBatch:
    """Patches as read: those taken as they are, and larger boxes for those that will be
    warped.
    """

    plain: tuple[Tensor, Tensor]
    boxed: tuple[Tensor, Tensor] | None
    warped: list[int]
    """Positions in the batch that the boxes belong to."""
    spatial: list[SpatialChange]
    intensity: list[IntensityChange]
    hidden: Tensor | None = None
    """Voxels `(b, z, y, x)` to hide, if any."""
    classes: Tensor | None = None
    """Class and lesion voxels of each sample `(b, 2)`, if any."""

    def finish(self, device: torch.device) -> tuple[Tensor, Targets]:
        """Augment on `device`: images `(b, c, z, y, x)` float32 and label indices `(b,
        z, y, x)` int16, with classes if any.

        Where blocks are hidden, targets `(b, c, z, y, x)` as
        `trivox.preparation.masking.hide` gives them instead of labels.
        """
        images, labels = (part.to(device, non_blocking=True) for part in self.plain)
        if self.boxed is not None:
            boxes, box_labels = (
                part.to(device, non_blocking=True) for part in self.boxed
            )
            patch = images.shape[2:]
            warped, warped_labels = apply_spatial(
                boxes, box_labels, self.spatial, (patch[0], patch[1], patch[2])
            )
            images, labels = (
                _interleave(plain, other, self.warped)
                for plain, other in ((images, warped), (labels, warped_labels))
            )
        if self.intensity:
            images = apply_intensity(images.contiguous(), self.intensity)
            images, labels = mirror(images, labels, self.intensity)
        if self.hidden is not None:
            return hide(images, self.hidden.to(device, non_blocking=True))
        if self.classes is not None:
            classes, lesion = self.classes.to(device, non_blocking=True).unbind(1)
            return images, ClassedLabels(labels, classes, lesion)
        return images, labels


@dataclass(frozen=True)
class BatchSource:
    """Batches as a pure function of the step.

    `positions` are this rank's places in the global batch.

    augmentation None gives plain patches (validation). `stream` keeps training and
    validation draws apart. With `masking` parts of the images are hidden, and in place
    of the labels comes what was there. The last `masks` channels are masks, not
    pictures: their grey values are left alone. With `classes` the labels come as
    `ClassedLabels`; a class is given where the sampler centred the patch on the lesion
    (in validation: everywhere).
    """

    sampler: PatchSampler
    seed: int
    spacing: Spacing
    positions: Sequence[int]
    augmentation: Augmentation | None = None
    stream: int = 0
    masking: Masking | None = None
    masks: int = 0
    classes: CaseClasses | None = None

    def read(self, step: int) -> RawBatch:
        """Draw and read the batch of a step; touches no device and no shared state."""
        drawn = [self._draw(step, position) for position in self.positions]
        changes = [change for _, change, _ in drawn if change is not None]
        patch = self.sampler.patch_size
        box = common_box(changes, patch) if changes else patch
        images, labels = zip(
            *(
                self.sampler.read(request, patch if change is None else box)
                for request, change, _ in drawn
            ),
            strict=True,
        )
        warped = [
            index for index, (_, change, _) in enumerate(drawn) if change is not None
        ]
        kept = [index for index, (_, change, _) in enumerate(drawn) if change is None]
        return RawBatch(
            plain=_stack(images, labels, kept, patch),
            boxed=_stack(images, labels, warped, box) if warped else None,
            warped=warped,
            spatial=changes,
            intensity=[intensity for _, _, intensity in drawn if intensity is not None],
            hidden=None if self.masking is None else self._hidden(self.masking, step),
            classes=None
            if self.classes is None
            else self._classes([request.case for request, *_ in drawn], self.classes),
        )

    def _classes(self, cases: Sequence[str], known: CaseClasses) -> Tensor:
        rows = []
        for case, position in zip(cases, self.positions, strict=True):
            told = self.augmentation is None or self.sampler.on_lesion(position)
            rows.append(
                (
                    known.index.get(case, -1) if told else -1,
                    known.lesion_voxels.get(case, -1),
                )
            )
        return torch.tensor(rows, dtype=torch.int64)

    def _hidden(self, masking: Masking, step: int) -> Tensor:
        """Drawn from a stream of its own: the patches are those that a source without
        masking gives.
        """
        patch, kind = self.sampler.patch_size, MASKS + self.stream
        rngs = (
            sample_rng(self.seed, step, position, stream=kind)
            for position in self.positions
        )
        return torch.from_numpy(np.stack([masking.draw(rng, patch) for rng in rngs]))

    def _draw(self, step: int, position: int):  # type: ignore[no-untyped-def]
        rng = sample_rng(self.seed, step, position, stream=self.stream)
        request = self.sampler.draw(rng, position)
        if self.augmentation is None:
            return request, None, None
        channels = self.sampler.store.channels(request.case) - self.masks
        spatial = draw_spatial(
            rng, self.augmentation, self.sampler.patch_size, self.spacing
        )
        return request, spatial, draw_intensity(rng, self.augmentation, channels)


def stream(
    source: Source, steps: Sequence[int], *, device: torch.device, workers: int
) -> Iterator[tuple[Any, Any]]:
    """The finished batches of `steps` in order, with up to `workers` + 1 of them read
    ahead.
    """
    if workers == 0:
        for step in steps:
            yield source.read(step).finish(device)
        return
    with ThreadPoolExecutor(
        max_workers=workers, thread_name_prefix="trivox-reader"
    ) as pool:
        waiting: deque[Future[Unfinished]] = deque()
        upcoming = iter(steps)
        try:
            for step in upcoming:
                waiting.append(pool.submit(source.read, step))
                if len(waiting) > workers:
                    yield waiting.popleft().result().finish(device)
            while waiting:
                yield waiting.popleft().result().finish(device)
        finally:
            for future in waiting:
                future.cancel()


def _stack(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    chosen: list[int],
    size: Sequence[int],
) -> tuple[Tensor, Tensor]:
    if not chosen:
        return torch.zeros(0, images[0].shape[0], *size), torch.zeros(
            0, *size, dtype=torch.int16
        )
    return (
        torch.from_numpy(np.stack([images[index] for index in chosen])),
        torch.from_numpy(np.stack([labels[index] for index in chosen])),
    )


def _interleave(plain: Tensor, warped: Tensor, places: list[int]) -> Tensor:
    """One batch with the warped samples at their places and the plain ones in between."""
    if not len(plain):
        return warped
    result = torch.empty(
        len(plain) + len(warped),
        *plain.shape[1:],
        dtype=plain.dtype,
        device=plain.device,
    )
    result[places] = warped
    result[[index for index in range(len(result)) if index not in places]] = plain
    return result
