"""Validation of the finished networks: held-out cases predicted from their source
files, as a user would predict them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.folders.labels import collect_metrics, with_whole
from trivox.evaluation.folders.measured import measured_files
from trivox.evaluation.metrics.content import (
    MetricsFile,
    PostprocessingSection,
    TargetMetrics,
)
from trivox.files import write_json
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.rules.rule_trials import Evidence, choose_rules, evidence_of
from trivox.learning.runtime import make_runtime
from trivox.tasks.console import Console, working
from trivox.tasks.labels.calibration import HeldOut, Trust, calibrate, held_out
from trivox.tasks.labels.classes import FoldAnswers
from trivox.tasks.labels.held_out_classes import HeldOutAnswers
from trivox.tasks.labels.prepared import PreparedImages
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class TrainedFolds:
    """Networks that were trained on folds of a dataset.

    weights: file of each fold; classes: what is known about the class of a case, None:
    there is none; answers: how each fold answers with a class.
    """

    prepared: PreparedImages
    recipe: Recipe
    weights: Mapping[str, Path]
    classes: ClassDescription | None
    device: str
    answers: dict[str, FoldAnswers] = field(default_factory=dict)

    @property
    def scheme(self) -> LabelScheme:
        """What the labels mean."""
        return self.prepared.plan.labels

    @property
    def classifiers(self) -> dict[str, Path]:
        """File of each fold's classifier; none where its head answers."""
        files = {fold: answer.file for fold, answer in self.answers.items()}
        return {fold: file for fold, file in files.items() if file is not None}

    @property
    def cases(self) -> dict[str, Case]:
        """The training cases by name."""
        return {case.name: case for case in self.prepared.dataset.training_cases}

    def held_out(self, fold: str) -> Sequence[str]:
        """Names of the cases that a fold's network has not seen."""
        return self.prepared.splits[int(fold)].validation


@dataclass(frozen=True, eq=False)
class Validation:
    """Content of metrics.json, and what was learnt on the held-out cases for the
    bundle.
    """

    metrics: MetricsFile
    postprocessing: Postprocessing
    trust: Trust
    head_temperature: float = 1.0


@dataclass(eq=False)
class Evidences:
    """What the predictions of the held-out cases teach, by case.

    classes: answers, from which their scores follow; labels: from which postprocessing
    is chosen; samples: voxels, from which trust is learnt.
    """

    classes: HeldOutAnswers
    labels: dict[str, Evidence] = field(default_factory=dict)
    samples: dict[str, HeldOut] = field(default_factory=dict)


def validate_folds(
    folds: TrainedFolds, out: Path, *, task: str, whole: str | None, console: Console
) -> Validation:
    """Predict each fold's held-out cases with that fold's network, measure them and
    learn what the bundle needs.

    whole: name under which all labels together are measured as well. Cases without a
    label map do not count in the scores of labels, those without a class not in the
    classifier's. Writes `out/predictions/CASE.nii.gz` and `out/metrics.json`, both
    after postprocessing. One case at a time is in memory.
    """
    seed = folds.recipe.seed
    scheme = folds.scheme
    evidences = Evidences(HeldOutAnswers(folds.prepared, folds.answers))
    for fold in folds.weights:
        _predict_held_out(folds, fold, out, evidences, console)
    with working(console, "choosing postprocessing"):
        choice = choose_rules(list(evidences.labels.values()), scheme, seed=seed)
    names = list(evidences.labels)
    cases = _measure(folds, names, choice.rules, out, whole, console)
    metrics = collect_metrics(cases, task=task, whole=whole)
    with working(console, "calibrating"):
        trust = calibrate(evidences.samples, scheme, seed=seed)
    metrics["postprocessing"] = cast(PostprocessingSection, choice.section)
    metrics["calibration"] = trust.section
    metrics["sources"] = {
        name: measured_files(_file(out, name), folds.cases[name].label)
        for name in names
    }
    answers = evidences.classes
    section = answers.section(seed=seed) if answers.cases else None
    temperature = 1.0
    if section is not None:
        metrics["classification"] = section
        temperature = answers.head_temperature()
    write_json(out / "metrics.json", metrics)
    return Validation(metrics, choice.rules, trust, temperature)


def _predict_held_out(
    folds: TrainedFolds, fold: str, out: Path, evidences: Evidences, console: Console
) -> None:
    """Write the label maps of a fold's held-out cases, and note what they teach."""
    scheme = folds.scheme
    cases = folds.cases
    count = sum(len(folds.held_out(fold)) for fold in folds.weights)
    predictor = fold_predictor(folds, fold)
    names = folds.held_out(fold)
    for name in console.track(names, len(names), f"validating fold {fold}"):
        case = cases[name]
        reference = None if case.label is None else _indices(case, scheme).array[0]
        prediction = predictor.predict_case(case, reference=reference)
        write_volume(_file(out, name), prediction.labels)
        evidences.classes.add(fold, case, prediction)
        if reference is None:
            continue
        evidence = evidence_of(
            scheme.encode(prediction.labels.array[0]),
            reference,
            scheme,
            voxel_mm3=prediction.labels.voxel_ml * 1000,
        )
        assert prediction.sample is not None
        evidences.labels[name] = evidence
        evidences.samples[name] = held_out(
            fold, prediction.sample, evidence.dice, reference, cases=count
        )


def _measure(
    folds: TrainedFolds,
    names: Sequence[str],
    rules: Postprocessing,
    out: Path,
    whole: str | None,
    console: Console,
) -> dict[str, dict[str, TargetMetrics]]:
    """Clean the label maps by the rules that were chosen, and measure them, by case."""
    scheme = folds.scheme
    cases = folds.cases
    targets = scheme.targets if whole is None else with_whole(scheme, whole)
    results = {}
    for name in console.track(names, len(names), "measuring"):
        predicted = read_labels(_file(out, name))
        indices = scheme.encode(predicted.array[0])
        voxel_mm3 = predicted.voxel_ml * 1000
        cleaned = rules.apply(indices, scheme, voxel_mm3=voxel_mm3)
        if cleaned is not indices:
            write_volume(_file(out, name), predicted.with_array(scheme.decode(cleaned)))
        reference = _indices(cases[name], scheme)
        results[name] = evaluate_case(
            cleaned, reference.array[0], spacing=reference.steps, targets=targets
        )
    return results


def _file(out: Path, name: str) -> Path:
    return out / "predictions" / f"{name}.nii.gz"


def fold_predictor(folds: TrainedFolds, fold: str) -> Predictor:
    """A predictor of one fold's weights alone, without postprocessing; for classes with
    that fold's classifier, if it was fitted already.
    """
    recipe = folds.recipe
    description = LabelDescription(
        task=folds.prepared.plan.task,
        plan=folds.prepared.plan,
        overlap=recipe.overlap,
        mirror_axes=recipe.inference_axes,
        classification=folds.classes,
    )
    classifier = folds.classifiers.get(fold)
    return Predictor.of(
        description,
        [folds.weights[fold]],
        make_runtime(folds.device, recipe.precision),
        classifiers=[] if classifier is None else [classifier],
        read_everything=True,
    )


def _indices(case: Case, scheme: LabelScheme) -> Volume:
    """The reference label map as indices."""
    assert case.label is not None
    volume = read_labels(case.label)
    return volume.with_array(scheme.encode(volume.array, where=case.name))
