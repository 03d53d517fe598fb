"""Restore: what was decided, on the source's grid and in the values of its files."""

from dataclasses import dataclass

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.inference.decide import Decision, Poll
from trivox.inference.doubt.kinds import Sensitive
from trivox.preparation.grid import GridRecord
from trivox.volumes.volume import Array, Volume


@dataclass(frozen=True, eq=False)
class Restored:
    """A decision on the source's grid; see `trivox.inference.describe.Prediction`."""

    labels: Volume
    probabilities: Volume | None
    uncertainty: dict[str, Volume]
    sensitive: Volume | None = None


def to_source(
    decision: Decision,
    record: GridRecord,
    scheme: LabelScheme,
    *,
    probabilities: bool,
    sensitive: Sensitive | None = None,
) -> Restored:
    """Put a decision back; outside the cropped box is background without doubt.

    sensitive: for a map of 0 and 1 of each target `(target, z, y, x)`.
    """
    values = scheme.decode(decision.labels)
    labels = record.to_source(values, fill=scheme.background)
    poll = decision.poll
    if poll is None:
        return Restored(labels, None, {})
    chance = None
    if probabilities:
        chance = _probabilities(poll.probabilities.numpy(), record, scheme)
    maps = {kind: record.to_source(array) for kind, array in poll.maps.items()}
    marked = None
    if sensitive is not None:
        marked = record.to_source(_marked(decision, poll, scheme, sensitive))
    return Restored(labels, chance, maps, marked)


def _marked(
    decision: Decision, poll: Poll, scheme: LabelScheme, sensitive: Sensitive
) -> Array:
    """Where each target is in the label map, or as probable as its threshold asks for;
    uint8 `(target, z, y, x)`.
    """
    first = 1 if scheme.exclusive else 0  # the channel of the first target
    marked = np.zeros((len(scheme.targets), *decision.labels.shape), np.uint8)
    for row, (target, inside) in enumerate(scheme.targets.items()):
        marked[row] = np.isin(decision.labels, inside)
        threshold = sensitive.thresholds[target]
        if threshold is not None:
            marked[row] |= (poll.probabilities[first + row] >= threshold).numpy()
    return marked


def _probabilities(chance: Array, record: GridRecord, scheme: LabelScheme) -> Volume:
    whole = record.to_source(chance)
    if scheme.exclusive:
        outside = record.to_source(np.ones(chance.shape[1:], bool)).array[0] == 0
        whole.array[0][outside] = 1
    return whole
