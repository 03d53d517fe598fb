"""Validation of the finished networks: held-out cases predicted from their source files, as a user would predict them."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trivox.config import Recipe
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.evaluation import collect_metrics, evaluate_case
from trivox.files import write_json
from trivox.inference.bundle import write_bundle
from trivox.inference.postprocess import Postprocessing, candidate_dice, choose_postprocessing
from trivox.inference.predictor import Predictor
from trivox.tasks.console import Console
from trivox.tasks.preparing import Prepared
from trivox.volumes import Array, Volume, read_labels, write_volume


def validate_folds(
    prepared: Prepared, recipe: Recipe, weights: Mapping[str, Path], out: Path, *, device: str, console: Console
) -> tuple[dict[str, Any], Postprocessing]:
    """Predict each fold's held-out cases with that fold's network; returns metrics and the chosen postprocessing.

    Writes `out/predictions/CASE.nii.gz` and `out/metrics.json`, both after postprocessing. One case at a time is in memory.
    """
    scheme = prepared.plan.labels
    cases = {case.name: case for case in prepared.dataset.training_cases}
    dice: dict[str, Array] = {}
    for fold, file in weights.items():
        names = prepared.splits[int(fold)].validation
        predictor = _predictor(prepared, recipe, fold, file, device)
        for name in console.track(names, len(names), f"validating fold {fold}"):
            labels = predictor.predict_case(cases[name]).labels
            write_volume(_file(out, name), labels)
            reference = _indices(cases[name], scheme)
            dice[name] = candidate_dice(scheme.encode(labels.array[0]), reference.array[0], len(scheme.values) - 1)
    chosen, notes = choose_postprocessing(np.stack(list(dice.values())))
    results = {}
    for name in console.track(list(dice), len(dice), "measuring"):
        predicted = read_labels(_file(out, name))
        indices = scheme.encode(predicted.array[0])
        cleaned = chosen.apply(indices)
        if cleaned is not indices:
            write_volume(_file(out, name), predicted.with_array(scheme.decode(cleaned)))
        reference = _indices(cases[name], scheme)
        results[name] = evaluate_case(cleaned, reference.array[0], spacing=reference.spacing, targets=scheme.targets)
    metrics = collect_metrics(results)
    metrics["postprocessing"] = {**chosen.model_dump(mode="json"), "trials": notes}
    write_json(out / "metrics.json", metrics)
    return metrics, chosen


def _file(out: Path, name: str) -> Path:
    return out / "predictions" / f"{name}.nii.gz"


def _predictor(prepared: Prepared, recipe: Recipe, fold: str, file: Path, device: str) -> Predictor:
    """A predictor of one fold's weights alone, without postprocessing."""
    axes = recipe.augmentation.mirror_axes if recipe.mirrored_inference else ()
    with TemporaryDirectory(prefix="trivox-") as folder:
        write_bundle(
            Path(folder), plan=prepared.plan, weights={fold: file}, overlap=recipe.overlap, mirror_axes=axes,
            postprocessing=Postprocessing(), training={},
        )  # fmt: skip
        return Predictor.load(Path(folder), device=device, precision=recipe.precision)


def _indices(case: Case, scheme: LabelScheme) -> Volume:
    """The reference label map as indices."""
    assert case.label is not None
    volume = read_labels(case.label)
    return volume.with_array(scheme.encode(volume.array, where=case.name))
