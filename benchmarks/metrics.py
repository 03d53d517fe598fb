"""Metrics: the 95th-percentile Hausdorff distance of two masks in 200^3, alone and with
ASSD and NSD, against MONAI.

Ours: `surface_distances(...)` (cropped, KD-tree), of which all three follow. Theirs:
`compute_hausdorff_distance( percentile=95)`, and for all three also
`compute_average_surface_distance(symmetric=True)` and `compute_surface_dice`.
"""

import warnings

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from _measure import arguments, race
from trivox.evaluation.metrics.surfaces import surface_distances

SPACING = (1.0, 1.0, 1.5)
TOLERANCE = 2.0


def masks(size: int, radius: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ball with a rough surface, and the same one shifted with another surface:
    prediction and reference.
    """
    rng = np.random.default_rng(seed)
    axes = np.indices((size,) * 3, dtype=np.float32) - size / 2
    result = []
    for shift in (0.0, 0.06 * radius):
        rough = gaussian_filter(rng.normal(size=(size,) * 3).astype(np.float32), 3)
        distance = (
            np.sqrt(((axes + shift) ** 2).sum(0)) + 0.05 * radius * rough / rough.std()
        )
        result.append(distance < radius)
    return result[0], result[1]


def compare(name: str, size: int, radius: float, *, rounds: int) -> None:
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    prediction, reference = masks(size, radius, seed=0)
    tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    found = race(
        lambda: surface_distances(
            prediction, reference, spacing=SPACING
        ).hausdorff_mm(),
        lambda: float(
            compute_hausdorff_distance(
                *tensors, include_background=True, percentile=95, spacing=SPACING
            )
        ),
        rounds=rounds,
    )
    found.show(
        f"HD95 {name}, {prediction.sum() / 1e3:.0f} k voxels in {size}^3",
        f"{found.our_result:.4f} and {found.their_result:.4f} mm",
    )

    def ours() -> tuple[float, ...]:
        distances = surface_distances(prediction, reference, spacing=SPACING)
        return (
            distances.hausdorff_mm(),
            distances.average_mm(),
            distances.surface_dice(TOLERANCE),
        )

    def theirs() -> tuple[float, ...]:
        common = {"include_background": True, "spacing": SPACING}
        return (
            float(compute_hausdorff_distance(*tensors, percentile=95, **common)),
            float(compute_average_surface_distance(*tensors, symmetric=True, **common)),
            float(
                compute_surface_dice(*tensors, class_thresholds=[TOLERANCE], **common)
            ),
        )

    found = race(ours, theirs, rounds=rounds)
    our_values = " ".join(f"{value:.4f}" for value in found.our_result)
    their_values = " ".join(f"{value:.4f}" for value in found.their_result)
    found.show(f"HD95, ASSD and NSD {name}", f"{our_values} and {their_values}")


def main() -> None:
    quick = arguments(__doc__).quick
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    size = 100 if quick else 200
    compare("organ", size, 0.288 * size, rounds=3 if quick else 5)
    compare("lesion", size, 10.6 * size / 200, rounds=3 if quick else 5)


if __name__ == "__main__":
    main()
