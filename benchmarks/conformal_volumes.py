"""How often the 90 % intervals of volumes that trivox learns hold the true volume of
cases that they were not learnt on: held-out cases of finished runs, their figures in
RUN/validation/metrics.json.

Halves: learnt on a random half of the cases and asked of the other, 400 times, seeded.
Folds: learnt on four folds and asked of the fifth, where a run has several. Width: by
what factor the upper bound is above the lower one.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trivox.datasets.splits import read_folds
from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.metrics.intervals import wilson_interval
from trivox.inference.doubt.conformal import band_of, held_by_others, log_ratios
from trivox.planning.plan import read_plan

from _held_out import (  # isort: skip
    REPEATS,
    Floats,
    given_runs,
    halvings,
    percent,
    show_header,
    show_row,
)


def halves(ratios: Floats) -> tuple[Floats, Floats]:
    """Coverage and width of each repeat; NaN where a half is too small."""
    coverage = np.full(REPEATS, np.nan)
    width = np.full(REPEATS, np.nan)
    for repeat, (learnt, asked) in enumerate(halvings(len(ratios))):
        band = band_of(ratios[learnt])
        if band is None:
            continue
        rest = ratios[asked]
        coverage[repeat] = np.mean((rest >= band.low) & (rest <= band.high))
        width[repeat] = math.exp(band.high - band.low)
    return coverage, width


def folds_of(run: Path, cases: Mapping[str, object]) -> dict[str, str]:
    """The fold that held each case out."""
    folds = {}
    for number, split in enumerate(read_folds(run)):
        for name in split.validation:
            if name in cases:
                folds[name] = str(number)
    return folds


def show(run: Path) -> None:
    """The rows of a run."""
    cases = read_metrics(run / "validation" / "metrics.json")["cases"]
    plan = read_plan(run / "plan.json")
    offset_ml = math.prod(plan.spacing) / 1000
    folds = folds_of(run, cases)
    for target in plan.labels.targets:
        pairs = [
            (row[target]["volume_ml"], row[target]["reference_volume_ml"])
            for row in cases.values()
        ]
        ratios = log_ratios(pairs, offset_ml)
        coverage, width = halves(ratios)
        by_fold = "one fold"
        if len(set(folds.values())) > 1:
            named = dict(zip(cases, ratios.tolist(), strict=True))
            held = [holds for _, holds in held_by_others(named, folds)]
            low, high, _ = wilson_interval(sum(held), len(held))
            by_fold = (
                f"{sum(held)} of {len(held)} = {100 * np.mean(held):.1f} "
                f"({100 * low:.1f} to {100 * high:.1f})"
            )
        in_halves = "too few cases"
        if np.isfinite(coverage).all():
            in_halves = percent(coverage)
        bias = math.exp(-float(np.median(ratios)))
        show_row(
            f"{run.name}: {target}",
            len(ratios),
            f"{bias:.2f}",
            in_halves,
            by_fold,
            f"{np.median(width):.2f}",
        )


def main() -> None:
    runs = given_runs(__doc__)
    show_header(
        "run: target",
        "cases",
        "predicted over true volume, median",
        "held in halves (percent +- sd)",
        "held by fold (percent, 95 %)",
        "width",
    )
    for run in runs:
        show(run)


if __name__ == "__main__":
    main()
