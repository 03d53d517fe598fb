"""After training: what answers with the class of a case, fitted on each fold's training
cases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from scipy.special import softmax

from trivox.config.recipe import Recipe
from trivox.datasets.clinical.columns import PREFIX
from trivox.datasets.dataset import Case
from trivox.datasets.lesions import lesion_indices, other_targets
from trivox.evaluation.metrics.classification import ClassPredictions
from trivox.files import atomic_path
from trivox.inference.classes.reader import Reading, predicted_indices
from trivox.inference.predictor import Predictor
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.case_classifier.fitting import (
    FittedClassifier,
    best_single_feature,
    fit_classifier,
)
from trivox.learning.ranks.sharing import from_first, shared
from trivox.tasks.console import Console, working
from trivox.tasks.labels.prepared import PreparedImages
from trivox.volumes.volume import Array

HAND_MADE = "hand-made"
SHALLOW = 2
"""Encoder stages that are tried together with hand-made features: texture lives there;
every candidate adds luck.
"""
CLINICAL = "clinical columns"
WITHOUT_CLINICAL = f"without {CLINICAL}"
ANY_KIND = ("lda", "logreg", "mlp")
"""Classifiers that answer together where the recipe leaves the choice open."""


@dataclass(frozen=True, eq=False)
class FoldAnswers:
    """How one fold answers with the class of a case, and what simpler ways answer.

    file: its classifier, None where its head answers; single: by the best hand-made
    feature alone; simpler: by less, under what that is: the share of another target in
    the lesion alone (of enhancing tumour in the whole tumour, for example), the image
    without clinical columns, and these alone; fitted: the answers to the training cases
    themselves; facts: for metrics.json.
    """

    file: Path | None
    single: CaseClassifier
    simpler: Mapping[str, CaseClassifier]
    fitted: ClassPredictions
    facts: dict[str, object]


class Fitting(TypedDict):
    """What every classifier is fitted with."""

    class_names: tuple[str, ...]
    groups: list[str]
    seed: int


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """What a fold's network reads in its training cases.

    features: `(case, feature)`, by `names`; truth: index of the class `(case,)`; deep:
    names of the features of each encoder stage; clinical: those of clinical columns.
    """

    cases: Sequence[Case]
    readings: Sequence[Reading]
    names: list[str]
    features: Array
    truth: Array
    classes: tuple[str, ...]
    deep: Mapping[str, Sequence[str]]
    clinical: Sequence[str]

    @property
    def hand_made(self) -> list[str]:
        """Features of the image that come from no encoder stage."""
        others: set[str] = set(self.clinical).union(*self.deep.values())
        return [name for name in self.names if name not in others]

    @property
    def varying(self) -> list[str]:
        """Features that differ between cases."""
        known = np.where(np.isfinite(self.features), self.features, np.nan)
        varying = []
        for name, column in zip(self.names, known.T, strict=True):
            if np.unique(column[~np.isnan(column)]).size > 1:
                varying.append(name)
        return varying

    def fitting(self, recipe: Recipe) -> Fitting:
        """What every classifier is fitted with."""
        return {
            "class_names": self.classes,
            "groups": [case.patient for case in self.cases],
            "seed": recipe.seed,
        }

    def single(self, names: Sequence[str], recipe: Recipe) -> CaseClassifier:
        """The best of some features, alone."""
        columns = [self.names.index(name) for name in names]
        chosen = self.features[:, columns]
        return best_single_feature(
            chosen, self.truth, names=names, **self.fitting(recipe)
        )

    def fit(
        self, subsets: Mapping[str, Sequence[str]], recipe: Recipe
    ) -> FittedClassifier:
        """A classifier on the best of some sets of features."""
        kind = recipe.classification.classifier
        return fit_classifier(
            self.features,
            self.truth,
            names=self.names,
            subsets=subsets,
            kinds=ANY_KIND if kind == "auto" else (kind,),
            **self.fitting(recipe),
        )

    def predictions(self, probabilities: Array) -> ClassPredictions:
        """Answers to the training cases themselves."""
        names = tuple(case.name for case in self.cases)
        return ClassPredictions(names, self.truth, probabilities, self.classes)

    def save(self, file: Path) -> None:
        """Write features and classes as `.npz`."""
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            np.savez_compressed(
                opened,
                allow_pickle=False,
                cases=np.array([case.name for case in self.cases]),
                names=np.array(self.names),
                features=self.features.astype(np.float32),
                classes=self.truth,
            )


def fit_fold(
    prepared: PreparedImages,
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
    `folder/classifier.safetensors`. Ranks share the cases.
    """
    cases = classed_cases(prepared, fold)
    what = f"reading classes of fold {fold}"
    read = partial(read_cases, prepared, predictor, what, console)
    readings = shared(cases, read, (Reading,))

    def fit() -> FoldAnswers:
        rows = training_rows(prepared, predictor, cases, readings)
        rows.save(folder / "case-features.npz")
        return _fitted(rows, prepared, recipe, folder, fold, console)

    return from_first(fit, (FoldAnswers, CaseClassifier, ClassPredictions))


