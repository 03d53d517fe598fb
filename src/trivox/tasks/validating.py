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
from trivox.inference.postprocess import Postprocessing, choose_postprocessing
from trivox.inference.predictor import Predictor
from trivox.tasks.console import Console
from trivox.tasks.preparing import Prepared
from trivox.volumes import Array, Spacing, Volume, read_labels, write_volume


def validate_folds(
    prepared: Prepared, recipe: Recipe, weights: Mapping[str, Path], out: Path, *, device: str, console: Console
) -> tuple[dict[str, Any], Postprocessing]:
    """Predict each fold's held-out cases with that fold's network; returns metrics and the chosen postprocessing.

    Writes `out/predictions/CASE.nii.gz` and `out/metrics.json`, both after postprocessing.
    """
    scheme = prepared.plan.labels
    cases = {case.name: case for case in prepared.dataset.training_cases}
    predicted: dict[str, Volume] = {}
    for fold, file in weights.items():
        names = prepared.splits[int(fold)].validation
        predictor = _predictor(prepared, recipe, fold, file, device)
        for name in console.track(names, len(names), f"validating fold {fold}"):
            predicted[name] = predictor.predict_case(cases[name]).labels
    references = {name: _reference(cases[name], scheme) for name in predicted}
    indices = {name: scheme.encode(volume.array[0]) for name, volume in predicted.items()}

    def score(candidates: Any) -> Array:
        return mean_dice(candidates, [references[name][0] for name in predicted], scheme)

    chosen, notes = choose_postprocessing(list(indices.values()), score, len(scheme.values) - 1)
    results = {}
    for name in console.track(list(predicted), len(predicted), "measuring"):
        indices[name] = chosen.apply(indices[name])
        reference, spacing = references[name]
        results[name] = evaluate_case(indices[name], reference, spacing=spacing, targets=scheme.targets)
        write_volume(out / "predictions" / f"{name}.nii.gz", predicted[name].with_array(scheme.decode(indices[name])))
    metrics = collect_metrics(results)
    metrics["postprocessing"] = {**chosen.model_dump(mode="json"), "trials": notes}
    write_json(out / "metrics.json", metrics)
    return metrics, chosen


def _predictor(prepared: Prepared, recipe: Recipe, fold: str, file: Path, device: str) -> Predictor:
    """A predictor of one fold's weights alone, without postprocessing."""
    axes = recipe.augmentation.mirror_axes if recipe.mirrored_inference else ()
    with TemporaryDirectory(prefix="trivox-") as folder:
        write_bundle(
            Path(folder), plan=prepared.plan, weights={fold: file}, overlap=recipe.overlap, mirror_axes=axes,
            postprocessing=Postprocessing(), training={},
        )  # fmt: skip
        return Predictor.load(Path(folder), device=device, precision=recipe.precision)


def _reference(case: Case, scheme: LabelScheme) -> tuple[Array, Spacing]:
    assert case.label is not None
    volume = read_labels(case.label)
    return scheme.encode(volume.array[0], where=case.name), volume.spacing


def mean_dice(predictions: Any, references: Any, scheme: LabelScheme) -> Array:
    """Mean Dice over cases of each label index 1..n, NaN where it never occurs; for choosing, not for reporting."""
    count = len(scheme.values)
    dice = np.full((len(references), count - 1), np.nan)
    for row, prediction, reference in zip(dice, predictions, references, strict=True):
        valid = reference >= 0
        table = np.bincount(prediction[valid].astype(np.int64) * count + reference[valid], minlength=count * count)
        joint = table.reshape(count, count)
        total = joint.sum(0) + joint.sum(1)
        with np.errstate(invalid="ignore"):
            row[:] = (2 * joint.diagonal() / total)[1:]
    seen = ~np.isnan(dice)
    return np.asarray(np.where(seen.any(0), np.nansum(dice, 0) / np.maximum(seen.sum(0), 1), np.nan))
