"""The voxels that a network works on: target spacing, axis order and median size of the
training cases, by nnU-Net's rules (Isensee et al. 2021).
"""

from dataclasses import dataclass

import numpy as np

from trivox.planning.fingerprint import Fingerprint
from trivox.volumes.volume import Shape, Spacing

ANISOTROPY = 3
"""An axis this many times coarser than the others, with as many times fewer voxels,
counts as coarse.
"""


@dataclass(frozen=True)
class TargetGrid:
    """Spacing in mm and median size in voxels of the training cases, in `order`."""

    order: tuple[int, int, int]
    spacing: list[float]
    median: list[float]
    reasons: dict[str, str]


def target_grid(fingerprint: Fingerprint) -> TargetGrid:
    """The grid that all cases are resampled to, and why."""
    spacing, spacing_reason = target_spacing(fingerprint)
    order, order_reason = axis_order(spacing)
    shapes = [
        resampled_shape(case.shape, case.spacing, spacing) for case in fingerprint.cases
    ]
    median = np.median(shapes, axis=0)
    return TargetGrid(
        order=order,
        spacing=[float(spacing[axis]) for axis in order],
        median=[float(median[axis]) for axis in order],
        reasons={
            "spacing": spacing_reason,
            "axis_order": order_reason,
        },
    )


def resampled_shape(shape: Shape, spacing: Spacing, target: Spacing) -> Shape:
    """Voxels an axis at `target` spacing, at least one."""
    z, y, x = (
        max(1, round(old / new * size))
        for size, old, new in zip(shape, spacing, target, strict=True)
    )
    return z, y, x


def target_spacing(fingerprint: Fingerprint) -> tuple[Spacing, str]:
    """Median spacing an axis; a coarse axis takes its 10th percentile, so that fine
    scans keep some of their detail.
    """
    cases = fingerprint.cases
    spacings = np.array([case.spacing for case in cases])
    sizes = np.median([case.shape for case in cases], axis=0)
    target = np.median(spacings, axis=0)
    coarse = int(np.argmax(target))
    reason = "median of the training cases"
    widest = np.delete(target, coarse).max()
    fewest = np.delete(sizes, coarse).min()
    is_coarse = target[coarse] > ANISOTROPY * widest
    if is_coarse and sizes[coarse] * ANISOTROPY < fewest:
        tenth = np.percentile(spacings[:, coarse], 10)
        target[coarse] = tenth if tenth >= widest else widest + 1e-5
        reason = f"median; the coarse axis ({'zyx'[coarse]}) takes the 10th percentile"
    z, y, x = target.tolist()
    return (z, y, x), reason


def axis_order(spacing: Spacing) -> tuple[tuple[int, int, int], str]:
    """The coarsest axis first, the others in their order."""
    coarse = int(np.argmax(spacing))
    second, third = (axis for axis in range(3) if axis != coarse)
    reason = f"{'zyx'[coarse]} has the coarsest spacing"
    if max(spacing) == min(spacing):
        reason = "all axes are alike"
    return (coarse, second, third), reason
