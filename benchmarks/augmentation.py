"""Augmentation: cutting and changing a training patch of 2x128^3, against nnU-Net's
default pipeline.

Mean CPU seconds a sample over many seeds, since most changes happen to few samples.
Theirs: a 205^3 crop through `nnUNetTrainer.get_training_transforms`. Ours:
`BatchSource.read` and `finish` on batches of 2. Both cut from an array in memory at
random places; deep-supervision targets are left out on both sides.
"""

import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from _measure import arguments, cells, line
from trivox.config.options import Augmentation
from trivox.preparation.batches import BatchSource
from trivox.preparation.sampler import PatchSampler

BATCH = 2


@dataclass(frozen=True, eq=False)
class Scan:
    """A prepared case in memory, with the part of `Store` that a sampler reads."""

    image: np.ndarray
    label: np.ndarray

    def channels(self, case: str) -> int:
        return self.image.shape[0]

    def shape(self, case: str) -> tuple[int, ...]:
        return self.label.shape

    def facts(self, case: str) -> dict:
        return {"present": {}}

    def read_box(
        self, case: str, start: list[int], size: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        return cut(self.image, start, size), cut(self.label[None], start, size)[0]


def cut(array: np.ndarray, start: list[int], size: tuple[int, int, int]) -> np.ndarray:
    """nnU-Net's own function cuts for both sides."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    return crop_and_pad_nd(
        array, [[s, s + int(n)] for s, n in zip(start, size, strict=True)], 0
    )


def scan(size: int, classes: int) -> Scan:
    label = cells((size,) * 3, classes)
    noise = np.random.default_rng(2).normal(size=(2, *label.shape)).astype(np.float32)
    image = np.stack(
        [gaussian_filter(part, 1) * 3 + label / classes for part in noise]
    ).astype(np.float32)
    return Scan(image, label)


def ours(
    case: Scan, patch: tuple[int, int, int], step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    sampler = PatchSampler(
        case,  # type: ignore[arg-type]
        ["scan"],
        patch,
        BATCH,
        foreground_fraction=0.0,
    )
    source = BatchSource(
        sampler=sampler,
        seed=1,
        spacing=(1.0, 1.0, 1.0),
        positions=range(BATCH),
        augmentation=Augmentation(),
    )
    return source.read(step).finish(torch.device("cpu"))


def their_pipeline(patch: tuple[int, int, int]) -> SimpleNamespace:
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import (
        get_patch_size,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    turn = (-30 / 360 * 2 * np.pi, 30 / 360 * 2 * np.pi)
    transforms = nnUNetTrainer.get_training_transforms(
        patch, turn, None, (0, 1, 2), False
    )
    return SimpleNamespace(
        crop=get_patch_size(patch, turn, turn, turn, (0.85, 1.25)),
        transforms=transforms,
    )


def theirs(case: Scan, pipeline: SimpleNamespace, rng: np.random.Generator) -> dict:
    starts = [
        int(rng.integers(-20, n + 21 - c))
        for n, c in zip(case.label.shape, pipeline.crop, strict=True)
    ]
    image = torch.from_numpy(cut(case.image, starts, pipeline.crop)).float()
    label = torch.from_numpy(cut(case.label[None], starts, pipeline.crop)).to(
        torch.int16
    )
    return pipeline.transforms(image=image, segmentation=label)


def compare(
    size: int, patch: tuple[int, int, int], classes: int, *, samples: int
) -> None:
    case, pipeline, rng = (
        scan(size, classes),
        their_pipeline(patch),
        np.random.default_rng(0),
    )
    np.random.seed(0)  # noqa: NPY002 - batchgeneratorsv2 draws from the global generators
    torch.manual_seed(0)
    ours(case, patch, 10**6), theirs(case, pipeline, rng)
    costs: tuple[list[float], list[float]] = ([], [])
    for step in range(samples // BATCH):
        start = time.process_time()
        ours(case, patch, step)
        costs[0].append((time.process_time() - start) / BATCH)
        start = time.process_time()
        for _ in range(BATCH):
            theirs(case, pipeline, rng)
        costs[1].append((time.process_time() - start) / BATCH)
    means = [float(np.mean(side)) for side in costs]
    errors = [float(np.std(side, ddof=1) / np.sqrt(len(side))) for side in costs]
    line(
        f"augmentation 2x{'x'.join(map(str, patch))}, {classes} labels, {samples} samples",
        *(
            f"{1e3 * m:.0f} +- {1e3 * e:.0f} ms cpu/sample"
            for m, e in zip(means, errors, strict=True)
        ),
        means[1] / means[0],
        "same distributions, own random draws",
    )


def main() -> None:
    quick = arguments(__doc__).quick
    for classes in (4, 16):
        compare(
            120 if quick else 256,
            (64,) * 3 if quick else (128,) * 3,
            classes,
            samples=60 if quick else 120,
        )


if __name__ == "__main__":
    main()
