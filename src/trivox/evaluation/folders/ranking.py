"""Models ranked as in the BraTS challenge: by their ranks in each case, region and
metric, not by their means.

In every case, for every region and metric, models get ranks from 1 (best) on, ties
share the mean of theirs, and a model without a result is last. A case's mean over
regions and metrics is the model's rank there; the mean over cases its score (Bakas et
al. 2018, arXiv:1811.02629). Two models are compared by a permutation test: under the
null hypothesis, both could have swapped their ranks in any case.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.errors import DataError, RecipeError
from trivox.evaluation.conventions.choice import CONVENTIONS
from trivox.evaluation.metrics.statistics import summarise

PERMUTATIONS = 10_000
HIGHER_IS_BETTER = (
    "dice",
    "iou",
    "sensitivity",
    "specificity",
    "precision",
    "nsd",
    "nsd_voxel",
    "whole_dice",
    "instance_dice",
    "instance_nsd",
    "lesion_precision",
    "lesion_sensitivity",
    "rq",
    "pq",
)
LOWER_IS_BETTER = ("hd95_mm", "assd_mm", "whole_hd95_mm", "instance_hd95_mm")

Floats = NDArray[np.float64]
Content = Mapping[str, Any]


def rank_models(
    models: Mapping[str, Content],
    *,
    metrics: Sequence[str] = (),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Rank models by what their metrics.json hold; returns what ranking.json holds.

    models: name -> content of its metrics.json. metrics: what to rank by; empty: what
    the convention says. Raises `DataError` if there is only one model, or if
    conventions or labels differ or no case is common to all models; `RecipeError` for
    metrics that do not exist. A case that a model lacks counts as its worst, with a
    warning.
    """
    _require_comparable(models)
    ranked = _chosen(metrics, models)
    cases = sorted(
        {
            case
            for content in models.values()
            for case, rows in content["cases"].items()
            if rows
        }
    )
    columns = [
        (case, label, metric)
        for case in cases
        for label in _labels(models, case)
        for metric in ranked
    ]
    ranks = _ranks(models, columns)
    of_case = np.array([[case == other for case, _, _ in columns] for other in cases])
    case_ranks = ranks @ (of_case / of_case.sum(1, keepdims=True)).T  # (model, case)
    scores = case_ranks.mean(1)
    order = np.argsort(scores, kind="stable")
    names = list(models)
    return {
        "convention": dict(models[names[0]]["convention"]),
        "metrics": ranked,
        "cases": len(cases),
        "models": {
            names[i]: {
                "place": 1 + int((scores < scores[i] - 1e-9).sum()),
                "score": float(scores[i]),
                "missing_cases": len(set(cases) - set(models[names[i]]["cases"])),
                "mean_ranks": _mean_ranks(ranks[i], columns),
                "means": _means(models[names[i]], ranked),
            }
            for i in order
        },
        "comparisons": list(_comparisons(names, order, case_ranks, permutations, seed)),
        "permutations": permutations,
        "warnings": _warnings(models, cases),
    }


def name_models(files: Sequence[Path], names: Sequence[str] = ()) -> list[str]:
    """Names of the models whose metrics.json are `files`: those given, else the file or
    the folder that tells them apart.

    Raises `DataError` if their number is wrong or two are alike.
    """
    found = [name.strip() for name in names] or [_name(file) for file in files]
    if len(found) != len(files) or not all(found):
        raise DataError(
            f"{len(files)} files need {len(files)} names, {', '.join(found)} given; write --names A,B,..."
        )
    alike = sorted({name for name in found if found.count(name) > 1})
    if alike:
        raise DataError(
            f"several models are named {', '.join(alike)}; name them with --names A,B,..."
        )
    return found


def _name(file: Path) -> str:
    """`unet` for unet.json, unet/metrics.json and unet/validation/metrics.json."""
    parts = [*file.absolute().parts[1:-1], file.stem]
    return next(
        (part for part in reversed(parts) if part not in ("metrics", "validation")),
        file.stem,
    )


def ranking_lines(ranking: Content) -> Iterator[str]:
    """The ranking as lines of text: places, means with 95 % intervals, and p-values."""
    width = max(len(name) for name in ranking["models"])
    yield f"{'place':>5}  {'model':<{width}}  mean rank over {ranking['cases']} cases ({', '.join(ranking['metrics'])})"
    for name, model in ranking["models"].items():
        yield f"{model['place']:>5}  {name:<{width}}  {model['score']:.3f}"
    for metric in ranking["metrics"]:
        yield f"mean {metric} with 95 % interval"
        for name, model in ranking["models"].items():
            found = [
                f"{label} {_interval(rows[metric])}"
                for label, rows in model["means"].items()
            ]
            yield f"       {name:<{width}}  {'  '.join(found)}"
    yield "permutation test of two models (two-sided)"
    for pair in ranking["comparisons"]:
        yield f"       {pair['first']} before {pair['second']} by {pair['difference']:.3f} ranks: p = {pair['p_value']:.4g}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "-"
    return f"{row['mean']:.3f}" + (
        f" [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]" if row["ci95"] else ""
    )


