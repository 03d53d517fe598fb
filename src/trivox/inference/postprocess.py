"""Rules that clean a predicted label map. Which ones help is decided on validation cases, never on test cases."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from trivox.volumes import Array

MIN_GAIN = 1e-5
"""Mean Dice that a rule must add to be kept."""


class Postprocessing(BaseModel):
    """Rules applied in order: keep only the largest component of the whole foreground, then of single labels.

    largest_foreground: of everything that is not background; largest_of: label indices, each on its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest_foreground: bool = False
    largest_of: tuple[int, ...] = ()

    def apply(self, labels: Array) -> Array:
        """Cleaned copy of label indices `(z, y, x)`."""
        if not (self.largest_foreground or self.largest_of):
            return labels
        result = np.where(largest_component(labels > 0), labels, 0) if self.largest_foreground else labels
        if self.largest_of:
            cleaned = largest_of_each(result)
            result = np.where(np.isin(result, self.largest_of), cleaned, result)
        return result


def largest_component(mask: Array) -> Array:
    """The largest 26-connected component of a mask `(z, y, x)`; an empty mask stays empty."""
    return largest_of_each(mask.astype(np.int16)) > 0


def largest_of_each(labels: Array) -> Array:
    """Label indices `(z, y, x)` with only the largest 26-connected component of each; one pass for all labels."""
    import cc3d

    components = cc3d.connected_components(np.ascontiguousarray(labels.clip(min=0)), connectivity=26)
    sizes = np.bincount(components.reshape(-1))
    first = np.zeros(len(sizes), dtype=labels.dtype)
    first[components.reshape(-1)] = labels.reshape(-1)  # a component lies within one label
    keep = np.zeros(len(sizes), dtype=bool)
    for index in np.unique(first[1:]):
        own = np.flatnonzero(first == index)
        own = own[own > 0]
        keep[own[sizes[own].argmax()]] = True
    return np.where(keep[components], labels, 0)


def candidate_dice(prediction: Array, reference: Array, labels: int) -> Array:
    """Dice `(4, labels)` of a case: as predicted, largest foreground, largest of each label, both; NaN where absent.

    Ignored voxels (reference -1) do not count.
    """
    foreground = np.where(largest_component(prediction > 0), prediction, 0)
    candidates = (prediction, foreground, largest_of_each(prediction), largest_of_each(foreground))
    valid = reference >= 0
    return np.stack([_dice(candidate[valid], reference[valid], labels + 1) for candidate in candidates])


def _dice(prediction: Array, reference: Array, count: int) -> Array:
    pairs = np.bincount(prediction.astype(np.int32) * count + reference, minlength=count * count)
    joint = pairs.reshape(count, count)
    with np.errstate(invalid="ignore"):
        return np.asarray((2 * joint.diagonal() / (joint.sum(0) + joint.sum(1)))[1:])


def choose_postprocessing(dice: Array) -> tuple[Postprocessing, list[str]]:
    """Choose from `candidate_dice` of all validation cases, `(case, 4, label)`, by nnU-Net's rule.

    The largest foreground component alone is kept if the mean Dice rises and no label falls; the largest component of
    a label if that label's Dice rises. Returns the rules and a line about each trial.
    """
    means = _mean_over_cases(dice)  # (4, label)
    gain = float(np.nanmean(means[1]) - np.nanmean(means[0])) if np.isfinite(means[0]).any() else 0.0
    whole = gain > MIN_GAIN and not (means[1] < means[0] - 1e-9).any()
    notes = [_note("the whole foreground", gain, whole)]
    base, own = (means[1], means[3]) if whole else (means[0], means[2])
    chosen = tuple(index + 1 for index, rise in enumerate(own - base) if rise > MIN_GAIN)
    notes += [_note(f"label {index + 1}", float(rise), index + 1 in chosen) for index, rise in enumerate(own - base)]
    return Postprocessing(largest_foreground=whole, largest_of=chosen), notes


def _mean_over_cases(dice: Array) -> Array:
    seen = ~np.isnan(dice)
    return np.asarray(np.where(seen.any(0), np.nansum(dice, axis=0) / np.maximum(seen.sum(0), 1), np.nan))


def _note(what: str, gain: float, kept: bool) -> str:
    return f"largest component of {what}: {gain:+.5f} Dice on validation, {'kept' if kept else 'left out'}"
