"""How often 95 % intervals hold the truth, for values as metrics of medical images have
them, by method and number of cases; the last column is what trivox writes.

Everything is simulated and seeded. Shapes are fitted to per-case results: nnU-Net's Dice
of the hippocampus (mean .90, sd .034, skewness -.7), and our own of brain tumours and
phantoms.
"""

import argparse
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import isnan

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

from trivox.evaluation.metrics.classification import (
    ClassPredictions,
    ClassScores,
    weighted_scores,
)
from trivox.evaluation.metrics.intervals import (
    ANYWHERE,
    POSITIVE,
    SHARE,
    Support,
    mean_interval,
    median_interval,
    student_t_interval,
    wilson_interval,
)

Floats = NDArray[np.float64]
Shape = int | tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Floats]
Method = Callable[[Floats], Sequence[float] | None]

CASES = (5, 8, 12, 20, 50, 100, 200)
RESAMPLES = 1000
LARGE = 2_000_000
"""Values from which the true mean and median are taken."""


def beta(mean: float, sd: float) -> Draw:
    """Values between 0 and 1 with a mean and a standard deviation."""
    weight = mean * (1 - mean) / sd**2 - 1
    return lambda rng, shape: rng.beta(mean * weight, (1 - mean) * weight, shape)


def lognormal(sigma: float) -> Draw:
    """Positive values."""
    return lambda rng, shape: rng.lognormal(1, sigma, shape)


def mixture(share: float, rare: Draw, usual: Draw) -> Draw:
    """Some values of another kind."""

    def draw(rng: np.random.Generator, shape: Shape) -> Floats:
        chosen = rng.random(shape) < share
        return np.where(chosen, rare(rng, shape), usual(rng, shape))

    return draw


def failures(rng: np.random.Generator, shape: Shape) -> Floats:
    """Dice of what was not found."""
    return np.zeros(shape)


SHAPES: Mapping[str, tuple[Draw, Support]] = {
    "Dice of an organ .90 +- .034": (beta(0.90, 0.034), SHARE),
    "Dice of an organ .97 +- .012": (beta(0.97, 0.012), SHARE),
    "Dice of a tumour .86 +- .086": (beta(0.865, 0.086), SHARE),
    "Dice of a tumour's core .72 +- .20": (beta(0.72, 0.20), SHARE),
    "NSD, skewness -2": (
        lambda rng, shape: 1 - np.minimum(rng.lognormal(-3.35, 0.9, shape), 1),
        SHARE,
    ),
    "Dice of lesions, 10 % missed": (mixture(0.1, failures, beta(0.8, 0.1)), SHARE),
    "Dice of lesions, 3 % missed": (mixture(0.03, failures, beta(0.88, 0.05)), SHARE),
    "HD95, sd 40 % of the mean": (lognormal(0.4), POSITIVE),
    "HD95, sd 95 % of the mean": (lognormal(0.8), POSITIVE),
    "volume, sd 15 % of the mean": (lognormal(0.15), POSITIVE),
    "volume, sd 50 % of the mean": (lognormal(0.5), POSITIVE),
    "error in ml, heavy tails (t, 3)": (
        lambda rng, shape: rng.standard_t(3, shape),
        ANYWHERE,
    ),
}


def percentile(values: Floats) -> Sequence[float]:
    """Percentile bootstrap of the mean."""
    return list(np.quantile(_means(values), [0.025, 0.975]))


def accelerated(values: Floats) -> Sequence[float]:
    """BCa bootstrap of the mean (Efron 1987)."""
    mean = values.mean()
    means = _means(values)
    below = np.mean(means < mean) + np.mean(means == mean) / 2
    bias = ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    apart = values - mean
    squares = max(float((apart**2).sum()), 1e-300)
    acceleration = (apart**3).sum() / (6 * squares**1.5)
    shifted = bias + ndtri([0.025, 0.975])
    levels = ndtr(bias + shifted / (1 - acceleration * shifted))
    return list(np.quantile(means, levels))


