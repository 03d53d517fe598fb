"""After training on label maps: classifiers, validation on the source images with
postprocessing chosen there, and the bundle.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from trivox.config.recipe import Recipe
from trivox.errors import DataError
from trivox.evaluation.metrics.content import MetricsFile
from trivox.files import write_bytes
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.inference.doubt.likeness import Look, learn_likeness, look_at
from trivox.inference.doubt.shift import learn_cases
from trivox.inference.predictor import Predictor
from trivox.learning.checkpoints import trained_weights
from trivox.planning.plan import Plan
from trivox.results.codes import FILE as CODES_FILE
from trivox.results.codes import read_codes
from trivox.tasks.brevity import too_short
from trivox.tasks.console import Console
from trivox.tasks.cost.summary import training_summary
from trivox.tasks.labels.classes import FoldAnswers
from trivox.tasks.labels.prepared import PreparedImages
from trivox.tasks.labels.teachers import known_cases
from trivox.tasks.labels.validation import TrainedFolds, fold_predictor, validate_folds
from trivox.tasks.task import RunRequest


class Classifying:
    """What a task of label maps says about the class of a case; as it stands: nothing."""

    name: ClassVar[str]

    def whole(self, plan: Plan) -> str | None:
        """Name under which all labels together are measured as well."""
        return None

    def class_description(
        self, prepared: PreparedImages, recipe: Recipe
    ) -> ClassDescription | None:
        """What the bundle says about the class of a case; None: it has none."""
        return None

    def fit_answers(
        self,
        prepared: PreparedImages,
        recipe: Recipe,
        predictor: Predictor,
        folder: Path,
        *,
        fold: str,
        console: Console,
    ) -> FoldAnswers:
        """How a fold, whose network alone `predictor` holds, answers with a class.

        Asked of tasks that have a `class_description`.
        """
        raise NotImplementedError


def finish_labels(
    task: Classifying,
    request: RunRequest,
    recipe: Recipe,
    prepared: PreparedImages,
    folders: Mapping[int, Path],
    console: Console,
) -> MetricsFile | None:
    """Write `validation/` and `bundle/`; returns the content of metrics.json, on the
    first rank.
    """
    weights = trained_weights(recipe, folders)
    classes = task.class_description(prepared, recipe)
    folds = TrainedFolds(prepared, recipe, weights, classes, device=request.device)
    if classes is not None:
        for fold, folder in folders.items():
            folds.answers[str(fold)] = task.fit_answers(
                prepared,
                recipe,
                fold_predictor(folds, str(fold)),
                folder,
                fold=str(fold),
                console=console,
            )
    warnings = [
        *too_short(recipe, folders),
        *known_cases(prepared, recipe, folders),
    ]
    validation = validate_folds(
        folds,
        request.out / "validation",
        task=task.name,
        whole=task.whole(prepared.plan),
        warnings=warnings,
        console=console,
    )
    if validation is None:
        return None
    if classes is not None:
        temperature = validation.head_temperature
        classes = classes.model_copy(update={"temperature": temperature})
    summary = training_summary(
        prepared, recipe, folders, validation.metrics, request.out
    )
    looks = _looks(prepared)
    description = LabelDescription(
        task=task.name,
        plan=prepared.plan,
        overlap=recipe.overlap,
        mirror_axes=recipe.inference_axes,
        may_mirror=recipe.mirrored_axes,
        postprocessing=validation.postprocessing,
        temperature=validation.trust.temperature,
        abstention=validation.trust.abstention,
        flag=validation.trust.flag,
        likeness=learn_likeness(
            list(looks.values()),
            channels=prepared.plan.channels,
            axes=prepared.plan.axis_order,
        ),
        volumes=validation.volumes.intervals,
        volume_cases=learn_cases(looks, validation.volumes.ratios),
        missed=validation.missed,
        missed_lesions=validation.missed_lesions,
        classification=classes,
        training=summary,
    )
    write_bundle(
        request.out / "bundle", description, weights, classifiers=folds.classifiers
    )
    take_codes(prepared.dataset.root, request.out / "bundle", console)
    return validation.metrics


def take_codes(dataset: Path, bundle: Path, console: Console) -> None:
    """Let the bundle know the codes of labels that a dataset gives, if it does."""
    file = dataset / CODES_FILE
    if not file.is_file():
        return
    try:
        read_codes([file])
    except DataError as error:
        console.say(f"warning: the bundle has no codes of labels: {error}")
    else:
        write_bytes(bundle / CODES_FILE, file.read_bytes())


def _looks(prepared: PreparedImages) -> dict[str, Look]:
    """What all training images, held-out ones too, look like, by case."""
    plan = prepared.plan
    looks = {}
    for case in prepared.dataset.training_cases:
        image, _ = prepared.store.read(case.name)
        facts = prepared.store.facts(case.name)
        z, y, x = facts.get("source_spacing", plan.spacing)
        spacing = (z, y, x)
        first, second, third = (spacing[axis] for axis in plan.axis_order)
        looks[case.name] = look_at(
            torch.from_numpy(image),
            channels=len(plan.channels),
            source_spacing=(first, second, third),
            spacing=plan.spacing,
        )
    return looks
