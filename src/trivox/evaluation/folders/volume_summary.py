"""The metrics.json of a reconstruction: cases, statistics over them, and the ladder of
methods that had to be beaten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivox.errors import DataError
from trivox.evaluation.metrics.statistics import paired_difference, summarise
from trivox.evaluation.metrics.volumes import METRICS, NOTICE, Row, Window, convention

TARGET = "volume"
NETWORK, CONSISTENT = "network", "network + data consistency"
COMPARED = "psnr_db"
FEWEST_PAIRS = 6
"""Cases below which Wilcoxon's test cannot reach p < 0.05, whatever they show."""

Cases = Mapping[str, Row]


@dataclass(frozen=True, eq=False)
class Rungs:
    """What each method scored on the same cases with one number of views: row name ->
    case -> metrics, in order.
    """

    views: int
    rows: Mapping[str, Cases]


def collect_reconstructions(
    cases: Cases,
    *,
    window: Window,
    ladder: Rungs | None = None,
    by_views: Sequence[Rungs] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of metrics.json from the metrics of each case
    (`evaluate_reconstruction`).

    ladder: the methods for the number of views that the cases have; by_views: the same
    for several numbers of views, as many methods as were measured. Each row of both has
    the paired difference of the row `network` to it, where there is one. Raises
    `DataError` if rows were measured on different cases.
    """
    content: dict[str, Any] = {
        "task": "reconstruction",
        "notice": NOTICE,
        "convention": {
            **convention(window),
            "ladder": "the network and what it has to beat, on the same cases and views; gained: network minus row in PSNR, "
            f"with the paired bootstrap interval and the two-sided p of Wilcoxon's signed-rank test (from {FEWEST_PAIRS} "
            "cases on)",
        },
        "cases": {name: {TARGET: _ordered(row)} for name, row in cases.items()},
        "summary": {TARGET: summarise_rows(cases)},
        "warnings": list(warnings),
    }
    if ladder is not None:
        content["ladder"] = ladder_section(ladder)
    if by_views:
        content["by_views"] = [ladder_section(rungs) for rungs in by_views]
    return content


def summarise_rows(cases: Cases) -> dict[str, Any]:
    """Statistics of every metric over cases."""
    return {
        metric: summarise([row.get(metric) for row in cases.values()])
        for metric in METRICS
    }


def ladder_section(rungs: Rungs) -> dict[str, Any]:
    """Number of views and the rows with their statistics; see
    `collect_reconstructions`.
    """
    names = [set(cases) for cases in rungs.rows.values()]
    if any(found != names[0] for found in names):
        raise DataError(
            "the rows of a ladder need the same cases; measure every method on all of them"
        )
    network = rungs.rows.get(NETWORK)
    rows = []
    for name, cases in rungs.rows.items():
        paired = (
            {}
            if network is None or name == NETWORK
            else {COMPARED: _gained(network, cases)}
        )
        rows.append({"name": name, "summary": summarise_rows(cases), "paired": paired})
    return {"views": rungs.views, "rows": rows}


def _gained(network: Cases, cases: Cases) -> dict[str, Any]:
    """Network minus row over the cases, with how certain that is."""
    ours, theirs = (
        [rows[name].get(COMPARED) for name in network] for rows in (network, cases)
    )
    found = paired_difference(ours, theirs)
    several = found["n"] != 1
    return {
        "difference": found["mean"],
        "ci95": found["ci95"] if several else None,
        "wilcoxon_p": _wilcoxon(ours, theirs),
    }


def _wilcoxon(
    first: Sequence[float | None], second: Sequence[float | None]
) -> float | None:
    """Two-sided p of the signed-rank test (Wilcoxon 1945); None for fewer than
    `FEWEST_PAIRS` pairs that differ.
    """
    from scipy.stats import wilcoxon

    pairs = [
        (a, b)
        for a, b in zip(first, second, strict=True)
        if a is not None and b is not None
    ]
    differences = np.array([a - b for a, b in pairs if a != b])
    return (
        float(wilcoxon(differences).pvalue)
        if len(differences) >= FEWEST_PAIRS
        else None
    )


def _ordered(row: Row) -> Row:
    return {metric: row.get(metric) for metric in METRICS}
