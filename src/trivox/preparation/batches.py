"""Batches of augmented patches: drawn, read, and finished on the device of the network."""

from collections.abc import Sequence
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
from trivox.preparation.parcels import Parcel, smallest_integers
from trivox.preparation.sampler import PatchRequest, PatchSampler, sample_rng
from trivox.preparation.spatial import (
    SpatialChange,
    apply_spatial,
    common_box,
    draw_spatial,
)
from trivox.preparation.together import Changes, Patches
from trivox.volumes.volume import Array, Shape, Spacing


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


@dataclass(frozen=True, eq=False)
class Draw:
    """What is drawn for one sample: a patch, and its random changes, None where there
    are none.
    """

    request: PatchRequest
    spatial: SpatialChange | None = None
    intensity: IntensityChange | None = None


@dataclass(frozen=True, eq=False)
class RawBatch:
    """Patches as read: those taken as they are, and larger boxes for those that will be
    warped, images `(n, c, z, y, x)` and label indices `(n, z, y, x)` each.

    warped: positions in the batch that the boxes belong to; spatial: their changes;
    intensity: changes of all samples, or none; cases: name of each sample's case.
    """

    plain: Patches
    boxed: Patches | None
    warped: list[int]
    spatial: list[SpatialChange]
    intensity: list[IntensityChange]
    cases: Sequence[str] = ()

    def finish(self, device: torch.device) -> Patches:
        """Augment on `device`: images `(b, c, z, y, x)` float32 and label indices `(b,
        z, y, x)` int16.
        """
        if device.type == "cuda":
            return PackedBatch.of(self).finish(device)
        images, labels = _moved(self.plain, device)
        if self.boxed is not None:
            boxes, box_labels = _moved(self.boxed, device)
            warped, warped_labels = apply_spatial(
                boxes, box_labels, self.spatial, self.patch
            )
            images = _interleave(images, warped, self.warped)
            labels = _interleave(labels, warped_labels, self.warped)
        if self.intensity:
            images = apply_intensity(images.contiguous(), self.intensity)
            images, labels = mirror(images, labels, self.intensity)
        return images, labels

    @property
    def patch(self) -> Shape:
        """Size of the patches."""
        depth, rows, columns = self.plain[0].shape[2:]
        return depth, rows, columns

    def changes(self) -> Changes | None:
        """What a GPU does to all samples together; None without augmentation."""
        if not self.intensity:
            return None
        depth, rows, columns = (self.boxed or self.plain)[1].shape[1:]
        return Changes.of(
            self.spatial,
            self.warped,
            self.intensity,
            patch=self.patch,
            box=(depth, rows, columns),
            channels=self.plain[0].shape[1],
        )


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch as read, ready for a GPU: voxels and numbers in one piece of memory."""

    parcel: Parcel
    changes: Changes | None
    cases: Sequence[str] = ()

    @classmethod
    def of(cls, batch: RawBatch) -> "PackedBatch":
        """Pack a batch; label indices take a byte each, if they fit."""
        changes = batch.changes()
        named = {"images": batch.plain[0], "labels": smallest_integers(batch.plain[1])}
        if batch.boxed is not None:
            boxes, labels = batch.boxed
            named |= {"boxes": boxes, "box labels": smallest_integers(labels)}
        tensors = {} if changes is None else changes.tensors
        return cls(Parcel.of({**named, **tensors}), changes, batch.cases)

    def finish(self, device: torch.device) -> Patches:
        """As `RawBatch.finish`, in one upload and without a wait."""
        tensors = self.parcel.to(device).tensors()
        plain = (tensors["images"], tensors["labels"])
        if self.changes is None:
            return plain[0].float(), plain[1].to(torch.int16)
        boxed = None
        if "boxes" in tensors:
            boxed = (tensors["boxes"], tensors["box labels"])
        return self.changes.apply(tensors, plain, boxed)


def _moved(patches: Patches, device: torch.device) -> Patches:
    images, labels = patches
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


@dataclass(frozen=True)
class BatchSource:
    """Batches as a pure function of the step.

    `positions` are this rank's places in the global batch.

    augmentation None gives plain patches (validation). `stream` keeps training and
    validation draws apart. The last `masks` channels are masks, not pictures: their
    grey values are left alone. `trivox.preparation.masking.Masked` hides parts of what
    a source reads, `trivox.preparation.classes.Classed` adds classes.
    """

    sampler: PatchSampler
    seed: int
    spacing: Spacing
    positions: Sequence[int]
    augmentation: Augmentation | None = None
    stream: int = 0
    masks: int = 0

    def draw(self, step: int, position: int) -> Draw:
        """What the sample of a step at a position of the global batch is to be."""
        rng = sample_rng(self.seed, step, position, stream=self.stream)
        request = self.sampler.draw(rng, position)
        if self.augmentation is None:
            return Draw(request)
        channels = self.sampler.store.channels(request.case) - self.masks
        patch = self.sampler.patch_size
        spatial = draw_spatial(rng, self.augmentation, patch, self.spacing)
        intensity = draw_intensity(rng, self.augmentation, channels)
        return Draw(request, spatial, intensity)

    def read(self, step: int) -> RawBatch:
        """Draw and read the batch of a step; touches no device and no shared state."""
        draws = [self.draw(step, position) for position in self.positions]
        changes = [draw.spatial for draw in draws if draw.spatial is not None]
        patch = self.sampler.patch_size
        box = common_box(changes, patch) if changes else patch
        plain: list[tuple[Array, Array]] = []
        boxed: list[tuple[Array, Array]] = []
        warped: list[int] = []
        for index, draw in enumerate(draws):
            if draw.spatial is None:
                plain.append(self.sampler.read(draw.request, patch))
            else:
                boxed.append(self.sampler.read(draw.request, box))
                warped.append(index)
        channels = (boxed or plain)[0][0].shape[0]
        return RawBatch(
            plain=_stack(plain, channels, patch),
            boxed=_stack(boxed, channels, box) if boxed else None,
            warped=warped,
            spatial=changes,
            intensity=[d.intensity for d in draws if d.intensity is not None],
            cases=[draw.request.case for draw in draws],
        )


def _stack(
    patches: Sequence[tuple[Array, Array]], channels: int, size: Shape
) -> tuple[Tensor, Tensor]:
    """Images `(n, c, z, y, x)` and label indices `(n, z, y, x)`; n may be 0."""
    if not patches:
        no_labels = torch.zeros(0, *size, dtype=torch.int16)
        return torch.zeros(0, channels, *size), no_labels
    images = np.stack([image for image, _ in patches])
    labels = np.stack([label for _, label in patches])
    return torch.from_numpy(images), torch.from_numpy(labels)


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
