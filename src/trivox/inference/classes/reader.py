"""The class of a case: read where its lesion is, by the network that found it, and
answered by its head or a classifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import mask_table, other_targets
from trivox.inference.classes.case_masks import case_masks
from trivox.inference.classes.features import handmade_features
from trivox.inference.windows import SlidingWindows, window_starts
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.losses.targets import region_targets
from trivox.learning.runtime import Runtime
from trivox.networks.class_head import MASKS, MultitaskNetwork
from trivox.planning.plan import Plan
from trivox.preparation.sampler import patch_start
from trivox.volumes.volume import Array, Shape

NO_LESION = "no lesion predicted: answered from the most likely voxels"
LIKELIEST = 64
"""Voxels that stand for the lesion where none is predicted."""


@dataclass(frozen=True)
class Classification:
    """The class of a case.

    probabilities: by class name, summing to 1; flags: why to doubt the answer.
    """

    probabilities: Mapping[str, float]
    flags: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


@dataclass(frozen=True, eq=False)
class Reading:
    """What one network reads from a case.

    logits: of its head `(k,)`, None if it was not run; features: by name.
    """

    logits: Array | None
    features: dict[str, float]
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ClassReader:
    """One network with a class head, made ready to read the class of prepared cases.

    lesion: label indices that make up the lesion; mirror_axes: axes along which a copy
    is mirrored; it and the unmirrored image are averaged. All eight copies of the
    segmentation would cost as much again as the mask and change next to nothing.
    """

    network: MultitaskNetwork
    plan: Plan
    lesion: tuple[int, ...]
    mask_table: Array
    """Membership `(mask, index)` of lesion, organ and other targets."""
    mask_names: tuple[str, ...]
    runtime: Runtime
    mirror_axes: tuple[int, ...] = ()
    classifier: CaseClassifier | None = None
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        network: MultitaskNetwork,
        plan: Plan,
        lesion: tuple[int, ...],
        runtime: Runtime,
        *,
        mirror_axes: tuple[int, ...] = (),
        classifier: CaseClassifier | None = None,
        temperature: float = 1.0,
    ) -> "ClassReader":
        """A reader of `network`; without a classifier its head answers, with logits
        divided by `temperature`.
        """
        others = other_targets(plan.labels, lesion)
        table = mask_table(plan.labels, lesion)
        names = (*MASKS, *others)
        return cls(
            network,
            plan,
            lesion,
            table,
            names,
            runtime,
            mirror_axes,
            classifier,
            temperature,
        )

    @property
    def needs_network(self) -> bool:
        """Whether the answer depends on the network's own features, or on hand-made
        ones alone.
        """
        return self.classifier is None or not set(self.classifier.names).isdisjoint(
            self._pooled_names()
        )

    @torch.inference_mode()
    def read(
        self, image: Tensor, indices: Array, *, everything: bool = True
    ) -> Reading:
        """Read a prepared image `(c, z, y, x)` where label `indices` `(z, y, x)` on its
        grid show the lesion.

        everything: run the network even where the answer does not need it.
        """
        flags: tuple[str, ...] = ()
        hand_made = self._hand_made(image, indices)
        found = bool(np.isin(indices, self.lesion).any())
        if found and not (everything or self.needs_network):
            return Reading(None, hand_made, flags)
        if not found:
            indices, flags = self._likeliest(image), (NO_LESION,)
        views = [self._view(image, indices, start) for start in self._starts(indices)]
        mass = torch.tensor([lesion for *_, lesion in views], dtype=torch.float64)
        share = (mass / mass.sum()).tolist()
        logits = sum(
            part * found for part, (found, _, _) in zip(share, views, strict=True)
        )
        pooled = sum(
            part * found for part, (_, found, _) in zip(share, views, strict=True)
        )
        names = self._pooled_names()
        assert isinstance(logits, torch.Tensor)
        assert isinstance(pooled, torch.Tensor)
        deep = dict(zip(names, pooled.tolist(), strict=True))
        return Reading(logits.numpy(), {**hand_made, **deep}, flags)

    def log_probabilities(self, reading: Reading) -> Array:
        """What the classifier, or else the head, makes of a reading, `(k,)`."""
        if self.classifier is None:
            assert reading.logits is not None, "a head that answers is always run"
            return np.asarray(
                torch.from_numpy(reading.logits / self.temperature).log_softmax(0)
            )
        chance = self.classifier.probabilities(reading.features)[0]
        return np.asarray(np.log(np.clip(chance, 1e-12, 1)))

    def subsets(self) -> dict[str, tuple[str, ...]]:
        """Groups of feature names by where they come from: one for each encoder stage,
        finest first.
        """
        stages: dict[str, list[str]] = {}
        for name in self._pooled_names():
            stages.setdefault(" ".join(name.split()[:2]), []).append(name)
        return {stage: tuple(names) for stage, names in stages.items()}

    def _hand_made(self, image: Tensor, indices: Array) -> dict[str, float]:
        masks = case_masks(indices, self.plan.labels, self.lesion, self.plan.spacing)
        channels = len(self.plan.channels)
        return handmade_features(
            image[:channels].numpy(),
            masks,
            self.plan.spacing,
            channels=self.plan.channels,
        )

    def _pooled_names(self) -> list[str]:
        names = []
        for stage, width in enumerate(self.plan.topology.features):
            for what in ("mean", "deviation"):
                names += [
                    f"stage {stage} {mask} {what} {i}"
                    for mask in self.mask_names
                    for i in range(width)
                ]
        return names

    def _starts(self, indices: Array) -> list[Shape]:
        """Windows over the lesion's box: one round its middle, or as many as it takes
        without overlap.
        """
        inside = np.isin(indices, self.lesion)
        places = []
        for axis, patch in enumerate(self.plan.patch_size):
            hits = np.flatnonzero(
                inside.any(axis=tuple(other for other in range(3) if other != axis))
            )
            low, high = int(hits[0]), int(hits[-1]) + 1
            if high - low <= patch:
                places.append(
                    [patch_start((low + high) // 2, patch, indices.shape[axis])]
                )
            else:
                places.append(
                    [low + start for start in window_starts(high - low, patch, 0.0)]
                )
        boxes = [(z, y, x) for z, y, x in product(*places)]
        return [box for box in boxes if self._inside(inside, box).any()]

    def _inside(self, array: Array, start: Shape) -> Array:
        return array[
            tuple(
                slice(max(s, 0), max(s + p, 0))
                for s, p in zip(start, self.plan.patch_size, strict=True)
            )
        ]

    def _view(
        self, image: Tensor, indices: Array, start: Shape
    ) -> tuple[Tensor, Tensor, float]:
        """Head logits `(k,)`, pooled features `(f,)` and lesion voxels of one window,
        means over its mirrored copies.
        """
        device = self.runtime.device
        window = _window(image, start, self.plan.patch_size).to(device)
        labels = _window(
            torch.from_numpy(indices[None].astype(np.int16)),
            start,
            self.plan.patch_size,
        )[0]
        known = (
            region_targets(labels[None], torch.from_numpy(self.mask_table))
            .float()
            .to(device)
        )
        masks, found = self.network.masks.around(known), []
        for flip in (
            [(), self.mirror_axes] if self.mirror_axes else [()]
        ):  # one by one: both would leave the cache
            axes = [axis + 2 for axis in flip]
            with self.runtime.autocast():
                logits, pooled = self.network.pool(
                    window[None].flip(axes), masks.flip(axes)
                )
            parts = [
                part.flatten()
                for mean, std in list(zip(*pooled, strict=True))[1:]
                for part in (mean, std)
            ]
            found.append((logits[0].float().cpu(), torch.cat(parts).float().cpu()))
        logits, features = (
            torch.stack(parts).mean(0) for parts in zip(*found, strict=True)
        )
        return logits, features, float(known[:, 0].sum())

    def _likeliest(self, image: Tensor) -> Array:
        """Label indices that are lesion at its `LIKELIEST` most probable voxels."""
        windows = SlidingWindows(
            [self.network.segmenter],
            self.plan.patch_size,
            self.plan.labels.output_channels,
            self.runtime,
        )
        chance = torch.cat(
            [
                self.network.masks.predicted(slab.logits[None])[0, 0].cpu()
                for slab in windows.slabs(image)
            ]
        )
        indices = np.zeros(chance.shape, np.int16)
        best = chance.flatten().topk(min(LIKELIEST, chance.numel())).indices.numpy()
        indices.reshape(-1)[best] = self.lesion[0]
        return indices


def predicted_indices(
    windows: SlidingWindows, labels: LabelScheme, image: Tensor
) -> Array:
    """Label indices `(z, y, x)` on the network's own grid."""
    parts = []
    for slab in windows.slabs(image):
        logits = slab.logits.cpu()
        if labels.exclusive:
            parts.append(logits.max(0).indices.to(torch.int16).numpy())
        else:
            parts.append(labels.paint_regions((logits > 0).numpy()))
    return np.concatenate(parts)


def joined(
    classes: Sequence[str], found: Sequence[Array], flags: Sequence[str]
) -> Classification:
    """The answer of several networks: the geometric mean of their probabilities, given
    as logarithms `(k,)`.
    """
    chance = torch.from_numpy(np.mean(np.stack(found), axis=0)).softmax(0).tolist()
    return Classification(
        dict(zip(classes, chance, strict=True)), tuple(dict.fromkeys(flags))
    )


def _window(array: Tensor, start: Shape, size: Shape) -> Tensor:
    """A box of `(c, z, y, x)` that may reach over the border; outside is zero."""
    inside = array[
        (
            slice(None),
            *(
                slice(max(s, 0), max(s + n, 0))
                for s, n in zip(start, size, strict=True)
            ),
        )
    ]
    if tuple(inside.shape[1:]) == tuple(size):
        return inside
    before = [max(-s, 0) for s in start]
    edges = [
        edge
        for b, n, have in zip(
            reversed(before), reversed(size), reversed(inside.shape[1:]), strict=True
        )
        for edge in (b, n - b - have)
    ]
    return torch.nn.functional.pad(inside, edges)
