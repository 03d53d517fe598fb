"""The class of a case: read where its lesion is, by the network that found it, and
answered by its head or a classifier.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.boxes import box_of
from trivox.datasets.clinical.columns import (
    ClinicalColumn,
    clinical_features,
    clinical_flags,
)
from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import mask_table, other_targets
from trivox.inference.classes.case_masks import case_masks
from trivox.inference.classes.features import handmade_features
from trivox.inference.engines.engine import require_finite
from trivox.inference.engines.torch import TorchEngine
from trivox.inference.logits.labels import label_indices
from trivox.inference.windows import SlidingWindows, window_starts
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.losses.targets import region_targets
from trivox.learning.runtime import Runtime, large_blocks_kept
from trivox.networks.class_head import MASKS, MultitaskNetwork, Pooled
from trivox.planning.plan import Plan
from trivox.preparation.sampler import patch_start
from trivox.uploads import sent
from trivox.volumes.volume import Array, Shape

NO_LESION = "no lesion predicted: answered from the most likely voxels"
NO_CELLS: Mapping[str, str] = {}
LIKELIEST = 64
"""Voxels that stand for the lesion where none is predicted."""


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
    clinical: tuple[ClinicalColumn, ...] = ()
    """Columns that are read beside the image."""

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
        clinical: tuple[ClinicalColumn, ...] = (),
    ) -> "ClassReader":
        """A reader of `network`; without a classifier its head answers, with logits
        divided by `temperature`.
        """
        return cls(
            network,
            plan,
            lesion,
            mask_table(plan.labels, lesion),
            (*MASKS, *other_targets(plan.labels, lesion)),
            runtime,
            mirror_axes,
            classifier,
            temperature,
            clinical,
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
        self,
        image: Tensor,
        indices: Array,
        *,
        everything: bool = True,
        cells: Mapping[str, str] = NO_CELLS,
    ) -> Reading:
        """Read a prepared image `(c, z, y, x)` where label `indices` `(z, y, x)` on its
        grid show the lesion.

        everything: run the network even where the answer does not need it; cells: what
        clinical columns say of the case.
        """
        reading = self._of_image(image, indices, everything=everything)
        if not self.clinical:
            return reading
        features = reading.features | clinical_features(self.clinical, cells)
        beyond = set() if self.classifier is None else self.classifier.beyond(features)
        flags = clinical_flags(self.clinical, cells, beyond=beyond)
        return Reading(reading.logits, features, (*reading.flags, *flags))

    def _of_image(self, image: Tensor, indices: Array, *, everything: bool) -> Reading:
        """What the image says."""
        hand_made = self._hand_made(image, indices)
        if not np.isin(indices, self.lesion).any():
            return self._deep(image, self._likeliest(image), hand_made, (NO_LESION,))
        if everything or self.needs_network:
            return self._deep(image, indices, hand_made, ())
        return Reading(None, hand_made, ())

    def _deep(
        self,
        image: Tensor,
        indices: Array,
        hand_made: dict[str, float],
        flags: tuple[str, ...],
    ) -> Reading:
        """What the network adds: means over the windows that hold some of the lesion,
        weighted with how much.
        """
        views = [self._view(image, indices, start) for start in self._starts(indices)]
        mass = torch.tensor([view.mass for view in views], dtype=torch.float64)
        shares = (mass / mass.sum()).tolist()
        logits = torch.zeros_like(views[0].logits)
        pooled = torch.zeros_like(views[0].pooled)
        for share, view in zip(shares, views, strict=True):
            logits = logits + share * view.logits
            pooled = pooled + share * view.pooled
        deep = dict(zip(self._pooled_names(), pooled.tolist(), strict=True))
        return Reading(logits.numpy(), {**hand_made, **deep}, flags)

    def log_probabilities(self, reading: Reading) -> Array:
        """What the classifier, or else the head, makes of a reading, `(k,)`."""
        if self.classifier is None:
            assert reading.logits is not None, "a head that answers is always run"
            logits = torch.from_numpy(reading.logits / self.temperature)
            return np.asarray(logits.log_softmax(0))
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
                for mask in self.mask_names:
                    names += [f"stage {stage} {mask} {what} {i}" for i in range(width)]
        return names

    def _starts(self, indices: Array) -> list[Shape]:
        """Windows over the lesion's box: one round its middle, or as many as it takes
        without overlap.
        """
        inside = np.isin(indices, self.lesion)
        patch_size = self.plan.patch_size
        box = box_of(inside)
        assert box is not None
        places = []
        for side, patch, voxels in zip(box, patch_size, inside.shape, strict=True):
            size = side.stop - side.start
            if size <= patch:
                middle = (side.start + side.stop) // 2
                places.append([patch_start(middle, patch, voxels)])
            else:
                starts = window_starts(size, patch, 0.0)
                places.append([side.start + start for start in starts])
        windows = [(z, y, x) for z, y, x in product(*places)]
        return [start for start in windows if inside[_within(start, patch_size)].any()]

    def _view(self, image: Tensor, indices: Array, start: Shape) -> "_View":
        """What the network finds in one window, means over its mirrored copies."""
        size = self.plan.patch_size
        device = self.runtime.device
        window = sent(_window(image, start, size), device)
        whole = torch.from_numpy(indices[None].astype(np.int16))
        table = torch.from_numpy(self.mask_table)
        known = region_targets(_window(whole, start, size), table).float()
        mass = float(known[:, 0].sum())
        masks = self.network.masks.around(sent(known, device))
        logits: list[Tensor] = []
        pooled: list[Tensor] = []
        # one by one: both would leave the cache
        for flip in [(), self.mirror_axes] if self.mirror_axes else [()]:
            axes = [axis + 2 for axis in flip]
            copy = window[None].flip(axes)
            with self.runtime.autocast(), large_blocks_kept():
                answer, moments = self.network.pool(copy, masks.flip(axes))
            require_finite(answer)
            logits.append(answer[0].float().cpu())
            pooled.append(features_in_row(moments).cpu())
        return _View(
            torch.stack(logits).mean(0),
            torch.stack(pooled).mean(0),
            mass,
        )

    def _likeliest(self, image: Tensor) -> Array:
        """Label indices that are lesion at its `LIKELIEST` most probable voxels."""
        windows = SlidingWindows(
            [TorchEngine(self.network.segmenter, self.runtime)],
            self.plan.patch_size,
            self.plan.labels.output_channels,
        )
        parts = [
            self.network.masks.predicted(slab.logits[None])[0, 0].cpu()
            for slab in windows.slabs(image)
        ]
        chance = torch.cat(parts)
        indices = np.zeros(chance.shape, np.int16)
        best = chance.flatten().topk(min(LIKELIEST, chance.numel())).indices.numpy()
        indices.reshape(-1)[best] = self.lesion[0]
        return indices


@dataclass(frozen=True, eq=False)
class _View:
    """Of one window: head logits `(k,)`, pooled features `(f,)`, lesion voxels."""

    logits: Tensor
    pooled: Tensor
    mass: float


def predicted_indices(
    windows: SlidingWindows, labels: LabelScheme, image: Tensor
) -> Array:
    """Label indices `(z, y, x)` on the network's own grid."""
    slabs = windows.slabs(image)
    return np.concatenate([label_indices(slab.logits.cpu(), labels) for slab in slabs])


def features_in_row(pooled: Pooled) -> Tensor:
    """Means and deviations of each encoder stage in one row `(f,)`, without those of
    the image itself.
    """
    parts = []
    for mean, deviation in zip(*pooled, strict=True):
        parts += [mean.flatten(), deviation.flatten()]
    return torch.cat(parts[2:]).float()


def _within(start: Shape, size: Shape) -> tuple[slice, slice, slice]:
    """The part of a window that lies behind the first voxels of an array."""
    z, y, x = (
        slice(max(first, 0), max(first + voxels, 0))
        for first, voxels in zip(start, size, strict=True)
    )
    return z, y, x


def _window(array: Tensor, start: Shape, size: Shape) -> Tensor:
    """A box of `(c, z, y, x)` that may reach over the border; outside is zero."""
    inside = array[(slice(None), *_within(start, size))]
    if tuple(inside.shape[1:]) == tuple(size):
        return inside
    edges: list[int] = []  # as torch wants them: the last axis first
    for axis in (2, 1, 0):
        before = max(-start[axis], 0)
        edges += [before, size[axis] - before - inside.shape[axis + 1]]
    return torch.nn.functional.pad(inside, edges)
