"""How the class of a case gets better with more training cases: AUC and macro-F1 of
classifiers that are fitted on 25, 50, 100 and 200 of them, answered on the held-out
cases of the run.

Give runs of `trivox train --task multitask`, some with folds dealt by patient and some with
`--split-by intensity`, for example; those of one way to deal are taken together, each case
answered by the run that held it out. Networks stay as they were trained: features of
their training cases are in `case-features.npz`, those of held-out cases are measured
once, as predicted. For each number of cases, training cases are drawn several times, by
class as they are frequent, and a classifier is fitted as training does.

Intervals are over held-out cases (bootstrap error of the mean over draws, symmetric for
the logit), `over draws` is the standard deviation between draws.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.evaluation.metrics.classification import ClassPredictions, ClassScores
from trivox.evaluation.metrics.intervals import logit_interval
from trivox.files import read_json
from trivox.inference.predictor import Predictor
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.case_classifier.fitting import fit_classifier

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
    held_out: Mapping[str, Mapping[str, float]]
    expected: Array
    classes: tuple[str, ...]
    source: str


def fold_of(run: Path) -> int:
    """The fold that a run trained."""
    return int(read_json(run / "run.json")["fold"])


def measured(run: Path) -> Measured:
    """Features of the training cases from the run, of the held-out ones from its
    network.
    """
    dataset = read_saved_dataset(run / "dataset.json")
    split = read_json(run / "splits.json")[fold_of(run)]
    cases = {case.name: case for case in dataset.cases}
    predictor = replace(Predictor.load(run, device="cpu"), read_everything=True)
    held_out = {}
    expected = []
    for name in split["validation"]:
        truth = cases[name].class_name
        if truth is None:
            continue
        held_out[name] = predictor.predict_case(cases[name]).readings[0].features
        expected.append(dataset.classes.index(truth))
    deep = set().union(*predictor.members[0].readers[0].subsets().values())
    with np.load(run / "case-features.npz") as stored:
        names = stored["names"].tolist()
        return Measured(
            names,
            [name for name in names if name not in deep],
            stored["features"].astype(np.float64),
            stored["classes"],
            [cases[name].patient for name in stored["cases"].tolist()],
            held_out,
            np.array(expected),
            dataset.classes,
            split["from"],
        )


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
    """Scores on the held-out cases of some runs, each with its own classifier."""
    answers = {}
    for data, classifier in zip(runs, classifiers, strict=True):
        for name, features in data.held_out.items():
            answers[name] = classifier.probabilities(features)[0]
    expected = np.concatenate([data.expected for data in runs])
    predictions = ClassPredictions(
        tuple(answers), expected, np.stack(list(answers.values())), runs[0].classes
    )
    return ClassScores.of(predictions, seed=0)


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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--kind", default="lda", choices=["lda", "logreg", "mlp"])
    options = parser.parse_args()
    started = time.process_time()
    print(
        "| folds | held out | training cases | AUC | over draws | macro-F1 | over draws |"
    )
    print("|---|---|---|---|---|---|---|")
    groups: dict[str, list[Measured]] = {}
    for run in options.runs:
        data = measured(run)
        groups.setdefault(data.source, []).append(data)
    for source, runs in groups.items():
        expected = np.concatenate([data.expected for data in runs])
        shares = np.bincount(expected, minlength=len(runs[0].classes))
        held_out = f"{len(expected)} ({' + '.join(map(str, shares))})"
        for count, scores in rows(runs, options.sizes, options.draws, options.kind):
            cells = " | ".join(cell(scores, name, len(expected)) for name in SCORES)
            print(f"| {source} | {held_out} | {count} | {cells} |", flush=True)
    print(
        f"\n{options.draws} draws, {options.kind} on hand-made features; held out: "
        f"{' + '.join(data.classes)}; {time.process_time() - started:.0f} CPU seconds"
    )


if __name__ == "__main__":
    main()
