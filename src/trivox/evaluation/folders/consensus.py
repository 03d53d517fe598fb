"""What several raters agree on: the majority, and STAPLE (Warfield et al. 2004), which
weighs each rater by how well he agrees with the others.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]

SURE = 0.99999
"""Sensitivity and specificity of all raters to begin with, as ITK's."""
SMALLEST_CHANGE = 1e-9
TINY = 1e-300
"""Below which nothing is divided by."""
MOST_ROUNDS = 5000
MOST_RATERS = 31
"""Their answers on a voxel are the bits of a number."""


class Staple(NamedTuple):
    """mask: where the structure is more probable than not; sensitivity and specificity
    of each rater `(rater,)` against it, NaN where nobody marked anything, or everything.
    """

    mask: Masks
    sensitivity: Floats
    specificity: Floats


def majority(masks: Masks) -> Masks:
    """Where more than half of the raters `(rater, ...)` have the structure."""
    return np.asarray(2 * masks.sum(0) > len(masks))


def staple(masks: Masks) -> Staple:
    """Expectation maximisation over the masks of up to 31 raters `(rater, ...)`.

    The prior is the share of voxels that raters mark, over the whole grid, as in ITK.
    Voxels on which all raters answer alike are one: time does not grow with their number.
    """
    raters = len(masks)
    weights = np.left_shift(1, np.arange(raters), dtype=np.int64)
    codes = np.zeros(masks.shape[1:], np.int64)
    for mask, weight in zip(masks, weights, strict=True):
        codes += mask * weight
    patterns, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    marked = (patterns[:, None] & weights) > 0
    prior = float(np.average(marked.mean(1), weights=counts))
    if not 0 < prior < 1:
        unknown = np.full(raters, np.nan)
        return Staple(masks[0], unknown, unknown)
    chances, sensitivity, specificity = _converged(marked, counts, prior)
    mask = (chances > 0.5)[places].reshape(codes.shape)
    return Staple(mask, sensitivity, specificity)


def _converged(
    marked: Masks, counts: NDArray[np.int64], prior: float
) -> tuple[Floats, Floats, Floats]:
    """Probability of the structure for each pattern of answers `(pattern, rater)`, and
    sensitivity and specificity of each rater.
    """
    raters = marked.shape[1]
    levels = np.full((2, raters), SURE)
    chances = np.zeros(len(marked))
    for _ in range(MOST_ROUNDS):
        before = levels
        chances = _chances(marked, before, prior)
        inside = _share(marked, chances * counts)
        outside = _share(~marked, (1 - chances) * counts)
        levels = np.stack([inside, outside])
        if np.abs(levels - before).max() < SMALLEST_CHANGE:
            break
    sensitivity, specificity = levels
    return chances, sensitivity, specificity


def _share(marked: Masks, weights: Floats) -> Floats:
    """Of a weight for each pattern, which share each rater marks."""
    return np.asarray(weights @ marked / max(weights.sum(), TINY))


def _chances(marked: Masks, levels: Floats, prior: float) -> Floats:
    """Probability of the structure for each pattern of answers; levels: sensitivity and
    specificity `(2, rater)`.
    """
    sensitivity, specificity = levels
    inside = np.where(marked, sensitivity, 1 - sensitivity).prod(1)
    outside = np.where(marked, 1 - specificity, specificity).prod(1)
    inside *= prior
    outside *= 1 - prior
    return np.asarray(inside / np.maximum(inside + outside, TINY))
