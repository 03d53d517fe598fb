"""Restore: what was decided, on the source's grid and in the values of its files."""

from dataclasses import dataclass

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.inference.decide import Decision
from trivox.preparation.grid import GridRecord
from trivox.volumes.volume import Array, Volume


@dataclass(frozen=True, eq=False)
class Restored:
    """A decision on the source's grid; see `trivox.inference.describe.Prediction`."""

    labels: Volume
    probabilities: Volume | None
    uncertainty: dict[str, Volume]


def to_source(
    decision: Decision,
    record: GridRecord,
    scheme: LabelScheme,
    *,
    probabilities: bool,
) -> Restored:
    """Put a decision back; outside the cropped box is background without doubt."""
    values = scheme.decode(decision.labels)
    labels = record.to_source(values, fill=scheme.background)
    poll = decision.poll
    if poll is None:
        return Restored(labels, None, {})
    chance = None
    if probabilities:
        chance = _probabilities(poll.probabilities.numpy(), record, scheme)
    maps = {kind: record.to_source(array) for kind, array in poll.maps.items()}
    return Restored(labels, chance, maps)


def _probabilities(chance: Array, record: GridRecord, scheme: LabelScheme) -> Volume:
    whole = record.to_source(chance)
    if scheme.exclusive:
        outside = record.to_source(np.ones(chance.shape[1:], bool)).array[0] == 0
        whole.array[0][outside] = 1
    return whole
