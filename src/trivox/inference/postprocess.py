"""Rules that clean a predicted label map. Which ones help is decided on validation cases, never on test cases."""

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from trivox.volumes import Array


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
        result = labels.copy()
        if self.largest_foreground:
            result[~largest_component(result > 0)] = 0
        for index in self.largest_of:
            mask = result == index
            result[mask & ~largest_component(mask)] = 0
        return result


def largest_component(mask: Array) -> Array:
    """The largest 26-connected component of a mask `(z, y, x)`; an empty mask stays empty."""
    import cc3d

    if not mask.any():
        return mask
    components = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    sizes = np.bincount(components.reshape(-1))
    sizes[0] = 0
    return np.asarray(components == sizes.argmax())


def choose_postprocessing(
    predictions: Sequence[Array], score: Callable[[Sequence[Array]], Array], labels: int
) -> tuple[Postprocessing, list[str]]:
    """Greedy choice on validation predictions, nnU-Net's rule.

    score: predictions -> mean Dice of each of the `labels` labels. A rule is kept if the mean rises and, for the
    whole-foreground rule, no label falls. Returns the rules and a line about each trial.
    """
    chosen, notes = Postprocessing(), []
    best = score(predictions)
    trials = [Postprocessing(largest_foreground=True)]
    for trial in trials + [Postprocessing(largest_of=(index,)) for index in range(1, labels + 1)]:
        combined = Postprocessing(
            largest_foreground=chosen.largest_foreground or trial.largest_foreground,
            largest_of=chosen.largest_of + trial.largest_of,
        )
        found = score([combined.apply(prediction) for prediction in predictions])
        gain = float(np.nanmean(found) - np.nanmean(best))
        helps = gain > 1e-5 and (not trial.largest_foreground or not (found < best - 1e-9).any())
        what = "whole foreground" if trial.largest_foreground else f"label {trial.largest_of[0]}"
        notes.append(
            f"largest component of {what}: {gain:+.5f} mean Dice on validation, {'kept' if helps else 'left out'}"
        )
        if helps:
            chosen, best = combined, found
    return chosen, notes
