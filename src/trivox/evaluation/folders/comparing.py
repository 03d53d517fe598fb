"""Two ranked models beside each other: a permutation test of their ranks, and what can
be claimed of ranks and values.

Under the null hypothesis, both could have swapped their ranks in any case. Of several
pairs, p-values are also given as Holm (1979) corrects them.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from trivox.evaluation.folders.labels import (
    CaseMetrics,
    mean_of_case,
    mean_row,
    names_in,
)
from trivox.evaluation.metrics.claims import (
    claim_of,
    claim_text,
    odds_text,
    paired_differences,
)
from trivox.evaluation.metrics.content import MetricRow, PairedDifference
from trivox.evaluation.metrics.statistics import LOWER_IS_BETTER

Floats = NDArray[np.float64]


class Comparison(TypedDict):
    """Two models, the better one first; difference: of their scores.

    ranks: what can be claimed of the mean rank of cases; values: of each metric by
    label and over all labels, above zero where the first model is better, over cases
    that both have a value of.
    """

    first: str
    second: str
    difference: float
    p_value: float
    p_holm: float
    ranks: PairedDifference
    values: dict[str, dict[str, PairedDifference]]


def compare_models(
    models: Mapping[str, CaseMetrics],
    case_ranks: Floats,
    *,
    metrics: Sequence[str],
    whole: str | None,
    permutations: int,
    seed: int,
) -> list[Comparison]:
    """Each pair of models, the better one first.

    models: by name, the best first; case_ranks: `(model, case)`, in that order; whole:
    the target that is all labels together.
    """
    rng = np.random.default_rng(seed)
    either = np.array([-1.0, 1.0], dtype=np.float32)
    signs = rng.choice(either, (permutations, case_ranks.shape[1]))
    names = list(models)
    comparisons: list[Comparison] = []
    for i, j in combinations(range(len(names)), 2):
        differences = case_ranks[j] - case_ranks[i]
        comparisons.append(
            {
                "first": names[i],
                "second": names[j],
                "difference": float(differences.mean()),
                "p_value": _p_of_signs(differences, signs),
                "p_holm": 1.0,
                "ranks": claim_of(differences),
                "values": _claims(
                    models[names[i]], models[names[j]], metrics, whole=whole
                ),
            }
        )
    corrected = holm([pair["p_value"] for pair in comparisons])
    for pair, p_value in zip(comparisons, corrected, strict=True):
        pair["p_holm"] = p_value
    return comparisons


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    sorted_values = np.asarray(p_values, dtype=float)[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(sorted_values * factors).clip(max=1)
    return corrected.tolist()


def comparison_lines(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """The comparisons as lines of text: ranks, then the values over all labels."""
    yield (
        "permutation test of two models (two-sided; Holm: corrected for "
        f"{len(comparisons)} pairs)"
    )
    for pair in comparisons:
        p_values = f"p = {pair['p_value']:.4g} (Holm {pair['p_holm']:.4g})"
        odds = ""
        if pair["ranks"]["p_false_claim"] is not None:
            odds = f", {odds_text(pair['ranks'])}"
        yield (
            f"       {pair['first']} before {pair['second']} by "
            f"{pair['difference']:.3f} ranks: {p_values}{odds}"
        )
    yield (
        "gain of the first on the second in cases that both have: mean [95 % interval, "
        "Student-t], P(false claim): probability that it is not better, d_z: effect size"
    )
    chances: list[float] = []
    for pair in comparisons:
        row, claims = list(pair["values"].items())[-1]
        for metric, claim in claims.items():
            yield (
                f"       {pair['first']} over {pair['second']}, {metric} of {row}: "
                f"{claim_text(claim)}"
            )
            if claim["p_false_claim"] is not None:
                chances.append(claim["p_false_claim"])
    if chances:
        yield (
            f"       of these {len(chances)} claims, {sum(chances):.2f} are expected to "
            "be false"
        )


def _p_of_signs(differences: Floats, signs: NDArray[np.float32]) -> float:
    """Share of the sign changes `(permutation, case)` that give as large a sum."""
    extreme = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-6
    return float((1 + extreme.sum()) / (1 + len(signs)))


def _claims(
    first: CaseMetrics,
    second: CaseMetrics,
    metrics: Sequence[str],
    *,
    whole: str | None,
) -> dict[str, dict[str, PairedDifference]]:
    """What can be claimed of each label's metrics, and last of their mean over the
    labels of a case, if there are several; nothing of a metric without any pair.
    """
    cases = [name for name in first if name in second]
    labels = names_in(first.values())
    claims: dict[str, dict[str, PairedDifference]] = {}
    for label in labels:
        rows = [_pair(first, second, case, label) for case in cases]
        claims[label] = _claims_of(rows, metrics)
    if len(labels) > 1:
        apart = () if whole is None else (whole,)
        means = [
            (_means(first[case], metrics, apart), _means(second[case], metrics, apart))
            for case in cases
        ]
        claims[mean_row(labels)] = _claims_of(means, metrics)
    return claims


def _pair(
    first: CaseMetrics, second: CaseMetrics, case: str, label: str
) -> tuple[MetricRow, MetricRow]:
    return first[case].get(label, {}), second[case].get(label, {})


def _means(
    case: Mapping[str, MetricRow], metrics: Sequence[str], apart: Sequence[str]
) -> MetricRow:
    return {metric: mean_of_case(case, metric, apart) for metric in metrics}


def _claims_of(
    rows: Sequence[tuple[MetricRow, MetricRow]], metrics: Sequence[str]
) -> dict[str, PairedDifference]:
    """By metric; rows: of both models, one pair a case."""
    claims: dict[str, PairedDifference] = {}
    for metric in metrics:
        firsts = [row.get(metric) for row, _ in rows]
        seconds = [row.get(metric) for _, row in rows]
        differences = paired_differences(firsts, seconds)
        if metric in LOWER_IS_BETTER:
            differences = -differences
        if differences.size:
            claims[metric] = claim_of(differences)
    return claims