def _require_comparable(models: Mapping[str, Content]) -> None:
    """Raise `DataError` unless all models were measured in the same way on cases that
    overlap.
    """
    if len(models) < 2:
        raise DataError(
            f"a ranking needs at least two models, {len(models)} given; add the metrics.json of another one"
        )
    first, *others = models
    for other in others:
        ours, theirs = (models[name]["convention"] for name in (first, other))
        different = sorted(
            key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)
        )
        if different:
            told = "; ".join(
                f"{key}: {ours.get(key)!s:.40} and {theirs.get(key)!s:.40}"
                for key in different[:2]
            )
            raise DataError(
                f"{first} and {other} were measured under different conventions ({told}); evaluate both with the same one"
            )
        labels = [
            {label for case in models[name]["cases"].values() for label in case}
            for name in (first, other)
        ]
        if labels[0] != labels[1]:
            raise DataError(
                f"{first} and {other} have different labels ({', '.join(sorted(labels[0] ^ labels[1]))} in "
                "one only); evaluate both against the same references"
            )
    if not set.intersection(*(set(content["cases"]) for content in models.values())):
        raise DataError(
            f"{', '.join(models)}: no case is in all of them; evaluate the models on the same cases"
        )


def _chosen(metrics: Sequence[str], models: Mapping[str, Content]) -> list[str]:
    name = str(next(iter(models.values()))["convention"].get("name", "trivox"))
    wanted = list(metrics) or list(
        CONVENTIONS[name].ranked
        if name in CONVENTIONS
        else CONVENTIONS["trivox"].ranked
    )
    rows = [
        row
        for content in models.values()
        for case in content["cases"].values()
        for row in case.values()
    ]
    present = [
        m
        for m in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER)
        if any(m in row for row in rows)
    ]
    unknown = [metric for metric in wanted if metric not in present]
    if unknown:
        raise RecipeError(
            f"models cannot be ranked by {', '.join(unknown)}; choose from {', '.join(present)}"
        )
    return wanted


def _labels(models: Mapping[str, Content], case: str) -> list[str]:
    return list(
        dict.fromkeys(
            label
            for content in models.values()
            for label in content["cases"].get(case, {})
        )
    )


def _ranks(
    models: Mapping[str, Content], columns: Sequence[tuple[str, str, str]]
) -> Floats:
    """Rank of each model in each column, `(model, column)`."""
    from scipy.stats import rankdata

    merit = [
        [
            _merit(content["cases"].get(case, {}).get(label), metric)
            for case, label, metric in columns
        ]
        for content in models.values()
    ]
    return np.asarray(rankdata(-np.array(merit), axis=0), dtype=np.float64)


def _merit(row: Mapping[str, Any] | None, metric: str) -> float:
    """A value that is larger for better results: infinite where nothing was to be found
    nor was, -infinite without any.
    """
    value = None if row is None else row.get(metric)
    if value is None:
        return np.inf if row is not None and row.get("empty") == "both" else -np.inf
    return -float(value) if metric in LOWER_IS_BETTER else float(value)


def _mean_ranks(
    ranks: Floats, columns: Sequence[tuple[str, str, str]]
) -> dict[str, dict[str, float]]:
    """Mean over cases for each label and metric."""
    result: dict[str, dict[str, float]] = {}
    for label, metric in dict.fromkeys((label, metric) for _, label, metric in columns):
        member = [column[1:] == (label, metric) for column in columns]
        result.setdefault(label, {})[metric] = float(ranks[member].mean())
    return result


def _means(content: Content, metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Statistics of the values themselves over the cases that a model has."""
    labels = dict.fromkeys(
        label for case in content["cases"].values() for label in case
    )
    rows = {
        label: [case[label] for case in content["cases"].values() if label in case]
        for label in labels
    }
    return {
        label: {
            metric: summarise([row.get(metric) for row in found]) for metric in metrics
        }
        for label, found in rows.items()
    }


def _comparisons(
    names: Sequence[str],
    order: Sequence[int] | NDArray[Any],
    case_ranks: Floats,
    permutations: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Each pair of models, the better one first, with the difference of their scores
    and its p-value.
    """
    rng = np.random.default_rng(seed)
    signs = rng.choice(
        np.array([-1.0, 1.0], dtype=np.float32), (permutations, case_ranks.shape[1])
    )
    for i, j in combinations(order, 2):
        differences = case_ranks[j] - case_ranks[i]
        extreme = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-6
        yield {
            "first": names[i],
            "second": names[j],
            "difference": float(differences.mean()),
            "p_value": float((1 + extreme.sum()) / (1 + permutations)),
        }


def _warnings(models: Mapping[str, Content], cases: Sequence[str]) -> list[str]:
    missing = {
        name: [case for case in cases if case not in content["cases"]]
        for name, content in models.items()
    }
    return [
        f"{name} lacks {len(absent)} of {len(cases)} cases, each of which counts as its worst: {', '.join(absent[:5])}"
        + (" ..." if len(absent) > 5 else "")
        for name, absent in missing.items()
        if absent
    ]
