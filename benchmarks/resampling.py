"""Resampling: images by cubic splines and label maps, against nnU-Net's defaults
(scikit-image).

Ours: three banded matrix products an image, a vote of eight corners for labels. Theirs:
`resample_data_or_seg`.
"""

import numpy as np
import torch

from _measure import arguments, cells, equal_share, race
from trivox.volumes.resampling import resize_image, resize_labels


def image(
    small: tuple[int, int, int], large: tuple[int, int, int], *, rounds: int
) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import (
        resample_data_or_seg,
    )

    source = (
        np.random.default_rng(0).normal(size=(1, *small)).astype(np.float32)
    )  # white noise: the hardest image
    found = race(
        lambda: resize_image(torch.from_numpy(source), large, order=3),
        lambda: resample_data_or_seg(source, large, is_seg=False, order=3),
        rounds=rounds,
    )
    difference = float(np.abs(found.our_result.numpy() - found.their_result).max())
    found.show(
        f"image {_by(small)} -> {_by(large)}, order 3",
        f"max|diff| {difference:.1e} of std 1",
    )


def labels(
    small: tuple[int, int, int],
    large: tuple[int, int, int],
    classes: int,
    *,
    rounds: int,
) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import (
        resample_data_or_seg,
    )

    source = cells(small, classes)
    found = race(
        lambda: resize_labels(torch.from_numpy(source), large),
        lambda: resample_data_or_seg(source[None], large, is_seg=True, order=1)[0],
        rounds=rounds,
    )
    ours, theirs = found.our_result.numpy(), found.their_result
    other = np.argwhere(ours != theirs)
    gap = _gap(source, large, other, ours[ours != theirs], theirs[ours != theirs])
    found.show(
        f"labels {_by(small)} -> {_by(large)}, {classes} classes",
        f"{equal_share(ours, theirs):.5f} equal; "
        f"largest weight gap of the rest {gap:.0e} (0: exact ties)",
    )


def _gap(
    source: np.ndarray, shape: tuple[int, int, int], at: np.ndarray, *chosen: np.ndarray
) -> float:
    """By how much the linear weights of two chosen labels differ at most at new voxels
    `(n, 3)`.
    """
    if not len(at):
        return 0.0
    centre = (at + 0.5) * (np.array(source.shape) / shape) - 0.5
    centre = centre.clip(0, np.array(source.shape) - 1)
    low = np.floor(centre).astype(int)
    totals = [np.zeros(len(at)) for _ in chosen]
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(
            np.where(np.array(corner) == 1, centre - low, 1 - (centre - low)), axis=1
        )
        index = np.minimum(low + corner, np.array(source.shape) - 1)
        value = source[tuple(index.T)]
        for total, label in zip(totals, chosen, strict=True):
            total += weight * (value == label)
    return float(np.abs(totals[0] - totals[1]).max())


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def main() -> None:
    if arguments(__doc__).quick:
        image((50, 64, 64), (75, 96, 96), rounds=3)
        labels((50, 64, 64), (75, 96, 96), 11, rounds=3)
        labels((50, 64, 64), (75, 96, 96), 105, rounds=2)
        return
    image((100, 128, 128), (150, 192, 192), rounds=4)
    image((200, 256, 256), (300, 384, 384), rounds=2)
    labels((100, 128, 128), (150, 192, 192), 11, rounds=3)
    labels((100, 128, 128), (150, 192, 192), 105, rounds=2)


if __name__ == "__main__":
    main()