def _fitted(
    rows: TrainingRows,
    prepared: PreparedImages,
    recipe: Recipe,
    folder: Path,
    fold: str,
    console: Console,
) -> FoldAnswers:
    """Fit what answers on what was read."""
    single = rows.single(rows.hand_made, recipe)
    usable = shares_in_lesion(prepared, recipe, usable=rows.varying)
    simpler = {f"{name} alone": rows.single([name], recipe) for name in usable}
    facts: dict[str, object] = {
        "training_cases": len(rows.cases),
        "single_feature": single.names[0],
    }
    kind = recipe.classification.classifier
    if kind == "head":
        logits = [row.logits for row in rows.readings if row.logits is not None]
        fitted = rows.predictions(softmax(np.stack(logits), axis=1))
        return FoldAnswers(None, single, simpler, fitted, {**facts, "kind": "head"})
    subsets = subsets_of(recipe, rows.hand_made, rows.deep)
    with working(console, f"fitting classifiers of fold {fold}"):
        if rows.clinical:
            facts["clinical"] = list(recipe.classification.clinical)
        if not set(rows.clinical).isdisjoint(rows.varying):
            alone = {CLINICAL: tuple(rows.clinical)}
            simpler[WITHOUT_CLINICAL] = rows.fit(subsets, recipe).classifier
            simpler[f"{CLINICAL} alone"] = rows.fit(alone, recipe).classifier
            subsets = with_clinical_columns(subsets, rows.clinical)
        elif rows.clinical:
            console.say(
                f"warning: fold {fold}: {CLINICAL} say the same of all its training "
                "cases, and tell nothing"
            )
        result = rows.fit(subsets, recipe)
    file = folder / "classifier.safetensors"
    result.classifier.save(file)
    subset = result.candidates[0].get("subset", "features")
    console.say(f"fold {fold}: class by {result.classifier.kind} on {subset}")
    facts["kind"] = result.classifier.kind
    facts["candidates"] = list(result.candidates)
    fitted = rows.predictions(result.resubstitution)
    return FoldAnswers(file, single, simpler, fitted, facts)


def classed_cases(prepared: PreparedImages, fold: str) -> list[Case]:
    """The training cases of a fold whose class is known."""
    training = set(prepared.splits[int(fold)].train)
    return [
        case
        for case in prepared.dataset.training_cases
        if case.name in training and case.class_name is not None
    ]


def training_rows(
    prepared: PreparedImages,
    predictor: Predictor,
    cases: Sequence[Case],
    readings: Sequence[Reading],
) -> TrainingRows:
    """What was read in training cases, as a table."""
    names = list(readings[0].features)
    features = [_values(reading, names) for reading in readings]
    return TrainingRows(
        cases,
        readings,
        names,
        np.array(features),
        truth_of(prepared, cases),
        prepared.dataset.classes,
        predictor.members[0].readers[0].subsets(),
        [name for name in names if name.startswith(f"{PREFIX} ")],
    )


def _values(reading: Reading, names: Sequence[str]) -> list[float]:
    return [reading.features[name] for name in names]


def shares_in_lesion(
    prepared: PreparedImages, recipe: Recipe, *, usable: Sequence[str]
) -> list[str]:
    """Names of the features that say how much of the lesion each other target fills, as
    far as they are `usable`.
    """
    labels = prepared.plan.labels
    lesion = lesion_indices(labels, recipe.classification.lesion)
    others = other_targets(labels, lesion)
    names = [f"volume of {other} / lesion" for other in others]
    return [name for name in names if name in usable]


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


def with_clinical_columns(
    subsets: Mapping[str, Sequence[str]], clinical: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Sets of features, each with those of clinical columns."""
    return {
        f"{CLINICAL} + {subset}": (*clinical, *names)
        for subset, names in subsets.items()
    }


def read_cases(
    prepared: PreparedImages,
    predictor: Predictor,
    what: str,
    console: Console,
    cases: Sequence[Case],
) -> Iterator[Reading]:
    """What a network reads from prepared cases, where it predicts the lesion."""
    member = predictor.members[0]
    for case in console.track(cases, len(cases), what):
        image = torch.from_numpy(prepared.store.read(case.name)[0])
        indices = predicted_indices(member.windows, predictor.labels, image)
        yield member.readers[0].read(image, indices, cells=case.clinical)


def truth_of(prepared: PreparedImages, cases: Sequence[Case]) -> Array:
    """Index of each case's class `(n,)`, -1 where it is not known."""
    index = {name: number for number, name in enumerate(prepared.dataset.classes)}
    return np.array([index.get(case.class_name or "", -1) for case in cases])
