"""Metrics: the 95th-percentile Hausdorff distance of two masks in a 200^3 volume, against MONAI.

Ours: `surface_distances(...).hausdorff_mm()` (cropped, KD-tree). Theirs: `compute_hausdorff_distance(percentile=95)`.
"""

import warnings

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from _measure import arguments, race
from trivox.evaluation import surface_distances

SPACING = (1.0, 1.0, 1.5)


def masks(size: int, radius: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ball with a rough surface, and the same one shifted with another surface: prediction and reference."""
    rng = np.random.default_rng(seed)
    axes = np.indices((size,) * 3, dtype=np.float32) - size / 2
    result = []
    for shift in (0.0, 0.06 * radius):
        rough = gaussian_filter(rng.normal(size=(size,) * 3).astype(np.float32), 3)
        distance = np.sqrt(((axes + shift) ** 2).sum(0)) + 0.05 * radius * rough / rough.std()
        result.append(distance < radius)
    return result[0], result[1]


def compare(name: str, size: int, radius: float, *, rounds: int) -> None:
    from monai.metrics import compute_hausdorff_distance

    prediction, reference = masks(size, radius, seed=0)
    tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    found = race(
        lambda: surface_distances(prediction, reference, spacing=SPACING).hausdorff_mm(),
        lambda: float(compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=SPACING)),
        rounds=rounds,
    )
    found.show(
        f"HD95 {name}, {prediction.sum() / 1e3:.0f} k voxels in {size}^3",
        f"{found.our_result:.4f} and {found.their_result:.4f} mm",
    )


def main() -> None:
    quick = arguments(__doc__).quick
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    size = 100 if quick else 200
    compare("organ", size, 0.288 * size, rounds=3 if quick else 5)
    compare("lesion", size, 10.6 * size / 200, rounds=3 if quick else 5)


if __name__ == "__main__":
    main()
