"""How far it can be claimed that one model is better than another, from what both
scored on the same cases.

P(false claim) is the posterior probability that the mean paired difference is not above
zero. With a flat prior the posterior is a Student-t about the mean (Christodoulou et
al. 2025, "False Promises in Medical Imaging AI?", arXiv:2505.04720):

    P = t_(n-1)(-sqrt(n) mean / sd), within 1 / 2^(n+1) and 1 - 1 / 2^(n+1)

The limits are what the signs of n differences can show at most (all alike, flat prior
for the share of either): they hold where the differences hardly vary and a normal
distribution is not to be believed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trivox.errors import DataError
from trivox.evaluation.metrics.content import PairedDifference
from trivox.evaluation.metrics.intervals import ALIKE, STUDENT_T, student_t_interval

FEWEST = 3
"""Differences from which anything is claimed."""
SMALLEST = 0.0001
"""That is shown; no assumption is good enough for less."""
CONVENTION = (
    "mean of the paired differences of cases, its 95 % interval (Student-t), the "
    "posterior probability that the claim is false (mean difference not above zero, "
    "flat prior, Student-t; Christodoulou et al. 2025), and the effect size d_z, mean "
    f"/ standard deviation of the differences (Cohen 1988); from {FEWEST} cases on; "
    "not corrected for the number of claims: their sum is how many of them are "
    "expected to be false"
)

Floats = NDArray[np.float64]
Values = Sequence[float | None]


def paired_difference(first: Values, second: Values) -> PairedDifference:
    """How much better the first model is than the second on the same cases, in the same
    order, of values where more is better.

    See `claim_of`. Raises `DataError` if the lengths differ or no case has a value in
    both.
    """
    if len(first) != len(second):
        raise DataError(
            f"a paired comparison needs the same cases: {len(first)} and "
            f"{len(second)} values were given"
        )
    differences = paired_differences(first, second)
    if not differences.size:
        raise DataError(
            "a paired comparison needs at least one case that both models have a value "
            "for"
        )
    return claim_of(differences)


def paired_differences(first: Values, second: Values) -> Floats:
    """First minus second of the cases that have a finite value in both, `(n,)`."""
    pairs = zip(first, second, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    numbers = np.array(differences, dtype=float)
    return np.asarray(numbers[np.isfinite(numbers)])


def claim_of(differences: Floats) -> PairedDifference:
    """What paired differences `(n,)`, n above 0, allow to claim.

    mean, its 95 % interval, `p_false_claim` and `effect_size`; only the mean for fewer
    than three cases; no effect size where all differences are alike.
    """
    cases = int(differences.size)
    claim: PairedDifference = {
        "mean": float(differences.mean()),
        "ci95": None,
        "method": STUDENT_T,
        "p_false_claim": None,
        "effect_size": None,
        "n": cases,
    }
    if cases >= FEWEST:
        claim["ci95"] = list(student_t_interval(differences))
        claim["p_false_claim"] = false_claim(differences)
        claim["effect_size"] = effect_size(differences)
    return claim


def false_claim(differences: Floats) -> float:
    """Probability that the mean of differences `(n,)` is not above zero; see the module.

    0.5 where all are zero. Exchanging the models gives 1 minus it.
    """
    from scipy.special import stdtr

    cases = differences.size
    mean = float(differences.mean())
    error = _spread(differences) / np.sqrt(cases)
    if error:
        chance = float(stdtr(cases - 1, -mean / error))
    else:
        chance = 0.5 - np.sign(mean) / 2
    least = 0.5 ** (cases + 1)
    return float(np.clip(chance, least, 1 - least)) if mean else 0.5


def false_claim_of_draws(draws: Floats) -> float | None:
    """The same from `(r,)` resampled differences: the share that is not above zero,
    zeros counting half, half a draw added to either side; NaN do not count, None if all
    are.
    """
    known = draws[np.isfinite(draws)]
    if not known.size:
        return None
    lost = (known < 0).sum() + (known == 0).sum() / 2
    return float((lost + 0.5) / (known.size + 1))


def effect_size(differences: Floats) -> float | None:
    """d_z: mean over standard deviation (n - 1) of differences `(n,)`; None where all
    are alike.
    """
    spread = _spread(differences)
    return float(differences.mean()) / spread if spread else None


def claim_text(claim: PairedDifference, digits: int = 4) -> str:
    """A claim on one line."""
    text = f"{claim['mean']:+.{digits}f}"
    if claim["ci95"] is None:
        return f"{text} ({claim['n']} cases: too few to claim anything)"
    low, high = claim["ci95"]
    text += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{text}, {odds_text(claim)}"


def odds_text(claim: PairedDifference) -> str:
    """P(false claim) and effect size of a claim from enough cases."""
    chance = claim["p_false_claim"]
    shown = "-" if chance is None else f"{chance:.3g}"
    if chance is not None and chance < SMALLEST:
        shown = f"below {SMALLEST}"
    size = claim["effect_size"]
    effect = "" if size is None else f", d_z {size:+.2f}"
    return f"P(false claim) {shown}{effect}"


def _spread(differences: Floats) -> float:
    """Standard deviation; 0 where it is nothing but rounding."""
    spread = float(differences.std(ddof=1))
    largest = float(np.abs(differences).max())
    return spread if spread > ALIKE * largest else 0.0
