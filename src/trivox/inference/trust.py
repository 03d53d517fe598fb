"""What a prediction says about itself besides the labels: volumes with intervals,
agreement, whether to look at the case.
"""

from typing import Any

import numpy as np
import torch

from trivox.datasets.labels import LabelScheme
from trivox.inference.doubt.calibration import Abstention, foreground_entropy
from trivox.inference.doubt.sampling import VoxelSample
from trivox.inference.doubt.uncertainty import entropy
from trivox.inference.voting import Poll, target_voxels
from trivox.volumes.volume import Array

LEVELS = (0.025, 0.975)
"""Probabilities that bound the volume of a single vote."""


def volumes_of(
    raw: Array,
    cleaned: Array,
    poll: Poll | None,
    scheme: LabelScheme,
    *,
    voxel_ml: float,
) -> dict[str, dict[str, Any]]:
    """Volume of each target in ml, with a 95 % interval where probabilities were at
    hand.

    raw, cleaned: label indices `(z, y, x)` before and after postprocessing. method:
    `t_of_votes` or `probability_levels`.
    """
    counts = target_voxels(cleaned, scheme)
    volumes: dict[str, dict[str, Any]] = {
        name: {"volume_ml": float(count) * voxel_ml}
        for name, count in zip(scheme.targets, counts, strict=True)
    }
    if poll is None:
        return volumes
    first = 1 if scheme.exclusive else 0  # the channel of the first target
    for row, (name, entry) in enumerate(volumes.items()):
        chance = poll.probabilities[first + row].numpy()
        inside = list(scheme.targets[name])
        if len(poll.volumes) > 1:
            interval, method = (
                interval_of_votes(poll.volumes[:, row] * voxel_ml),
                "t_of_votes",
            )
        else:
            removed = np.isin(raw, inside) & (raw != cleaned)
            low, high = interval_of_levels(chance, np.isin(cleaned, inside), removed)
            interval, method = (low * voxel_ml, high * voxel_ml), "probability_levels"
        expected = float(chance.sum(dtype=np.float64)) * voxel_ml
        entry |= {"ci95_ml": list(interval), "expected_ml": expected, "method": method}
    return volumes


def votes_of(poll: Poll | None) -> dict[str, Any]:
    """Number of votes and how much their label maps overlap, if there were several."""
    if poll is None or len(poll.volumes) < 2:
        return {}
    return {"votes": len(poll.volumes), "agreement": poll.agreement}


def verdict(rule: Abstention | None, score: float | None) -> dict[str, Any]:
    """Whether to look at the case, and why; nothing without a rule."""
    if rule is None:
        return {}
    reason = rule.reason(score)
    return {"abstain": reason is not None, "score": score, "reason": reason}


def doubt_in_foreground(
    raw: Array,
    poll: Poll | None,
    sample: VoxelSample | None,
    *,
    exclusive: bool,
    temperature: float,
) -> float | None:
    """Mean entropy of the decision in the predicted foreground, before cleaning; None
    where nothing was found.

    From a sample of voxels where a single member decided, as in validation, otherwise
    from the members' probabilities.
    """
    if sample is not None:
        return foreground_entropy(
            sample.logits, exclusive=exclusive, temperature=temperature
        )
    at = torch.from_numpy(raw > 0)
    if poll is None or not at.any():
        return None
    return float(entropy(poll.probabilities[:, at], exclusive=exclusive).mean())


def interval_of_votes(volumes: Array) -> tuple[float, float]:
    """95 % prediction interval of one more vote: mean +- t(0.975, n - 1) s sqrt(1 +
    1/n), not below 0; `(n,)`, n above 1.
    """
    from scipy.special import stdtrit

    count = len(volumes)
    centre, spread = float(np.mean(volumes)), float(np.std(volumes, ddof=1))
    half = float(stdtrit(count - 1, 0.975)) * spread * (1 + 1 / count) ** 0.5
    return max(0.0, centre - half), centre + half


def interval_of_levels(chance: Array, found: Array, removed: Array) -> tuple[int, int]:
    """Voxels of the target that are nearly certain (p above 0.975), and those that are
    not excluded (p above 0.025).

    chance: probabilities `(z, y, x)`; found: where the label map has it; removed: where
    postprocessing took it away. Neighbouring voxels err together, so their variances
    cannot be added up as if they were independent; this band takes them to err all at
    once, and is wide rather than narrow.
    """
    low, high = LEVELS
    certain = int(np.count_nonzero((chance > high) & found))
    return certain, int(np.count_nonzero(((chance > low) & ~removed) | found))
