"""After training: what answers with the class of a case, fitted on each fold's training
cases, and how well it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case
from trivox.datasets.lesions import lesion_indices, other_targets
from trivox.evaluation.folders.class_section import classification_section
from trivox.evaluation.metrics.classification import ClassPredictions
from trivox.files import atomic_path
from trivox.inference.classes.reader import Reading, predicted_indices
from trivox.inference.describe import Prediction
from trivox.inference.descriptions import ClassAnswers
from trivox.inference.doubt.calibration import fit_temperature
from trivox.inference.predictor import Predictor
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.case_classifier.fitting import best_single_feature, fit_classifier
from trivox.tasks.console import Console
from trivox.tasks.stages import Prepared
from trivox.volumes.volume import Array

HAND_MADE = "hand-made"
SHALLOW = 2
"""Encoder stages that are tried together with hand-made features: texture lives there;
every candidate adds luck.
"""


@dataclass(frozen=True, eq=False)
class FoldAnswers:
    """How one fold answers.

    file: its classifier, None where its head does; single: the best hand-made feature
    alone.

    shares: the share of each other target in the lesion alone (of enhancing tumour in
    the whole tumour, for example); fitted: the answers to the training cases
    themselves; facts: for metrics.json.
    """

    file: Path | None
    single: CaseClassifier
    shares: Mapping[str, CaseClassifier]
    fitted: ClassPredictions
    facts: dict[str, Any]


def class_answers(
    prepared: Prepared, recipe: Recipe, *, temperature: float = 1.0
) -> ClassAnswers:
    """What the bundle says about classes, before classifiers are added."""
    return ClassAnswers(
        classes=prepared.dataset.classes,
        lesion=lesion_indices(prepared.plan.labels, recipe.classification.lesion),
        width=recipe.classification.width,
        temperature=temperature,
    )


def fit_fold(
    prepared: Prepared,
    recipe: Recipe,
    predictor: Predictor,
    folder: Path,
    *,
    fold: str,
    console: Console,
) -> FoldAnswers:
    """Fit what answers in a fold on its training cases: features where the network
    predicts the lesion.

    predictor: of this fold's network alone. Nothing of the held-out cases takes part,
    in no choice either. Writes `folder/case-features.npz` and
    `folder/classifier.safetensors`.
    """
    cases = [
        case
        for case in _cases(prepared, prepared.splits[int(fold)].train)
        if case.class_name is not None
    ]
    readings = read_cases(
        prepared, predictor, cases, f"reading classes of fold {fold}", console
    )
    names = list(readings[0].features)
    features = np.array(
        [[reading.features[name] for name in names] for reading in readings]
    )
    truth = truth_of(prepared, cases)
    with (
        atomic_path(folder / "case-features.npz") as temporary,
        temporary.open("wb") as file,
    ):
        np.savez_compressed(
            file,
            allow_pickle=False,
            cases=np.array([case.name for case in cases]),
            names=np.array(names),
            features=features.astype(np.float32),
            classes=truth,
        )
    deep = predictor.members[0].readers[0].subsets()
    hand_made = [
        name
        for name in names
        if name not in {n for stage in deep.values() for n in stage}
    ]
    common: dict[str, Any] = {
        "class_names": prepared.dataset.classes,
        "groups": [case.patient for case in cases],
        "seed": recipe.seed,
    }
    columns = [names.index(name) for name in hand_made]
    single = best_single_feature(features[:, columns], truth, names=hand_made, **common)
    shares = {
        name: best_single_feature(
            features[:, [names.index(name)]], truth, names=[name], **common
        )
        for name in shares_in_lesion(prepared, recipe, usable=_varying(names, features))
    }
    title = tuple(case.name for case in cases)
    facts: dict[str, Any] = {
        "training_cases": len(cases),
        "single_feature": single.names[0],
    }
    kind = recipe.classification.classifier
    if kind == "head":
        logits = np.stack(
            [reading.logits for reading in readings if reading.logits is not None]
        )
        fitted = ClassPredictions(
            title, truth, softmax(logits, axis=1), prepared.dataset.classes
        )
        return FoldAnswers(None, single, shares, fitted, {**facts, "kind": "head"})
    found = fit_classifier(
        features,
        truth,
        names=names,
        subsets=subsets_of(recipe, hand_made, deep),
        kinds=("lda", "logreg", "mlp") if kind == "auto" else (kind,),
        **common,
    )
    found.classifier.save(folder / "classifier.safetensors")
    fitted = ClassPredictions(
        title, truth, found.resubstitution, prepared.dataset.classes
    )
    console.say(
        f"fold {fold}: class by {found.classifier.kind} on {found.candidates[0].get('subset', 'features')}"
    )
    facts |= {"kind": found.classifier.kind, "candidates": list(found.candidates)}
    return FoldAnswers(folder / "classifier.safetensors", single, shares, fitted, facts)


def shares_in_lesion(
    prepared: Prepared, recipe: Recipe, *, usable: Sequence[str]
) -> list[str]:
    """Names of the features that say how much of the lesion each other target fills, as
    far as they are `usable`.
    """
    labels = prepared.plan.labels
    others = other_targets(labels, lesion_indices(labels, recipe.classification.lesion))
    return [
        name
        for name in (f"volume of {other} / lesion" for other in others)
        if name in usable
    ]


def _varying(names: Sequence[str], features: Array) -> list[str]:
    known = np.where(np.isfinite(features), features, np.nan)
    return [
        name
        for name, column in zip(names, known.T, strict=True)
        if np.unique(column[~np.isnan(column)]).size > 1
    ]


def subsets_of(
    recipe: Recipe, hand_made: Sequence[str], deep: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Sets of features to choose from, simplest first: hand-made, each encoder stage,
    both for the shallow ones.

    Where the class's gradient reaches the encoder, its maps of training cases know
    their classes by heart: a classifier fitted on those would trust them too much, so
    only hand-made features are left.
    """
    subsets = {HAND_MADE: tuple(hand_made)}
    options = recipe.classification
    if options.mode != "frozen" and options.encoder_gradient > 0:
        return subsets
    for number, (stage, names) in enumerate(deep.items()):
        subsets[stage] = tuple(names)
        if number < SHALLOW:
            subsets[f"{HAND_MADE} + {stage}"] = (*hand_made, *names)
    return subsets


