"""Validation of the finished networks: held-out cases predicted from their source
files, as a user would predict them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.folders.labels import collect_metrics, with_whole
from trivox.files import write_json
from trivox.inference.descriptions import LabelDescription
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.rules.rule_trials import Evidence, choose_rules, evidence_of
from trivox.learning.runtime import make_runtime
from trivox.tasks.console import Console
from trivox.tasks.labels.calibration import HeldOut, Trust, calibrate, held_out
from trivox.tasks.labels.classes import FoldAnswers, HeldOutAnswers, class_answers
from trivox.tasks.stages import Prepared
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Volume

WHOLE = "all labels together"
"""Target of multitask models beside each label: the organ with its lesion."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Content of metrics.json, and what was learnt on the held-out cases for the
    bundle.
    """

    metrics: dict[str, Any]
    postprocessing: Postprocessing
    trust: Trust
    head_temperature: float = 1.0


def validate_folds(
    prepared: Prepared,
    recipe: Recipe,
    weights: Mapping[str, Path],
    out: Path,
    *,
    answers: Mapping[str, FoldAnswers] | None = None,
    device: str,
    console: Console,
) -> Validation:
    """Predict each fold's held-out cases with that fold's network, measure them and
    learn what the bundle needs.

    answers: how each fold answers with a class; without, none is asked for. Cases
    without a label map are not segmented into the scores, those without a class not
    into the classifier's. Writes `out/predictions/CASE.nii.gz` and `out/metrics.json`,
    both after postprocessing. One case at a time is in memory.
    """
    scheme = prepared.plan.labels
    cases = {case.name: case for case in prepared.dataset.training_cases}
    evidence: dict[str, Evidence] = {}
    trusted: dict[str, HeldOut] = {}
    classes = HeldOutAnswers(prepared, answers or {})
    count = sum(len(prepared.splits[int(fold)].validation) for fold in weights)
    for fold, file in weights.items():
        names = prepared.splits[int(fold)].validation
        predictor = fold_predictor(
            prepared, recipe, fold, file, device, answers=(answers or {}).get(fold)
        )
        for name in console.track(names, len(names), f"validating fold {fold}"):
            reference = (
                None
                if cases[name].label is None
                else _indices(cases[name], scheme).array[0]
            )
            found = predictor.predict_case(cases[name], reference=reference)
            write_volume(_file(out, name), found.labels)
            classes.add(fold, cases[name], found)
            if reference is None:
                continue
            evidence[name] = evidence_of(
                scheme.encode(found.labels.array[0]),
                reference,
                scheme,
                voxel_mm3=found.labels.voxel_ml * 1000,
            )
            assert found.sample is not None
            trusted[name] = held_out(
                fold, found.sample, evidence[name].dice, reference, cases=count
            )
    whole = (
        WHOLE
        if prepared.plan.task == "multitask"
        and scheme.exclusive
        and len(scheme.labels) > 1
        else None
    )
    targets = scheme.targets if whole is None else with_whole(scheme, whole)
    choice = choose_rules(list(evidence.values()), scheme, seed=recipe.seed)
    results = {}
    for name in console.track(list(evidence), len(evidence), "measuring"):
        predicted = read_labels(_file(out, name))
        indices = scheme.encode(predicted.array[0])
        cleaned = choice.rules.apply(
            indices, scheme, voxel_mm3=predicted.voxel_ml * 1000
        )
        if cleaned is not indices:
            write_volume(_file(out, name), predicted.with_array(scheme.decode(cleaned)))
        reference = _indices(cases[name], scheme)
        results[name] = evaluate_case(
            cleaned, reference.array[0], spacing=reference.spacing, targets=targets
        )
    metrics = collect_metrics(results, whole=whole)
    metrics["postprocessing"] = choice.section
    trust = calibrate(trusted, scheme, seed=recipe.seed)
    metrics["calibration"] = trust.section
    section = classes.section(seed=recipe.seed) if classes.cases else None
    if section is not None:
        metrics["classification"] = section
    write_json(out / "metrics.json", metrics)
    return Validation(
        metrics,
        choice.rules,
        trust,
        classes.head_temperature() if section is not None else 1.0,
    )


def _file(out: Path, name: str) -> Path:
    return out / "predictions" / f"{name}.nii.gz"


def fold_predictor(
    prepared: Prepared,
    recipe: Recipe,
    fold: str,
    file: Path,
    device: str,
    *,
    answers: FoldAnswers | None = None,
) -> Predictor:
    """A predictor of one fold's weights alone, without postprocessing; for classes with
    that fold's classifier.
    """
    axes = recipe.augmentation.mirror_axes if recipe.mirrored_inference else ()
    classes = (
        class_answers(prepared, recipe) if prepared.plan.task == "multitask" else None
    )
    description = LabelDescription(
        task=prepared.plan.task,
        plan=prepared.plan,
        overlap=recipe.overlap,
        mirror_axes=axes,
        classification=classes,
    )
    classifier = None if answers is None else answers.file
    return Predictor.of(
        description,
        [file],
        make_runtime(device, recipe.precision),
        classifiers=[] if classifier is None else [classifier],
        read_everything=True,
    )


def _indices(case: Case, scheme: LabelScheme) -> Volume:
    """The reference label map as indices."""
    assert case.label is not None
    volume = read_labels(case.label)
    return volume.with_array(scheme.encode(volume.array, where=case.name))
