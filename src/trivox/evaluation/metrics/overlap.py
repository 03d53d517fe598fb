"""Overlap metrics of two boolean masks, all derived from the four counts of the
confusion table.

A metric whose denominator is zero is None: it says nothing about the case, and counting
it as 1 or 0 would bias a mean.
"""

from dataclasses import dataclass

import numpy as np

from trivox.errors import GeometryError
from trivox.volumes.volume import Array


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of a prediction against a reference."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def predicted(self) -> int:
        """Voxels in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def expected(self) -> int:
        """Voxels in the reference."""
        return self.true_positive + self.false_negative


def confusion(prediction: Array, reference: Array) -> Confusion:
    """Counts of two boolean masks of the same shape; raises `GeometryError` if their
    shapes differ.
    """
    require_same_shape(prediction, reference)
    prediction = prediction.astype(bool, copy=False)
    reference = reference.astype(bool, copy=False)
    both = int(np.count_nonzero(prediction & reference))
    predicted = int(np.count_nonzero(prediction))
    expected = int(np.count_nonzero(reference))
    return Confusion(
        true_positive=both,
        false_positive=predicted - both,
        false_negative=expected - both,
        true_negative=prediction.size - predicted - expected + both,
    )


def require_same_shape(prediction: Array, reference: Array) -> None:
    """Raise `GeometryError` unless both arrays have one shape."""
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"prediction has shape {prediction.shape}, reference {reference.shape}; "
            "bring both to one grid first"
        )


def dice(counts: Confusion) -> float | None:
    """Dice coefficient 2 TP / (2 TP + FP + FN), 0..1; None if both masks are empty."""
    return _ratio(2 * counts.true_positive, counts.predicted + counts.expected)


def iou(counts: Confusion) -> float | None:
    """Intersection over union TP / (TP + FP + FN), 0..1; None if both masks are empty."""
    return _ratio(counts.true_positive, counts.predicted + counts.false_negative)


def sensitivity(counts: Confusion) -> float | None:
    """Share of the reference that was found, TP / (TP + FN); None if the reference is
    empty.
    """
    return _ratio(counts.true_positive, counts.expected)


def precision(counts: Confusion) -> float | None:
    """Share of the prediction that is right, TP / (TP + FP); None if the prediction is
    empty.
    """
    return _ratio(counts.true_positive, counts.predicted)


def specificity(counts: Confusion) -> float | None:
    """Share of the background left alone, TN / (TN + FP); depends on the field of view.

    None if there is none.
    """
    return _ratio(counts.true_negative, counts.true_negative + counts.false_positive)


def volume_error_ml(counts: Confusion, *, voxel_ml: float) -> float:
    """Predicted minus reference volume in ml; `voxel_ml` is the volume of a voxel."""
    return (counts.predicted - counts.expected) * voxel_ml


def volume_error_percent(counts: Confusion) -> float | None:
    """(Predicted - reference) / reference volume in percent; None if the reference is
    empty.
    """
    return _ratio(100 * (counts.predicted - counts.expected), counts.expected)


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
