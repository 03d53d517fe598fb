"""How often the 90 % intervals of volumes that trivox learns hold the true volume of
cases that they were not learnt on: held-out cases of finished runs, their figures in
RUN/validation/metrics.json.

Halves: learnt on a random half of the cases and asked of the other, 400 times, seeded.
Folds: learnt on four folds and asked of the fifth, where a run has several. Width: by
what factor the upper bound is above the lower one.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.metrics.intervals import wilson_interval
from trivox.files import read_json
from trivox.inference.doubt.conformal import band_of, held_by_others, log_ratios
from trivox.planning.plan import read_plan

Floats = NDArray[np.float64]

REPEATS = 400


def halves(ratios: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Coverage and width of each repeat; NaN where a half is too small."""
    coverage = np.full(REPEATS, np.nan)
    width = np.full(REPEATS, np.nan)
    for repeat in range(REPEATS):
        order = rng.permutation(len(ratios))
        middle = len(ratios) // 2
        band = band_of(ratios[order[:middle]])
        if band is None:
            continue
        rest = ratios[order[middle:]]
        coverage[repeat] = np.mean((rest >= band.low) & (rest <= band.high))
        width[repeat] = math.exp(band.high - band.low)
    return coverage, width


def folds_of(run: Path, cases: Mapping[str, object]) -> dict[str, str]:
    """The fold that held each case out."""
    folds = {}
    for number, split in enumerate(read_json(run / "splits.json")):
        for name in split["validation"]:
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
        coverage, width = halves(ratios, np.random.default_rng(0))
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
            mean = 100 * coverage.mean()
            in_halves = f"{mean:.1f} +- {100 * coverage.std():.1f}"
        bias = math.exp(-float(np.median(ratios)))
        print(
            f"| {run.name}: {target} | {len(ratios)} | {bias:.2f} | "
            f"{in_halves} | {by_fold} | {np.median(width):.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    given = parser.parse_args()
    print(
        "| run: target | cases | predicted over true volume, median | "
        "held in halves (percent +- sd) | held by fold (percent, 95 %) | width |"
    )
    print("|---|---|---|---|---|---|")
    for run in given.runs:
        show(run)


if __name__ == "__main__":
    main()
