"""How many windows of a CT are nothing but air: would skipping them be worth it?

    python air_windows.py SCAN...

A window counts if all its values are equal once they are clipped from below, as the
plan's normalisation does. Scans are brought to 1.5 mm, windows overlap by half.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

from trivox.datasets.reading import crop_volume
from trivox.inference.windows import window_starts
from trivox.volumes.formats import read_volume
from trivox.volumes.resampling import resize_image

SPACING = 1.5
LOWEST = (-1024, -1000, -950, -900, -800)
"""HU below which values are clipped."""
PATCHES = (64, 96, 128)


def shares(file: Path) -> None:
    """Print the share of windows of air of a scan."""
    case = crop_volume(read_volume(file), None, where=file.name)
    shape = tuple(
        round(n * mm / SPACING) for n, mm in zip(case.shape, case.spacing, strict=True)
    )
    print(f"{file.name}: {shape} voxels at {SPACING} mm", flush=True)
    for low, patch in product(LOWEST, PATCHES):
        clipped = np.clip(case.image, low, 1000).astype(np.float32)
        image = resize_image(torch.from_numpy(np.ascontiguousarray(clipped)), shape)[0]
        places = list(product(*(window_starts(n, patch, 0.5) for n in shape)))
        windows = [
            image[tuple(slice(start, start + patch) for start in place)]
            for place in places
        ]
        air = sum(bool(window.min() == window.max()) for window in windows)
        print(f"  from {low} HU, patch {patch}: {air} of {len(windows)} windows of air")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        shares(Path(name))
