"""Class folders as the pancreas assessment hands them out, in small: masks with float
noise, a test set without classes.
"""

import numpy as np

from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SHAPE, SPACING = (6, 10, 8), (2.0, 0.73, 0.73)
NOISY_ONE = 1.0000152587890625  # what 214 of the 288 real masks hold in place of 1


def write_image(file, seed=0, channels=1):
    array = (
        np.random.default_rng(seed)
        .integers(-200, 200, (channels, *SHAPE))
        .astype(np.int16)
    )
    write_volume(file, Volume(array, affine_from_spacing(SPACING)))


def write_mask(file, values=(NOISY_ONE, 2)):
    array = np.zeros((1, *SHAPE), np.float32)
    array[:, 1:5, 2:8, 2:7] = values[0]
    array[:, 2:4, 3:6, 3:5] = values[1]
    write_volume(file, Volume(array, affine_from_spacing(SPACING)))


def write_pair(folder, name, seed=0, values=(NOISY_ONE, 2)):
    write_image(folder / f"{name}_0000.nii.gz", seed)
    write_mask(folder / f"{name}.nii.gz", values)


def write_tree(root, train=(3, 5, 4), validation=(1, 2, 1), test=2):
    """`train/subtype0/quiz_0_001_0000.nii.gz` and so on; returns `root`."""
    number = 0
    for side, counts in (("train", train), ("validation", validation)):
        for subtype, count in enumerate(counts):
            for _ in range(count):
                number += 1
                write_pair(
                    root / side / f"subtype{subtype}",
                    f"quiz_{subtype}_{number:03d}",
                    number,
                )
    for i in range(test):
        write_image(root / "test" / f"quiz_{900 + i}_0000.nii.gz", 900 + i)
    return root