def percentile_of_median(values: Floats) -> Sequence[float]:
    """Percentile bootstrap of the median."""
    return list(np.quantile(np.median(_drawn(values), axis=1), [0.025, 0.975]))


def _drawn(values: Floats) -> Floats:
    rng = np.random.default_rng(0)
    return values[rng.integers(0, values.size, (RESAMPLES, values.size))]


def _means(values: Floats) -> Floats:
    return np.asarray(_drawn(values).mean(axis=1))


def coverage(method: Method, samples: Floats, truth: float) -> float:
    """Percent of samples `(sample, case)` whose interval holds the truth; where there is
    none, it does not count.
    """
    held = []
    for values in samples:
        interval = method(values)
        if interval is not None:
            low, high = interval[:2]
            held.append(low - 1e-12 <= truth <= high + 1e-12)
    return 100 * float(np.mean(held)) if held else float("nan")


def seed_of(*names: object) -> int:
    """Another seed for every row, the same every time."""
    return zlib.crc32(repr(names).encode())


def header(title: str, columns: Sequence[str]) -> None:
    """Begin a table."""
    print(f"\n{title}\n")
    print(f"| values | cases | {' | '.join(columns)} |")
    print("|---|---|" + "---|" * len(columns))


def row(name: str, cases: object, percents: Sequence[float], method: str = "") -> None:
    """A row of a table."""
    shown = ["none" if isnan(each) else f"{each:.1f}" for each in percents]
    shown[-1] = f"**{shown[-1]}** {method}".strip()
    print(f"| {name} | {cases} | {' | '.join(shown)} |", flush=True)


def means(samples: int, slow: int) -> None:
    """Intervals of means."""
    columns = ("percentile bootstrap", "BCa", "Student-t", "trivox")
    header("Coverage of the 95 % interval of the mean (percent)", columns)
    for name, (draw, support) in SHAPES.items():
        truth = float(draw(np.random.default_rng(1), LARGE).mean())
        for cases in CASES:
            rng = np.random.default_rng(seed_of(name, cases))
            values = draw(rng, (samples, cases))

            def chosen(
                each: Floats, support: Support = support
            ) -> Sequence[float] | None:
                interval = mean_interval(each, support)
                return None if interval is None else interval[:2]

            example = mean_interval(values[0], support)
            row(
                name,
                cases,
                [
                    coverage(percentile, values[:slow], truth),
                    coverage(accelerated, values[:slow], truth),
                    coverage(student_t_interval, values, truth),
                    coverage(chosen, values, truth),
                ],
                example.method if example else "",
            )


def medians(samples: int, slow: int) -> None:
    """Intervals of medians; fewer than 6 cases have none."""
    header(
        "Coverage of the 95 % interval of the median (percent)",
        ("percentile bootstrap", "trivox"),
    )
    for name in ("Dice of an organ .90 +- .034", "HD95, sd 95 % of the mean"):
        draw, _ = SHAPES[name]
        truth = float(np.median(draw(np.random.default_rng(1), LARGE)))
        for cases in CASES[1:]:
            rng = np.random.default_rng(seed_of(name, cases, "median"))
            values = draw(rng, (samples, cases))
            row(
                name,
                cases,
                [
                    coverage(percentile_of_median, values[:slow], truth),
                    coverage(median_interval, values, truth),
                ],
                "order statistics",
            )


def proportions() -> None:
    """Intervals of proportions, exactly, by the binomial distribution."""
    from scipy.stats import binom

    header(
        "Coverage of the 95 % interval of a proportion (percent; exact, mean over true "
        "proportions within 0.02)",
        ("Wald", "Clopper-Pearson", "trivox"),
    )
    for middle in (0.5, 0.8, 0.95):
        for cases in CASES:
            percents = []
            for method in (_wald, _clopper_pearson, wilson_interval):
                bounds = [method(hits, cases) for hits in range(cases + 1)]
                held = [
                    sum(
                        binom.pmf(hits, cases, truth)
                        for hits, (low, high, *_) in enumerate(bounds)
                        if low <= truth <= high
                    )
                    for truth in np.linspace(middle - 0.02, middle + 0.02, 41)
                ]
                percents.append(100 * float(np.mean(held)))
            row(f"proportion about {middle}", cases, percents, "Wilson")


