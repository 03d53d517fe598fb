"""How the class of a case gets better with more training cases: AUC and macro-F1 of
classifiers that are fitted on 25, 50, 100 and 200 of them, answered on the held-out
cases of the run.

Give runs of `trivox train --task multitask`, some with folds dealt by patient and some
with `--split-by intensity`, for example; those of one way to deal are taken together,
each case answered by the run that held it out, of the cases that all ways answer.
Networks stay as they were trained: features of their training cases are in
`case-features.npz`, those of held-out cases are measured once, as predicted. For each
number of cases, training cases are drawn several times, by class as they are frequent,
and a classifier is fitted as training does.

Intervals are over held-out cases (bootstrap error of the mean over draws, symmetric for
the logit), `over draws` is the standard deviation between draws.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.splits import read_folds
from trivox.evaluation.metrics.claims import false_claim_of_draws
from trivox.evaluation.metrics.class_intervals import difference_interval
from trivox.evaluation.metrics.classification import ClassPredictions, ClassScores
from trivox.evaluation.metrics.intervals import logit_interval
from trivox.files import read_json, write_json
from trivox.inference.predictor import Predictor
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.case_classifier.fitting import fit_classifier

from _held_out import fold_of  # isort: skip

Array = np.ndarray
SCORES = ("auc", "macro_f1")


@dataclass(frozen=True)
class Measured:
    """Features of a run's cases.

    names: of features; train `(n, f)` with truth and patients; held_out: by name of a
    case; expected: its class; source: where the folds are from.
    """

    names: list[str]
    hand_made: list[str]
    train: Array
    truth: Array
    patients: list[str]
    held_out: Mapping[str, Mapping[str, float | None]]
    expected: Array
    classes: tuple[str, ...]
    source: str


def measured(run: Path, cache: Path | None) -> Measured:
    """Features of the training cases from the run, of the held-out ones from its
    network.
    """
    dataset = read_saved_dataset(run / "dataset.json")
    split = read_folds(run)[fold_of(run)]
    cases = {case.name: case for case in dataset.cases}
    known = [name for name in split.validation if cases[name].class_name is not None]
    file = None if cache is None else cache / f"{run.resolve().name}.json"
    if file is None or not file.is_file():
        looked_at = held_out_features(run, [cases[name] for name in known])
        if file is not None:
            write_json(file, looked_at)
    else:
        looked_at = read_json(file)
    with np.load(run / "case-features.npz") as stored:
        names = stored["names"].tolist()
        return Measured(
            names,
            [name for name in names if name in set(looked_at["hand_made"])],
            stored["features"].astype(np.float64),
            stored["classes"],
            [cases[name].patient for name in stored["cases"].tolist()],
            {name: looked_at["cases"][name] for name in known},
            np.array([dataset.classes.index(cases[name].class_name) for name in known]),
            dataset.classes,
            split.source,
        )


def held_out_features(run: Path, cases: Sequence[Case]) -> dict[str, Any]:
    """Hand-made features of cases where the network of a run predicts the lesion; null
    where they cannot be known.
    """
    predictor = Predictor.load(run, device="cpu")
    features = {}
    for case in cases:
        reading = predictor.predict_case(case).readings[0]
        deep = set().union(*predictor.members[0].readers[0].subsets().values())
        features[case.name] = {
            name: value if np.isfinite(value) else None
            for name, value in reading.features.items()
            if name not in deep
        }
    return {"hand_made": list(features[cases[0].name]), "cases": features}


def on_common(groups: Mapping[str, Sequence[Measured]]) -> dict[str, list[Measured]]:
    """The runs with those held-out cases alone that every way to deal folds answers."""
    common: set[str] | None = None
    for runs in groups.values():
        answered = set().union(*(data.held_out for data in runs))
        common = answered if common is None else common & answered
    return {
        source: [only(data, common) for data in runs] for source, runs in groups.items()
    }


def only(data: Measured, wanted: set[str]) -> Measured:
    """Some of the held-out cases."""
    chosen = np.array([name in wanted for name in data.held_out], dtype=bool)
    held_out = {n: row for n, row in data.held_out.items() if n in wanted}
    return replace(data, held_out=held_out, expected=data.expected[chosen])


def drawn(truth: Array, count: int, rng: np.random.Generator) -> Array:
    """Rows of so many cases, of each class as many as is its share, two at least."""
    chosen: list[int] = []
    for number in np.unique(truth):
        rows = np.flatnonzero(truth == number)
        share = max(2, round(count * len(rows) / len(truth)))
        chosen += rng.permutation(rows)[:share].tolist()
    return np.array(sorted(chosen))


def fitted(data: Measured, rows: Array, kind: str, seed: int) -> CaseClassifier:
    """A classifier on some training cases."""
    result = fit_classifier(
        data.train[rows],
        data.truth[rows],
        names=data.names,
        class_names=data.classes,
        subsets={"hand-made": data.hand_made},
        kinds=(kind,),
        groups=[data.patients[row] for row in rows],
        seed=seed,
    )
    return result.classifier


def scores_of(
    runs: Sequence[Measured], classifiers: Sequence[CaseClassifier]
) -> ClassScores:
    """Scores on the held-out cases of some runs, each with its own classifier; cases
    sorted, so that the same cases are drawn of them.
    """
    answers = {}
    truth = {}
    for data, classifier in zip(runs, classifiers, strict=True):
        truth |= dict(zip(data.held_out, data.expected.tolist(), strict=True))
        for name, features in data.held_out.items():
            row = [[features[each] for each in classifier.names]]
            answers[name] = classifier.probabilities(np.array(row, np.float64))[0]
    names = tuple(sorted(answers))
    predictions = ClassPredictions(
        names,
        np.array([truth[name] for name in names]),
        np.stack([answers[name] for name in names]),
        runs[0].classes,
    )
    return ClassScores.of(predictions, seed=0)


def compared(
    first: Sequence[ClassScores], second: Sequence[ClassScores], name: str
) -> str:
    """The mean over draws of one way to deal folds minus that of the other, where they
    answer the same cases.
    """
    values = [
        float(np.mean([each.value[name][0] for each in scores]))
        for scores in (first, second)
    ]
    draws = [
        np.mean([each.draws[name] for each in scores], axis=0)
        for scores in (first, second)
    ]
    value = values[0] - values[1]
    apart = draws[0] - draws[1]
    interval = difference_interval(value, apart, len(first[0].known.names))
    chance = false_claim_of_draws(apart)
    return (
        f"{value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}), P(false claim) "
        f"{chance:.4f}"
    )


def cell(scores: Sequence[ClassScores], name: str, cases: int) -> str:
    """The mean over draws with its interval, and how far draws lie apart."""
    values = [float(each.value[name][0]) for each in scores]
    resamples = np.mean([each.draws[name] for each in scores], axis=0)
    error = float(np.nanstd(resamples))
    low, high, _ = logit_interval(float(np.mean(values)), error, cases)
    apart = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "-"
    return f"{np.mean(values):.3f} ({low:.3f} to {high:.3f}) | {apart}"


def rows(
    runs: Sequence[Measured], sizes: Sequence[int], draws: int, kind: str
) -> Iterator[tuple[int, list[ClassScores]]]:
    """Scores of each number of training cases that all runs have, of as many draws."""
    fewest = min(len(data.truth) for data in runs)
    for count in sorted({min(size, fewest) for size in sizes}):
        scores = []
        for seed in range(draws):
            classifiers = []
            for data in runs:
                chosen = drawn(data.truth, count, np.random.default_rng(seed))
                classifiers.append(fitted(data, chosen, kind, seed))
            scores.append(scores_of(runs, classifiers))
        yield count, scores


def print_differences(curves: Mapping[str, Mapping[int, list[ClassScores]]]) -> None:
    """Print differences between ways to deal folds that answer the same cases."""
    for (one, first), (other, second) in combinations(curves.items(), 2):
        for count in sorted(first.keys() & second.keys()):
            if first[count][0].known.names == second[count][0].known.names:
                auc = compared(first[count], second[count], "auc")
                print(f"\n{count} training cases, {one} minus {other}: AUC {auc}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cache", type=Path, help="folder for measured features")
    parser.add_argument("--kind", default="lda", choices=["lda", "logreg", "mlp"])
    options = parser.parse_args()
    started = time.process_time()
    print(
        "| folds | held out | training cases | AUC | over draws | macro-F1 | over draws |"
    )
    print("|---|---|---|---|---|---|---|")
    groups: dict[str, list[Measured]] = {}
    for run in options.runs:
        data = measured(run, options.cache)
        groups.setdefault(data.source, []).append(data)
    curves: dict[str, dict[int, list[ClassScores]]] = {}
    for source, runs in on_common(groups).items():
        curves[source] = {}
        expected = np.concatenate([data.expected for data in runs])
        shares = np.bincount(expected, minlength=len(runs[0].classes))
        held_out = f"{len(expected)} ({' + '.join(map(str, shares))})"
        for count, scores in rows(runs, options.sizes, options.draws, options.kind):
            curves[source][count] = scores
            cells = " | ".join(cell(scores, name, len(expected)) for name in SCORES)
            print(f"| {source} | {held_out} | {count} | {cells} |", flush=True)
    print_differences(curves)
    print(
        f"\n{options.draws} draws, {options.kind} on hand-made features; held out: "
        f"{' + '.join(data.classes)}; {time.process_time() - started:.0f} CPU seconds"
    )


if __name__ == "__main__":
    main()
