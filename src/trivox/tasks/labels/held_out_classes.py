"""The answers to held-out cases, beside what else could have been answered from the same
masks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax

from trivox.datasets.dataset import Case
from trivox.evaluation.folders.class_section import classification_section
from trivox.evaluation.metrics.class_content import ClassificationSection
from trivox.evaluation.metrics.classification import ClassPredictions
from trivox.inference.classes.reader import Reading
from trivox.inference.classify import Classification
from trivox.inference.doubt.calibration import fit_temperature
from trivox.tasks.labels.classes import (
    CLINICAL,
    WITHOUT_CLINICAL,
    FoldAnswers,
    truth_of,
)
from trivox.tasks.labels.prepared import PreparedImages
from trivox.volumes.volume import Array


@dataclass(frozen=True, eq=False)
class ClassLesson:
    """How a held-out case was answered, and what the network read in it."""

    answer: Classification
    reading: Reading


class HeldOutAnswers:
    """Collects the answers to held-out cases, and those of simpler ways."""

    def __init__(
        self, prepared: PreparedImages, answers: Mapping[str, FoldAnswers]
    ) -> None:
        self.prepared = prepared
        self.answers = answers
        cases = prepared.dataset.training_cases
        self._known = {case.name: case for case in cases}
        self.cases: list[Case] = []
        self.folds: dict[str, str] = {}
        self.flags: dict[str, tuple[str, ...]] = {}
        self.logits: list[Array] = []
        self._model: list[Array] = []
        self._single: list[Array] = []
        self._simpler: dict[str, list[Array]] = {}

    def add(self, fold: str, name: str, lesson: ClassLesson) -> None:
        """Note a case of `fold`, predicted by that fold's network and classifier."""
        answer = lesson.answer
        reading = lesson.reading
        assert reading.logits is not None, "validation reads everything"
        self.cases.append(self._known[name])
        self.folds[name] = fold
        self.flags[name] = answer.flags
        self.logits.append(reading.logits)
        self._model.append(np.array(list(answer.probabilities.values())))
        simpler = self.answers[fold]
        self._single.append(simpler.single.probabilities(reading.features)[0])
        for name, classifier in simpler.simpler.items():
            chance = classifier.probabilities(reading.features)[0]
            self._simpler.setdefault(name, []).append(chance)

    def section(self, *, seed: int) -> ClassificationSection | None:
        """The section `classification` of metrics.json; None where no held-out case has
        a class.
        """
        truth = truth_of(self.prepared, self.cases)
        if not (truth >= 0).any():
            return None
        learnt = self._resubstitution()
        section = classification_section(
            self._predictions(self._model),
            seed=seed,
            rows=self._rows(),
            training=learnt.truth,
            resubstitution=learnt,
            classifier={fold: answers.facts for fold, answers in self.answers.items()},
            folds=self.folds,
            flags=self.flags,
        )
        section["warnings"] += clinical_warnings(section)
        return section

    def _rows(self) -> dict[str, ClassPredictions]:
        """What simpler ways answer, by their names."""
        names = dict.fromkeys(fold.single.names[0] for fold in self.answers.values())
        title = f"best single hand-made feature ({', '.join(names)})"
        rows = {title: self._predictions(self._single)}
        for name, chances in self._simpler.items():
            if len(chances) == len(self.cases):  # measured in every fold
                rows[name] = self._predictions(chances)
        if any(fold.file is not None for fold in self.answers.values()):
            heads = softmax(np.stack(self.logits), axis=1)
            rows["head of the network"] = self._predictions(list(heads))
        return rows

    def _resubstitution(self) -> ClassPredictions:
        """The answers to the training cases themselves, of all folds."""
        names: list[str] = []
        for fold, answers in self.answers.items():
            names += [f"fold {fold}: {name}" for name in answers.fitted.names]
        parts = [answers.fitted for answers in self.answers.values()]
        return ClassPredictions(
            tuple(names),
            np.concatenate([part.truth for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            self.prepared.dataset.classes,
        )

    def _predictions(self, probabilities: Sequence[Array]) -> ClassPredictions:
        names = tuple(case.name for case in self.cases)
        truth = truth_of(self.prepared, self.cases)
        classes = self.prepared.dataset.classes
        return ClassPredictions(names, truth, np.stack(probabilities), classes)

    def head_temperature(self) -> float:
        """What the heads' logits are divided by, so that their probabilities fit the
        held-out cases.
        """
        truth = truth_of(self.prepared, self.cases)
        known = truth >= 0
        logits = torch.from_numpy(np.stack(self.logits))[torch.from_numpy(known)]
        return fit_temperature(logits, torch.from_numpy(truth[known]))


def clinical_warnings(section: ClassificationSection) -> list[str]:
    """That clinical columns do not help, where they are read and that is not measured."""
    rows = {row["name"]: row for row in section["rows"]}
    without = rows.get(WITHOUT_CLINICAL)
    if without is None:
        return []
    gained = without["difference"]["auc"]
    if gained["ci95"] is not None and gained["ci95"][0] > 0:
        return []
    scores = [section["summary"]["auc"]["value"], without["summary"]["auc"]["value"]]
    with_them, without_them = ("unknown" if s is None else f"{s:.3f}" for s in scores)
    return [
        f"{CLINICAL} do not measurably help: AUC {with_them} with and {without_them} "
        "without them on held-out cases; a model without them is simpler to use"
    ]
