"""Class folders as the pancreas assessment hands them out, in small: masks with float
noise, a test set without classes.
"""

from itertools import count, islice

import numpy as np

from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SHAPE = (6, 10, 8)
SPACING = (2.0, 0.73, 0.73)
NOISY_ONE = 1.0000152587890625  # what 214 of the 288 real masks hold in place of 1


AFFINE = affine_from_spacing(SPACING)


def write_image(file, seed=0, channels=1):
    rng = np.random.default_rng(seed)
    array = rng.integers(-200, 200, (channels, *SHAPE)).astype(np.int16)
    write_volume(file, Volume(array, AFFINE))


def write_mask(file, values=(NOISY_ONE, 2)):
    array = np.zeros((1, *SHAPE), np.float32)
    array[:, 1:5, 2:8, 2:7] = values[0]
    array[:, 2:4, 3:6, 3:5] = values[1]
    write_volume(file, Volume(array, AFFINE))


def write_pair(folder, name, seed=0, values=(NOISY_ONE, 2)):
    write_image(folder / f"{name}_0000.nii.gz", seed)
    write_mask(folder / f"{name}.nii.gz", values)


def write_tree(root, train=(3, 5, 4), validation=(1, 2, 1), test=2):
    """`train/subtype0/quiz_0_001_0000.nii.gz` and so on; returns `root`."""
    numbers = count(1)
    for side, sizes in (("train", train), ("validation", validation)):
        for subtype, size in enumerate(sizes):
            folder = root / side / f"subtype{subtype}"
            for number in islice(numbers, size):
                write_pair(folder, f"quiz_{subtype}_{number:03d}", number)
    for number in range(900, 900 + test):
        write_image(root / "test" / f"quiz_{number}_0000.nii.gz", number)
    return root