def read_cases(
    prepared: Prepared,
    predictor: Predictor,
    cases: Sequence[Case],
    what: str,
    console: Console,
) -> list[Reading]:
    """What a network reads from prepared cases, where it predicts the lesion."""
    member, readings = predictor.members[0], []
    for case in console.track(cases, len(cases), what):
        image = torch.from_numpy(prepared.store.read(case.name)[0])
        readings.append(
            member.readers[0].read(
                image, predicted_indices(member.windows, predictor.labels, image)
            )
        )
    return readings


class HeldOutAnswers:
    """Collects the answers to held-out cases, and what else could have been answered
    from the same masks.
    """

    def __init__(self, prepared: Prepared, answers: Mapping[str, FoldAnswers]) -> None:
        self.prepared, self.answers = prepared, answers
        self.cases: list[Case] = []
        self.folds: dict[str, str] = {}
        self.flags: dict[str, tuple[str, ...]] = {}
        self.logits: list[Array] = []
        self._model: list[Array] = []
        self._single: list[Array] = []
        self._shares: dict[str, list[Array]] = {}

    def add(self, fold: str, case: Case, found: Prediction) -> None:
        """Note a case of `fold`, predicted by that fold's network and classifier."""
        if found.classification is None:
            return
        self.cases.append(case)
        self.folds[case.name], self.flags[case.name] = fold, found.classification.flags
        logits = found.readings[0].logits
        assert logits is not None, "validation reads everything"
        self.logits.append(logits)
        self._model.append(np.array(list(found.classification.probabilities.values())))
        own, features = self.answers[fold], found.readings[0].features
        self._single.append(own.single.probabilities(features)[0])
        for name, classifier in own.shares.items():
            self._shares.setdefault(name, []).append(
                classifier.probabilities(features)[0]
            )

    def section(self, *, seed: int) -> dict[str, Any] | None:
        """The section `classification` of metrics.json; None where no held-out case has
        a class.
        """
        truth = truth_of(self.prepared, self.cases)
        if not (truth >= 0).any():
            return None
        single = {answers.single.names[0]: None for answers in self.answers.values()}
        rows = {
            f"best single hand-made feature ({', '.join(single)})": self._predictions(
                self._single
            )
        }
        for name, answered in self._shares.items():
            if len(answered) == len(self.cases):  # measured in every fold
                rows[f"{name} alone"] = self._predictions(answered)
        if any(answers.file is not None for answers in self.answers.values()):
            rows["head of the network"] = self._predictions(
                list(softmax(np.stack(self.logits), axis=1))
            )
        fitted = [(fold, answers.fitted) for fold, answers in self.answers.items()]
        learnt = ClassPredictions(
            tuple(
                f"fold {fold}: {name}" for fold, part in fitted for name in part.names
            ),
            np.concatenate([part.truth for _, part in fitted]),
            np.concatenate([part.probabilities for _, part in fitted]),
            self.prepared.dataset.classes,
        )
        return classification_section(
            self._predictions(self._model),
            seed=seed,
            rows=rows,
            training=learnt.truth,
            resubstitution=learnt,
            classifier={fold: answers.facts for fold, answers in self.answers.items()},
            folds=self.folds,
            flags=self.flags,
        )

    def _predictions(self, probabilities: Sequence[Array]) -> ClassPredictions:
        names = tuple(case.name for case in self.cases)
        truth = truth_of(self.prepared, self.cases)
        return ClassPredictions(
            names, truth, np.stack(probabilities), self.prepared.dataset.classes
        )

    def head_temperature(self) -> float:
        """What the heads' logits are divided by, so that their probabilities fit the
        held-out cases.
        """
        truth = truth_of(self.prepared, self.cases)
        known = truth >= 0
        logits = torch.from_numpy(np.stack(self.logits))[torch.from_numpy(known)]
        return fit_temperature(logits, torch.from_numpy(truth[known]))


def truth_of(prepared: Prepared, cases: Sequence[Case]) -> Array:
    """Index of each case's class `(n,)`, -1 where it is not known."""
    classes = prepared.dataset.classes
    return np.array(
        [
            -1 if case.class_name is None else classes.index(case.class_name)
            for case in cases
        ]
    )


def _cases(prepared: Prepared, names: Sequence[str]) -> list[Case]:
    known = {case.name: case for case in prepared.dataset.training_cases}
    return [known[name] for name in names]
