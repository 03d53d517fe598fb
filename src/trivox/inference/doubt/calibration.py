"""What is learnt about trust on validation cases: a temperature for probabilities, and
when to flag a case.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import minimize_scalar
from torch import Tensor

from trivox.inference.doubt.uncertainty import entropy, probabilities_of
from trivox.schema import Frozen
from trivox.volumes.volume import Array

TEMPERATURES = (0.05, 20.0)
"""Bounds of the search."""
MINIMUM_CASES = 5
"""A threshold from fewer validation cases would be chance."""
RULE = (
    "flag a mean entropy (nats, calibrated probabilities) in the predicted foreground "
    "above the threshold that best separates validation cases with a Dice below "
    "poor_dice (lower quartile - 1.5 IQR) from the others; the largest validation "
    "score if none is so poor"
)
"""How thresholds are chosen."""


Cases = Annotated[int, Field(ge=0)]
ScoreKind = Literal["mean_foreground_entropy", "disagreement_of_votes"]


class Abstention(Frozen):
    """When a prediction is flagged as one that a person should look at; chosen on
    validation cases alone.

    threshold: of the score: mean entropy (nats) in the predicted foreground, or 1 -
    pairwise Dice of the votes; empty: what to do where nothing was found; poor_dice: mean
    Dice below which a validation case counted as poor; rule: how the threshold was
    chosen, in words.
    """

    score: ScoreKind = "mean_foreground_entropy"
    threshold: float = Field(ge=0)
    empty: Literal["flag", "pass"] = "flag"
    poor_dice: float
    rule: str
    cases: Cases
    poor: Cases
    flagged: Cases
    flagged_poor: Cases

    def reason(self, score: float | None) -> str | None:
        """Why a case with this score is flagged; None if it is not.

        A score of None: nothing was found.
        """
        if score is None:
            return "no foreground was found" if self.empty == "flag" else None
        if score <= self.threshold:
            return None
        if self.score == "disagreement_of_votes":
            return (
                f"the votes overlap with a Dice of {1 - score:.3f} only, below "
                f"{1 - self.threshold:.3f}"
            )
        return (
            f"mean entropy {score:.3f} in the predicted foreground is above "
            f"{self.threshold:.3f}"
        )


def joint_rule(rules: Sequence[Abstention | None]) -> Abstention | None:
    """The rule of several models together: the mean of their thresholds; None unless
    each has a rule.
    """
    known = [rule for rule in rules if rule is not None]
    if len(known) < len(rules):
        return None
    threshold = float(np.mean([rule.threshold for rule in known]))
    return known[0].model_copy(update={"threshold": threshold})


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of `labels` `(n,)`
    under `logits / T` `(n, c)`.

    Convex in 1 / T, hence one minimum (Guo et al. 2017, "On calibration of modern
    neural networks"). At a bound of 0.05 or 20 the sample says nothing about T (all
    right, or all wrong), and 1 is returned.
    """
    logits = logits.double()
    labels = labels.long()

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(torch.nn.functional.cross_entropy(scaled, labels))

    low, high = np.log(TEMPERATURES)
    minimum = minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    best = float(minimum.x)
    if min(best - low, high - best) <= 0.01:
        return 1.0
    return float(np.exp(best))


def foreground_entropy(
    logits: Tensor, *, exclusive: bool, temperature: float = 1.0
) -> float | None:
    """Mean entropy (nats) of the voxels `(n, c)` whose largest logit is foreground;
    None if there are none.
    """
    inside = logits.argmax(1) > 0 if exclusive else (logits > 0).any(1)
    if not inside.any():
        return None
    chance = probabilities_of(
        logits[inside].T, exclusive=exclusive, temperature=temperature
    )
    return float(entropy(chance, exclusive=exclusive).mean())


def choose_abstention(
    scores: Sequence[float | None],
    dice: Sequence[float],
    *,
    seen_empty: bool = False,
    kind: ScoreKind = "mean_foreground_entropy",
    rule: str = RULE,
) -> Abstention | None:
    """The rule from validation cases: their scores and mean Dice, in the same order.

    kind: of the scores; rule: how the threshold is chosen, in words.

    A case is poor if its Dice lies more than 1.5 interquartile ranges below the lower
    quartile (Tukey 1977). The threshold separates poor from other cases best (largest
    sum of sensitivity and specificity; the highest such); if no case is poor, it is the
    largest score seen. seen_empty: a reference without foreground occurs, so an empty
    prediction is nothing strange. None for fewer than 5 cases with score and Dice.
    """
    doubt, dice_of_known = known_pairs(scores, dice)
    if len(doubt) < MINIMUM_CASES:
        return None
    low, high = np.percentile(dice_of_known, [25, 75])
    fence = float(low - 1.5 * (high - low))
    poor = dice_of_known < fence
    threshold = _separating(doubt, poor)
    flagged = doubt > threshold
    return Abstention(
        score=kind,
        threshold=threshold,
        empty="pass" if seen_empty else "flag",
        poor_dice=fence,
        cases=len(doubt),
        poor=int(poor.sum()),
        flagged=int(flagged.sum()),
        flagged_poor=int((flagged & poor).sum()),
        rule=rule,
    )


def known_pairs(
    scores: Sequence[float | None], dice: Sequence[float]
) -> tuple[Array, Array]:
    """Scores and Dice of the cases that have both."""
    pairs: list[tuple[float, float]] = []
    for score, quality in zip(scores, dice, strict=True):
        if score is not None and np.isfinite(quality):
            pairs.append((score, quality))
    known = np.array(pairs, dtype=float).reshape(-1, 2)
    return known[:, 0], known[:, 1]


def _separating(score: Array, poor: Array) -> float:
    """The highest of the thresholds with the largest Youden index; the largest score if
    nothing is gained.
    """
    ordered = np.unique(score)
    best = 0.0
    threshold = float(ordered[-1])
    for low, high in zip(ordered[-2::-1], ordered[:0:-1], strict=True):
        flagged = score >= high
        sensitivity = (flagged & poor).sum() / max(poor.sum(), 1)
        false_alarms = (flagged & ~poor).sum() / max((~poor).sum(), 1)
        youden = sensitivity - false_alarms
        if youden > best + 1e-12:
            best = float(youden)
            threshold = float((low + high) / 2)
    return threshold
