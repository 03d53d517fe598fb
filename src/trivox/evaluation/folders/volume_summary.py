"""The metrics.json of volumes: cases, statistics over them, and the ladder of methods
that had to be beaten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trivox.errors import DataError
from trivox.evaluation.metrics.claims import (
    CONVENTION,
    paired_difference,
    paired_differences,
)
from trivox.evaluation.metrics.content import (
    FORMAT_VERSION,
    Gain,
    LadderRow,
    LadderSection,
    MetricsFile,
    Statistic,
    VolumeMetrics,
)
from trivox.evaluation.metrics.statistics import summarise
from trivox.evaluation.metrics.volumes import METRICS, NOTICE, HuWindow, convention

TARGET = "volume"
NETWORK = "network"
CONSISTENT = "network + data consistency"
OF_NETWORK = (NETWORK, CONSISTENT)
COMPARED = "psnr_db"
FEWEST_PAIRS = 6
"""Cases below which Wilcoxon's test cannot reach p < 0.05, whatever they show."""
LADDER = (
    "the network and what it has to beat, on the same cases and views; gained: network "
    f"minus row in PSNR: {CONVENTION}; and the two-sided p of Wilcoxon's signed-rank "
    f"test (from {FEWEST_PAIRS} cases on)"
)

Cases = Mapping[str, VolumeMetrics]


@dataclass(frozen=True, eq=False)
class Rungs:
    """What each method scored on the same cases with one number of views: row name ->
    case -> metrics, in order.
    """

    views: int
    rows: Mapping[str, Cases]


def collect_volumes(
    cases: Cases,
    *,
    task: str,
    window: HuWindow,
    ladder: Rungs | None = None,
    by_views: Sequence[Rungs] = (),
    warnings: Sequence[str] = (),
) -> MetricsFile:
    """The content of metrics.json from the metrics of each case (`measure_volume`).

    task: its name, for the file. ladder: the methods for the number of views that the
    cases have; by_views: the same for several numbers of views, as many methods as were
    measured. Each row of both has the paired difference of the row `network` to it,
    where there is one. Raises `DataError` if rows were measured on different cases.
    """
    content: MetricsFile = {
        "task": task,
        "format_version": FORMAT_VERSION,
        "notice": NOTICE,
        "convention": {**convention(window), "ladder": LADDER},
        "cases": {name: {TARGET: _ordered(row)} for name, row in cases.items()},
        "summary": {TARGET: summarise_rows(cases)},
        "warnings": [*warnings, *_losses(ladder, by_views)],
    }
    if ladder is not None:
        content["ladder"] = ladder_section(ladder)
    if by_views:
        content["by_views"] = [ladder_section(rungs) for rungs in by_views]
    return content


def summarise_rows(cases: Cases) -> dict[str, Statistic]:
    """Statistics of every metric over cases."""
    summary: dict[str, Statistic] = {}
    for metric in METRICS:
        summary[metric] = summarise([row.get(metric) for row in cases.values()], metric)
    return summary


def ladder_section(rungs: Rungs) -> LadderSection:
    """Number of views and the rows with their statistics; see `collect_volumes`."""
    measured = [set(cases) for cases in rungs.rows.values()]
    if any(names != measured[0] for names in measured):
        raise DataError(
            "the rows of a ladder need the same cases; measure every method on all of "
            "them"
        )
    network = rungs.rows.get(NETWORK)
    rows: list[LadderRow] = []
    for name, cases in rungs.rows.items():
        paired: dict[str, Gain] = {}
        if network is not None and name != NETWORK:
            paired[COMPARED] = _gain(network, cases)
        rows.append({"name": name, "summary": summarise_rows(cases), "paired": paired})
    return {"views": rungs.views, "rows": rows}


def _losses(ladder: Rungs | None, by_views: Sequence[Rungs]) -> list[str]:
    """A sentence for every number of views with which another method is better."""
    measured = list(by_views)
    if ladder is not None and not measured:
        measured = [ladder]
    sentences = [_loss(rungs) for rungs in measured]
    return [sentence for sentence in sentences if sentence]


def _loss(rungs: Rungs) -> str:
    """What to know where the answer of the model has a lower mean PSNR than the best
    method that learns nothing; empty where it has not.
    """
    answer = rungs.rows.get(CONSISTENT, rungs.rows.get(NETWORK))
    others = {n: row for n, row in rungs.rows.items() if n not in OF_NETWORK}
    if answer is None or not others:
        return ""
    best = max(others, key=lambda name: _mean(others[name]))
    lost_db = _mean(others[best]) - _mean(answer)
    if not lost_db > 0:
        return ""
    views = f"{rungs.views} view{'' if rungs.views == 1 else 's'}"
    cases = f"{len(answer)} case{'' if len(answer) == 1 else 's'}"
    return (
        f"with {views} the network loses: {best} has {lost_db:.2f} dB more PSNR on the "
        f"same {cases}; train longer or on more cases, or take {best}"
    )


def _mean(cases: Cases) -> float:
    scores = [row.get(COMPARED) for row in cases.values()]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else -np.inf


def _gain(network: Cases, cases: Cases) -> Gain:
    """Network minus row over the cases, with how certain that is."""
    scores = [network[name].get(COMPARED) for name in network]
    others = [cases[name].get(COMPARED) for name in network]
    paired = paired_difference(scores, others)
    return {
        "difference": paired["mean"],
        "ci95": paired["ci95"],
        "wilcoxon_p": _wilcoxon(scores, others),
        "method": paired["method"],
        "p_false_claim": paired["p_false_claim"],
        "effect_size": paired["effect_size"],
    }


def _wilcoxon(
    first: Sequence[float | None], second: Sequence[float | None]
) -> float | None:
    """Two-sided p of the signed-rank test (Wilcoxon 1945); None for fewer than
    `FEWEST_PAIRS` pairs that differ.
    """
    differences = paired_differences(first, second)
    differences = differences[differences != 0]
    if np.size(differences) < FEWEST_PAIRS:
        return None
    from scipy.stats import wilcoxon  # slow to load

    return float(wilcoxon(differences).pvalue)


def _ordered(row: VolumeMetrics) -> VolumeMetrics:
    return {metric: row.get(metric) for metric in METRICS}
