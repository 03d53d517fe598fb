"""After training on label maps: bundle, validation on the source images, postprocessing
chosen there, report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.learning.checkpoints import final_weights
from trivox.tasks.console import Console
from trivox.tasks.labels.classes import FoldAnswers, class_answers, fit_fold
from trivox.tasks.labels.validation import fold_predictor, validate_folds
from trivox.tasks.report import report_run
from trivox.tasks.stages import Prepared
from trivox.tasks.task import RunRequest


def finish_labels(
    request: RunRequest,
    recipe: Recipe,
    prepared: Prepared,
    folders: Mapping[int, Path],
    console: Console,
) -> dict[str, Any]:
    """Bundle, validation on the source images, postprocessing chosen there, report."""
    weights = {
        str(fold): final_weights(folder / "checkpoints", recipe.final_weights)
        for fold, folder in folders.items()
    }
    summary = {
        "dataset": prepared.dataset.name,
        "folds": {str(fold): len(prepared.splits[fold].train) for fold in folders},
        "recipe": recipe.model_dump(mode="json"),
    }
    answers = _fit_answers(request, recipe, prepared, folders, weights, console)
    validation = validate_folds(
        prepared,
        recipe,
        weights,
        request.out / "validation",
        answers=answers,
        device=request.device,
        console=console,
    )
    classes = (
        class_answers(prepared, recipe, temperature=validation.head_temperature)
        if answers
        else None
    )
    description = LabelDescription(
        task=prepared.plan.task,
        plan=prepared.plan,
        overlap=recipe.overlap,
        mirror_axes=recipe.augmentation.mirror_axes
        if recipe.mirrored_inference
        else (),
        postprocessing=validation.postprocessing,
        temperature=validation.trust.temperature,
        abstention=validation.trust.abstention,
        classification=classes,
        training={**summary, "validation": validation.metrics["summary"]},
    )
    write_bundle(
        request.out / "bundle",
        description,
        weights,
        classifiers={
            fold: found.file
            for fold, found in answers.items()
            if found.file is not None
        },
    )
    report_run(request.out, console=console, log_folder=next(iter(folders.values())))
    return validation.metrics


def _fit_answers(
    request: RunRequest,
    recipe: Recipe,
    prepared: Prepared,
    folders: Mapping[int, Path],
    weights: Mapping[str, Path],
    console: Console,
) -> dict[str, FoldAnswers]:
    """How each fold answers with the class of a case; nothing where there are no
    classes to learn.
    """
    if request.task != "multitask":
        return {}
    found = {}
    for fold, folder in folders.items():
        predictor = fold_predictor(
            prepared, recipe, str(fold), weights[str(fold)], request.device
        )
        found[str(fold)] = fit_fold(
            prepared, recipe, predictor, folder, fold=str(fold), console=console
        )
    return found
