"""How often the 90 % intervals of volumes that trivox learns hold the true volume of
cases that they were not learnt on: held-out cases of finished runs, their figures in
RUN/validation/metrics.json.

Halves: learnt on a random half of the cases and asked of the other, 400 times, seeded.
Folds: learnt on four folds and asked of the fifth, where a run has several. Width: by
what factor the upper bound is above the lower one.

--shift: what happens to cohorts that are not like the cases learnt on, without weights
and with those of `trivox predict --weighted-intervals`. Intervals are learnt on a random
half; a third of the other half is drawn with odds exp(strength x z), z the first
principal component of the images' looks or the logarithm of the true volume, both
standardised; 60 times, seeded.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.splits import read_folds
from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.metrics.intervals import wilson_interval
from trivox.inference.doubt.conformal import (
    VolumeBand,
    band_of,
    held_by_others,
    log_ratios,
)
from trivox.inference.doubt.shift import (
    FEWEST_EFFECTIVE,
    features_of,
    likelihood_ratios,
    weighted_band,
)
from trivox.inference.judge import look_of
from trivox.inference.predictor import Predictor
from trivox.planning.plan import read_plan

from _held_out import (  # isort: skip
    REPEATS,
    Floats,
    halvings,
    parser_of_runs,
    percent,
    show_header,
    show_row,
)

COHORTS = 60
STRENGTHS = (0.0, 1.0, 2.0)


class Shifted(NamedTuple):
    """How a cohort did: shares held, widths, how many cases were left after weighing, and
    what share of new cases had no weighted interval.
    """

    plain: float
    weighted: float
    width: float
    weighted_width: float
    effective: float
    without: float


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


def looks_of(run: Path, names: Iterable[str]) -> Floats:
    """What the image of each case looks like, `(n, f)`."""
    predictor = Predictor.load(run, device="cpu")
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    rows = []
    for name in names:
        begun = predictor.begin(cases[name])
        ready = begun.made_ready(predictor.members, predictor.descriptions)
        look = look_of(ready.cases[0], predictor.members[0].plan)
        rows.append(features_of(look))
    return np.stack(rows)


def standard(values: Floats) -> Floats:
    """With mean 0 and spread 1."""
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1))


def cohort(
    looks: Floats, ratios: Floats, odds: Floats, rng: np.random.Generator
) -> Shifted:
    """One cohort that is drawn by odds `(n,)` from the half that nothing is learnt on."""
    order = rng.permutation(len(ratios))
    known, others = np.split(order, [len(order) // 2])
    chance = odds[others] / odds[others].sum()
    new = rng.choice(others, len(others) // 3, replace=False, p=chance)
    plain = band_of(ratios[known])
    assert plain is not None
    weights = likelihood_ratios(looks[known], looks[new])
    bands = [weighted_band(ratios[known], weights.known, each) for each in weights.new]
    if weights.effective < FEWEST_EFFECTIVE:
        bands = [None] * len(new)
    used = [plain if band is None else band for band in bands]
    return Shifted(
        plain=float(np.mean([holds(plain, ratios[case]) for case in new])),
        weighted=float(
            np.mean(
                [
                    holds(band, ratios[case])
                    for band, case in zip(used, new, strict=True)
                ]
            )
        ),
        width=plain.high - plain.low,
        weighted_width=float(np.median([band.high - band.low for band in used])),
        effective=weights.effective,
        without=float(np.mean([band is None for band in bands])),
    )


def holds(band: VolumeBand, ratio: float) -> bool:
    """Whether the true volume lies within."""
    return bool(band.low <= ratio <= band.high)


def show_shift(run: Path) -> None:
    """The rows of a run for cohorts that are not like its cases."""
    cases = read_metrics(run / "validation" / "metrics.json")["cases"]
    plan = read_plan(run / "plan.json")
    offset_ml = math.prod(plan.spacing) / 1000
    looks = looks_of(run, cases)
    left, values, _ = np.linalg.svd(standard(looks), full_matrices=False)
    component = standard(left[:, 0] * values[0])
    for target in plan.labels.targets:
        pairs = [
            (row[target]["volume_ml"], row[target]["reference_volume_ml"])
            for row in cases.values()
        ]
        ratios = log_ratios(pairs, offset_ml)
        size = standard(np.log(np.array(pairs)[:, 1] + offset_ml))
        kinds = {"look": component, "other look": -component}
        kinds |= {"large": size, "small": -size}
        for kind, score in kinds.items():
            for strength in STRENGTHS:
                if strength == 0 and kind != "look":
                    continue
                odds = np.exp(strength * score)
                drawn = np.array(
                    [
                        cohort(looks, ratios, odds, np.random.default_rng(repeat))
                        for repeat in range(COHORTS)
                    ]
                )
                mean = Shifted(*drawn.mean(axis=0))
                show_row(
                    f"{run.name}: {target}",
                    f"{kind if strength else 'none'}, {strength:g}",
                    percent(drawn[:, 0]),
                    percent(drawn[:, 1]),
                    f"{math.exp(mean.width):.3g}, {math.exp(mean.weighted_width):.3g}",
                    f"{mean.effective:.0f} of {len(ratios) // 2}",
                    f"{100 * mean.without:.0f}",
                )


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
    parser = parser_of_runs(__doc__)
    parser.add_argument("--shift", action="store_true")
    given = parser.parse_args()
    if given.shift:
        show_header(
            "run: target",
            "shift, strength",
            "held without weights (percent +- sd)",
            "with weights",
            "widths",
            "validation cases left",
            "without weights after all (percent)",
        )
        for run in given.runs:
            show_shift(run)
        return
    show_header(
        "run: target",
        "cases",
        "predicted over true volume, median",
        "held in halves (percent +- sd)",
        "held by fold (percent, 95 %)",
        "width",
    )
    for run in given.runs:
        show(run)


if __name__ == "__main__":
    main()