def _wald(hits: int, cases: int) -> Sequence[float]:
    share = hits / cases
    half = 1.96 * (share * (1 - share) / cases) ** 0.5
    return share - half, share + half


def _clopper_pearson(hits: int, cases: int) -> Sequence[float]:
    return binomtest(hits, cases).proportion_ci(method="exact")


SCORES = ("macro_f1", "balanced_accuracy", "mcc", "auc", "brier", "log_loss", "ece")


def answers(
    rng: np.random.Generator, cases: int, shares: Sequence[float], sharpness: float
) -> ClassPredictions:
    """A classifier whose logit of the true class is higher by `sharpness` standard
    deviations; every class has its share of the cases.
    """
    count = len(shares)
    sizes = np.maximum(np.round(np.array(shares) * cases).astype(int), 1)
    truth = np.repeat(np.arange(count), sizes)
    logits = rng.normal(0, 1, (len(truth), count))
    logits[np.arange(len(truth)), truth] += sharpness
    chance = np.exp(logits)
    chance /= chance.sum(axis=1, keepdims=True)
    names = tuple(str(number) for number in range(len(truth)))
    return ClassPredictions(names, truth, chance, tuple("abcdef"[:count]))


def classes(samples: int) -> None:
    """Intervals of scores of classes."""
    header(
        "Coverage of the 95 % intervals of classes (percent)",
        ("percentile bootstrap", "trivox"),
    )
    for shares, sharpness in (
        ((0.5, 0.5), 1.0),
        ((0.5, 0.5), 2.5),
        ((0.2, 0.8), 1.5),
        ((0.5, 0.3, 0.2), 1.5),
    ):
        rng = np.random.default_rng(3)
        large = answers(rng, 200_000, shares, sharpness)
        truth = weighted_scores(large, np.ones((1, len(large.names))))
        for cases in (10, 20, 50, 150):
            _row_of_classes(samples, cases, shares, sharpness, truth)


def _row_of_classes(
    samples: int,
    cases: int,
    shares: Sequence[float],
    sharpness: float,
    truth: Mapping[str, Floats],
) -> None:
    held: dict[str, tuple[list[bool], list[bool]]] = {name: ([], []) for name in SCORES}
    rng = np.random.default_rng(seed_of(shares, sharpness, cases))
    for _ in range(samples):
        measured = ClassScores.of(
            answers(rng, cases, shares, sharpness), seed=0, resamples=400
        )
        summary = measured.summary()
        for name, (by_percentile, by_trivox) in held.items():
            value = float(truth[name][0])
            low, high = np.nanquantile(measured.draws[name], [0.025, 0.975])
            by_percentile.append(bool(low <= value <= high))
            interval = summary[name]["ci95"]  # type: ignore[literal-required]
            if interval is not None:
                by_trivox.append(bool(interval[0] <= value <= interval[1]))
    for name, both in held.items():
        value = float(truth[name][0])
        title = f"{name} {value:.2f}, classes {', '.join(map(str, shares))}"
        percents = [100 * float(np.mean(one)) if one else float("nan") for one in both]
        row(title, cases, percents)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000, help="of each row")
    parser.add_argument("--slow", type=int, default=1000, help="of bootstraps")
    parser.add_argument("--only", nargs="*", default=[], help="tables by name")
    given = parser.parse_args()
    tables = {
        "means": lambda: means(given.samples, given.slow),
        "medians": lambda: medians(given.samples, given.slow),
        "proportions": proportions,
        "classes": lambda: classes(given.slow),
    }
    for name, show in tables.items():
        if not given.only or name in given.only:
            show()


if __name__ == "__main__":
    main()
