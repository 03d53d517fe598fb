"""Models ranked as in the BraTS challenge: by their ranks in each case, region and
metric, not by their means.

In every case, for every region and metric, models get ranks from 1 (best) on, ties
share the mean of theirs, and a model without a result is last. A case's mean over
regions and metrics is the model's rank there; the mean over cases its score (Bakas et
al. 2018, arXiv:1811.02629). `comparing` says how far two models differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from trivox.errors import DataError, RecipeError
from trivox.evaluation.conventions.choice import CONVENTIONS, Standard
from trivox.evaluation.folders.comparing import (
    Comparison,
    compare_models,
    comparison_lines,
)
from trivox.evaluation.folders.labels import names_in, whole_in
from trivox.evaluation.metrics.claims import CONVENTION
from trivox.evaluation.metrics.content import (
    FORMAT_VERSION,
    ConventionBlock,
    MetricRow,
    MetricsFile,
    Statistic,
)
from trivox.evaluation.metrics.statistics import (
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    methods_of,
    summarise,
)

PERMUTATIONS = 10_000
ABOUT_STATISTICS = ("summary", "ci95", "ladder")
"""What a convention says of statistics, not of how a case is measured."""
Floats = NDArray[np.float64]
Models = Mapping[str, MetricsFile]
"""Content of the metrics.json of each model, by name."""


class RankedModel(TypedDict):
    """A model's place (1 is best, ties share it) and mean rank; by label and metric its
    mean ranks and the statistics of the values themselves.
    """

    place: int
    score: float
    missing_cases: int
    mean_ranks: dict[str, dict[str, float]]
    means: dict[str, dict[str, Statistic]]


class RankingFile(TypedDict):
    """What ranking.json holds; models in the order of their places."""

    task: str | None
    format_version: int
    convention: ConventionBlock
    metrics: list[str]
    cases: int
    models: dict[str, RankedModel]
    comparisons: list[Comparison]
    permutations: int
    claims: str
    warnings: list[str]


class Criterion(NamedTuple):
    """What models get a rank for."""

    case: str
    label: str
    metric: str


def rank_models(
    models: Models,
    *,
    metrics: Sequence[str] = (),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> RankingFile:
    """Rank models by what their metrics.json hold; returns what ranking.json holds.

    models: name -> content of its metrics.json. metrics: what to rank by; empty: what
    the convention says. Raises `DataError` if there is only one model, or if
    conventions or labels differ or no case is common to all models; `RecipeError` for
    metrics that do not exist. A case that a model lacks counts as its worst, with a
    warning.
    """
    _require_comparable(models)
    ranked = _chosen(metrics, models)
    cases = _cases(models)
    columns = _columns(models, cases, ranked)
    ranks = _ranks(models, columns)
    case_ranks = _ranks_of_cases(ranks, columns, cases)
    scores = case_ranks.mean(1)
    order = np.argsort(scores, kind="stable").tolist()
    names = list(models)
    results: dict[str, RankedModel] = {}
    for i in order:
        content = models[names[i]]
        results[names[i]] = {
            "place": 1 + int((scores < scores[i] - 1e-9).sum()),
            "score": float(scores[i]),
            "missing_cases": len(set(cases) - set(content["cases"])),
            "mean_ranks": _mean_ranks(ranks[i], columns),
            "means": _means(content, ranked),
        }
    return {
        "task": models[names[0]].get("task"),
        "format_version": FORMAT_VERSION,
        "convention": dict(models[names[0]]["convention"]),
        "metrics": ranked,
        "cases": len(cases),
        "models": results,
        "comparisons": compare_models(
            {names[i]: models[names[i]]["cases"] for i in order},
            case_ranks[order],
            metrics=ranked,
            whole=whole_in(models[names[0]]["convention"]),
            permutations=permutations,
            seed=seed,
        ),
        "claims": CONVENTION,
        "permutations": permutations,
        "warnings": _warnings(models, cases),
    }


def name_models(files: Sequence[Path], names: Sequence[str] = ()) -> list[str]:
    """Names of the models whose metrics.json are `files`: those given, else the file or
    the folder that tells them apart.

    Raises `DataError` if their number is wrong or two are alike.
    """
    chosen = [name.strip() for name in names] or [_name(file) for file in files]
    if len(chosen) != len(files) or not all(chosen):
        raise DataError(
            f"{len(files)} files need {len(files)} names, {', '.join(chosen)} given; "
            "write --names A,B,..."
        )
    alike = sorted({name for name in chosen if chosen.count(name) > 1})
    if alike:
        raise DataError(
            f"several models are named {', '.join(alike)}; name them with --names "
            "A,B,..."
        )
    return chosen


def _name(file: Path) -> str:
    """`unet` for unet.json, unet/metrics.json and unet/validation/metrics.json."""
    for part in (file.stem, *reversed(file.absolute().parts[1:-1])):
        if part not in ("metrics", "validation"):
            return part
    return file.stem


def ranking_lines(ranking: RankingFile) -> Iterator[str]:
    """The ranking as lines of text: places, means with 95 % intervals, and p-values."""
    width = max(len(name) for name in ranking["models"])
    by = ", ".join(ranking["metrics"])
    yield (
        f"{'place':>5}  {'model':<{width}}  mean rank over {ranking['cases']} cases "
        f"({by})"
    )
    for name, model in ranking["models"].items():
        yield f"{model['place']:>5}  {name:<{width}}  {model['score']:.3f}"
    for metric in ranking["metrics"]:
        by_label = [model["means"].values() for model in ranking["models"].values()]
        methods = methods_of(rows[metric] for rows in chain(*by_label))
        yield f"mean {metric} with 95 % interval ({', '.join(methods) or 'none'})"
        for name, model in ranking["models"].items():
            means = model["means"].items()
            values = [f"{label} {_interval(rows[metric])}" for label, rows in means]
            yield f"       {name:<{width}}  {'  '.join(values)}"
    yield from comparison_lines(ranking["comparisons"])


def _interval(row: Statistic) -> str:
    if row["mean"] is None:
        return "-"
    if not row["ci95"]:
        return f"{row['mean']:.3f}"
    low, high = row["ci95"]
    return f"{row['mean']:.3f} [{low:.3f}, {high:.3f}]"


# -- what can be ranked ----------------------------------------------------------------
def _require_comparable(models: Models) -> None:
    """Raise `DataError` unless all models were measured in the same way on cases that
    overlap.
    """
    if len(models) < 2:
        raise DataError(
            f"a ranking needs at least two models, {len(models)} given; add the "
            "metrics.json of another one"
        )
    first, *others = models
    for other in others:
        _require_same_convention(first, other, models)
        _require_same_labels(first, other, models)
    measured = [set(content["cases"]) for content in models.values()]
    if not set.intersection(*measured):
        raise DataError(
            f"{', '.join(models)}: no case is in all of them; evaluate the models on "
            "the same cases"
        )


def _require_same_convention(first: str, other: str, models: Models) -> None:
    expected = models[first]["convention"]
    convention = models[other]["convention"]
    values = []
    for key in sorted({*expected, *convention} - set(ABOUT_STATISTICS)):
        wanted = expected.get(key)
        actual = convention.get(key)
        if wanted != actual:
            values.append(f"{key}: {wanted!s:.40} and {actual!s:.40}")
    if values:
        raise DataError(
            f"{first} and {other} were measured under different conventions "
            f"({'; '.join(values[:2])}); evaluate both with the same one"
        )


def _require_same_labels(first: str, other: str, models: Models) -> None:
    expected = names_in(models[first]["cases"].values())
    labels = names_in(models[other]["cases"].values())
    different = sorted({*expected} ^ {*labels})
    if different:
        raise DataError(
            f"{first} and {other} have different labels ({', '.join(different)} in one "
            "only); evaluate both against the same references"
        )


def _chosen(metrics: Sequence[str], models: Models) -> list[str]:
    """The metrics to rank by: those given, else those of the convention.

    Raises `RecipeError` for metrics that cannot be ranked by or that no model has.
    """
    wanted = list(metrics)
    if not wanted:
        first = next(iter(models.values()))
        name = str(first["convention"].get("name"))
        wanted = list(CONVENTIONS.get(name, Standard).ranked)
    rows: list[MetricRow] = []
    for content in models.values():
        for case in content["cases"].values():
            rows += case.values()
    measured = set(names_in(rows))
    ordered = (*HIGHER_IS_BETTER, *LOWER_IS_BETTER)
    present = [metric for metric in ordered if metric in measured]
    unknown = [metric for metric in wanted if metric not in present]
    if unknown:
        raise RecipeError(
            f"models cannot be ranked by {', '.join(unknown)}; choose from "
            f"{', '.join(present)}"
        )
    return wanted


def _cases(models: Models) -> list[str]:
    """Cases that any model was measured on, sorted."""
    cases: set[str] = set()
    for content in models.values():
        cases.update(case for case, rows in content["cases"].items() if rows)
    return sorted(cases)


def _columns(
    models: Models, cases: Sequence[str], metrics: Sequence[str]
) -> list[Criterion]:
    """One column for each case, label of the case and metric."""
    columns: list[Criterion] = []
    for case in cases:
        rows = [content["cases"].get(case, {}) for content in models.values()]
        for label in names_in(rows):
            columns += [Criterion(case, label, metric) for metric in metrics]
    return columns


# -- ranks -----------------------------------------------------------------------------
def _ranks(models: Models, columns: Sequence[Criterion]) -> Floats:
    """Rank of each model in each column, `(model, column)`."""
    merits = np.empty((len(models), len(columns)))
    for i, content in enumerate(models.values()):
        merits[i] = [_merit(content, column) for column in columns]
    from scipy.stats import rankdata  # slow to load

    return np.asarray(rankdata(-merits, axis=0), dtype=np.float64)


def _ranks_of_cases(
    ranks: Floats, columns: Sequence[Criterion], cases: Sequence[str]
) -> Floats:
    """Mean rank of each model in each case, `(model, case)`."""
    place_of_case = {case: place for place, case in enumerate(cases)}
    case_of = np.array([place_of_case[column.case] for column in columns])
    of_case = case_of == np.arange(len(cases))[:, None]  # (case, column)
    shares = of_case / of_case.sum(1, keepdims=True)
    return np.asarray(ranks @ shares.T)


def _merit(content: MetricsFile, column: Criterion) -> float:
    """A value that is larger for better results: infinite where nothing was to be found
    nor was, -infinite without any.
    """
    row = content["cases"].get(column.case, {}).get(column.label)
    if row is None:
        return -np.inf
    value = row.get(column.metric)
    if value is None:
        return np.inf if row.get("empty") == "both" else -np.inf
    return -float(value) if column.metric in LOWER_IS_BETTER else float(value)


def _mean_ranks(
    ranks: Floats, columns: Sequence[Criterion]
) -> dict[str, dict[str, float]]:
    """Mean over cases for each label and metric; ranks of one model, `(column,)`."""
    values: dict[tuple[str, str], list[float]] = {}
    for rank, column in zip(ranks.tolist(), columns, strict=True):
        values.setdefault((column.label, column.metric), []).append(rank)
    means: dict[str, dict[str, float]] = {}
    for (label, metric), of_cases in values.items():
        means.setdefault(label, {})[metric] = float(np.mean(of_cases))
    return means


def _means(
    content: MetricsFile, metrics: Sequence[str]
) -> dict[str, dict[str, Statistic]]:
    """Statistics of the values themselves over the cases that a model has."""
    cases = content["cases"].values()
    means: dict[str, dict[str, Statistic]] = {}
    for label in names_in(cases):
        rows = [case[label] for case in cases if label in case]
        means[label] = {}
        for metric in metrics:
            means[label][metric] = summarise([row.get(metric) for row in rows], metric)
    return means


def _warnings(models: Models, cases: Sequence[str]) -> list[str]:
    """One for each model that lacks cases."""
    warnings = []
    for name, content in models.items():
        absent = [case for case in cases if case not in content["cases"]]
        if absent:
            more = " ..." if len(absent) > 5 else ""
            warnings.append(
                f"{name} lacks {len(absent)} of {len(cases)} cases, each of which "
                f"counts as its worst: {', '.join(absent[:5])}{more}"
            )
    return warnings
