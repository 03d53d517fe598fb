"""Segmentation and a class for the case, from one encoder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trivox.config.recipe import Recipe
from trivox.datasets.class_tables import with_classes
from trivox.datasets.clinical.columns import columns_of
from trivox.datasets.dataset import Dataset
from trivox.datasets.lesions import lesion_indices
from trivox.errors import DataError
from trivox.evaluation.metrics.content import MetricsFile
from trivox.inference.descriptions import ClassDescription
from trivox.inference.predictor import Predictor
from trivox.learning.objective import Objective
from trivox.networks.class_head import LesionMasks, MultitaskNetwork, add_class_head
from trivox.planning.plan import Plan
from trivox.preparation.classes import Classed
from trivox.tasks.console import Console
from trivox.tasks.labels.class_batches import case_classes, lesion_sampling
from trivox.tasks.labels.class_objective import MultitaskObjective
from trivox.tasks.labels.classes import FoldAnswers, fit_fold
from trivox.tasks.labels.prepared import PreparedImages
from trivox.tasks.labels.segmentation import LabelTask
from trivox.tasks.labels.teaching import with_teacher

WHOLE = "all labels together"
"""Target beside each label: the organ with its lesion."""


class MultitaskTask(LabelTask):
    """What training needs to know about a class beside the segmentation."""

    name = "multitask"
    learns_classes = True

    def wrote(self, metrics: MetricsFile) -> bool:
        """Metrics with classes."""
        return "classification" in metrics

    def dataset(self, dataset: Dataset, classes: Path | None = None) -> Dataset:
        """Cases with a label map, a class, or both; raises `DataError` where there are
        no classes to tell apart.
        """
        if classes is not None:
            dataset = with_classes(dataset, classes)
        if len(dataset.classes) < 2:
            raise DataError(
                f"{dataset.root}: {len(dataset.classes)} classes found, a multitask "
                "model needs two; name them with --classes CSV (columns case,class), or "
                "in the dataset"
            )
        return dataset.model_copy(update={"task": self.name})

    def network(
        self, prepared: PreparedImages, recipe: Recipe, names: Sequence[str]
    ) -> MultitaskNetwork:
        """The segmentation network with a class head."""
        plan = prepared.plan
        options = recipe.classification
        lesion = lesion_indices(plan.labels, options.lesion)
        frozen = options.mode == "frozen"
        return add_class_head(
            super().network(prepared, recipe, names),
            plan.topology,
            name=plan.network,
            channels=len(plan.inputs),
            classes=len(prepared.dataset.classes),
            masks=LesionMasks.of(plan.labels, lesion, plan.spacing),
            width=options.width,
            dropout=options.dropout,
            encoder_gradient=0.0 if frozen else options.encoder_gradient,
        )

    def objective(
        self, prepared: PreparedImages, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score for training on the cases `names`; nothing is counted on other
        cases.
        """
        voxels = prepared.store.mean_voxels(names, len(prepared.plan.labels.values))
        objective = MultitaskObjective.of(
            prepared.plan, recipe, dataset=prepared.dataset, names=names, voxels=voxels
        )
        return with_teacher(objective, prepared, recipe, names)

    def source(
        self,
        prepared: PreparedImages,
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> Classed:
        """Batches with classes, part of each centred on lesions."""
        source = self.patches(prepared, recipe, names, training=training)
        dataset = prepared.dataset
        sampling = lesion_sampling(dataset, names, prepared.plan.labels, recipe)
        classes = case_classes(dataset, prepared.store, names, sampling.indices)
        sampler = replace(source.sampler, lesions=sampling)
        return Classed(replace(source, sampler=sampler), classes)

    def whole(self, plan: Plan) -> str | None:
        """All labels together, where there are several."""
        several = plan.labels.exclusive and len(plan.labels.labels) > 1
        return WHOLE if several else None

    def class_description(
        self, prepared: PreparedImages, recipe: Recipe
    ) -> ClassDescription:
        """Classes, lesion and width of the head, before classifiers are added."""
        options = recipe.classification
        return ClassDescription(
            classes=prepared.dataset.classes,
            lesion=lesion_indices(prepared.plan.labels, options.lesion),
            width=options.width,
            clinical=columns_of(prepared.dataset.training_cases, options.clinical),
        )

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
        """Classifiers fitted on what the fold's network sees in its training cases."""
        return fit_fold(prepared, recipe, predictor, folder, fold=fold, console=console)
