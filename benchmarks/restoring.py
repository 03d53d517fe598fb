"""Restoring predictions: logits on the network's grid to labels on a grid 1.5 times
finer, against nnU-Net's default.

Ours: `restore_labels`. Theirs: linear resampling of every class
(`resample_data_or_seg`, order 1) and their argmax.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from _measure import arguments, cells, equal_share, extra_memory, line, race
from trivox.inference.restore import restore_labels


def logits_of(shape: tuple[int, int, int], classes: int) -> np.ndarray:
    """Logits of a trained network's kind: high inside each organ, soft borders, some
    noise; `(c, z, y, x)` float32.
    """
    labels = cells(shape, classes)
    rng = np.random.default_rng(1)
    result = np.empty((classes, *shape), np.float32)
    for index in range(classes):
        noise = gaussian_filter(rng.normal(size=shape).astype(np.float32), 1)
        result[index] = (
            12 * gaussian_filter((labels == index).astype(np.float32), 1.2) + 2 * noise
        )
    return result


def compare(shape: tuple[int, int, int], classes: int, *, rounds: int) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import (
        resample_data_or_seg_to_shape,
    )
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    logits = logits_of(shape, classes)
    manager = LabelManager(
        {str(i): i for i in range(classes)} | {"background": 0}, None
    )
    z, y, x = (round(1.5 * n) for n in shape)
    spacings = ((1.5,) * 3, (1.0,) * 3)

    def ours() -> torch.Tensor:
        return restore_labels(torch.from_numpy(logits), (z, y, x))

    def theirs() -> np.ndarray:
        fine = resample_data_or_seg_to_shape(
            logits, (z, y, x), *spacings, order=1, order_z=0, force_separate_z=None
        )
        return manager.convert_logits_to_segmentation(fine)

    found = race(ours, theirs, rounds=rounds)
    found.show(
        f"logits C={classes} {'x'.join(map(str, shape))} x1.5, {z * y * x / 1e6:.1f} M voxels",
        f"{equal_share(found.our_result, found.their_result):.6f} equal",
    )
    memory = [extra_memory(call) / (z * y * x) for call in (ours, theirs)]
    line(
        f"  extra memory C={classes}",
        *(f"{m:.1f} B/voxel" for m in memory),
        memory[1] / memory[0],
        "peak, with result",
    )


def main() -> None:
    if arguments(__doc__).quick:
        compare((40, 56, 56), 10, rounds=3)
        compare((32, 40, 40), 100, rounds=2)
        return
    compare((90, 106, 106), 10, rounds=4)
    compare((64, 80, 80), 100, rounds=3)


if __name__ == "__main__":
    main()
