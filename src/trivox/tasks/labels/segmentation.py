"""Segmentation: exclusive labels or overlapping regions, from one or several registered
volumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from trivox.config.choices import MissedKind, require_choice
from trivox.config.recipe import Recipe
from trivox.datasets.class_tables import with_classes
from trivox.datasets.clinical.columns import ClinicalColumn
from trivox.datasets.clinical.tables import ClinicalTable, read_clinical
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_inputs
from trivox.errors import DataError, PlanError, UsageError
from trivox.evaluation.conventions.choice import choose_convention
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.evaluation.folders.raters import compare_raters
from trivox.evaluation.metrics.content import MetricsFile
from trivox.evaluation.report.pages import Part
from trivox.evaluation.report.parts.classes import class_part
from trivox.evaluation.report.parts.detections import detection_part
from trivox.evaluation.report.parts.labels import (
    label_headline,
    label_part,
    trust_part,
)
from trivox.evaluation.report.parts.raters import raters_part
from trivox.inference.bundle import read_bundle
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.inference.detection.pair import chosen_lesion
from trivox.inference.doubt.kinds import Extras, Sensitive
from trivox.inference.doubt.missed import sensitive
from trivox.inference.many.predictors import CasePredictor
from trivox.inference.predictor import Predictor
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime
from trivox.networks.counting import count_operations
from trivox.networks.registry import build_network, patch_family
from trivox.planning.plan import Plan, read_plan
from trivox.preparation.store import Store
from trivox.results.case import CaseResult, label_result
from trivox.results.options import ResultOptions
from trivox.tasks.console import Console
from trivox.tasks.images import ImageTask
from trivox.tasks.labels.finish import Classifying, finish_labels
from trivox.tasks.labels.objective import SegmentationObjective
from trivox.tasks.labels.pictures import picture_cases
from trivox.tasks.labels.prepared import PreparedImages
from trivox.tasks.labels.promises.cohort import weighed
from trivox.tasks.labels.teachers import plan_of_student, read_teachers
from trivox.tasks.labels.teaching import with_teacher
from trivox.tasks.options import EvaluateOptions, PredictOptions
from trivox.tasks.report import report_run
from trivox.tasks.task import ModelTask, Pictures, RunRequest

WITH_CLASSES = "multitask"
"""Name of the task that metrics with classes are of."""


class LabelTask(ImageTask[Plan], ModelTask[Plan, Store], Classifying):
    """A task whose models give label maps."""

    # -- what is decided --------------------------------------------------------------

    def require_possible(self, recipe: Recipe) -> None:
        """There is such a network, and teachers can teach."""
        patch_family(recipe.network)
        if recipe.distillation.teachers:
            read_teachers(recipe.distillation)

    def plan(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        runtime: Runtime,
        fingerprint: Path,
        console: Console,
    ) -> Plan:
        """Measure the training cases, then decide spacing, patch, network and batch; what
        a teacher goes by, where there is one.
        """
        if recipe.distillation.teachers:
            return plan_of_student(dataset, recipe, runtime)
        plan = self.decide(
            dataset,
            recipe,
            runtime=runtime,
            fingerprint=fingerprint,
            console=console,
        )
        if not isinstance(plan, Plan):
            raise PlanError(
                f"{dataset.root}: a plan needs labels; 'trivox check' shows what was "
                "found"
            )
        return plan

    def read_plan(self, file: Path) -> Plan:
        """Read a plan of labelled images."""
        return read_plan(file)

    # -- learning ---------------------------------------------------------------------

    def network(
        self, prepared: PreparedImages, recipe: Recipe, names: Sequence[str]
    ) -> nn.Module:
        """A network that gives logits of the plan's labels."""
        plan = prepared.plan
        return build_network(
            plan.network,
            plan.topology,
            channels=len(plan.inputs),
            outputs=plan.labels.output_channels,
            deep_supervision=recipe.deep_supervision,
            options=plan.network_options,
        )

    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: PreparedImages,
        folders: Mapping[int, Path],
        console: Console,
    ) -> Mapping[str, Any]:
        """Bundle, validation on the source images, postprocessing chosen there."""
        metrics = finish_labels(self, request, recipe, prepared, folders, console)
        return {} if metrics is None else metrics

    def report(self, run: Path, folders: Mapping[int, Path], console: Console) -> None:
        """The page, with the curves of the first fold."""
        first = next(iter(folders.values()))
        report_run(self, run, console=console, log_folder=first)

    # -- use --------------------------------------------------------------------------

    def predictor(
        self, models: Sequence[Path], options: PredictOptions
    ) -> CasePredictor[Any]:
        """One or several runs or bundles that vote on label maps and classes."""
        predictor = Predictor.load(
            models,
            device=options.device,
            precision=options.precision,
            mirror=options.tta,
            mc_samples=options.mc_samples,
            scales=options.scales,
            seed=options.seed,
            missing=options.missing_channels,
            engine=options.engine,
        )
        lesion: tuple[str, ...] = ()
        if options.detection is not None:
            lesion = chosen_lesion(options.detection, predictor.descriptions[0])
        extras = Extras(
            probabilities=options.probabilities,
            uncertainty=options.uncertainty,
            numbered_classes=options.subtype_results,
            fractions=options.fractions,
            detection=lesion,
            clinical=_clinical(options.clinical, predictor.descriptions),
            sensitive=_sensitive(options, predictor),
        )
        return replace(predictor, extras=extras)

    def knowing(
        self,
        predictors: Sequence[CasePredictor[Any]],
        cases: Sequence[Case],
        options: PredictOptions,
        console: Console,
    ) -> Sequence[CasePredictor[Any]]:
        """They weigh validation cases by the images of the new ones; what a table says
        of these is settled.
        """
        labelling = cast(Sequence[Predictor], predictors)
        clinical = labelling[0].extras.clinical
        if clinical is not None:
            clinical.require_clear(cases)
            for line in clinical.lines(cases):
                console.say(line)
        if not options.weighted_intervals:
            return labelling
        cohort = weighed(labelling[0], cases, console)
        return [
            replace(each, extras=replace(each.extras, cohort=cohort))
            for each in labelling
        ]

    def result(
        self, predictor: Any, case: Case, made: Any, options: ResultOptions
    ) -> CaseResult:
        """A label map, with what makes it doubtful."""
        return label_result(predictor, case, made, options)

    def classes(self, predictor: Any) -> tuple[str, ...]:
        """Of models that were trained with classes."""
        names: tuple[str, ...] = predictor.classes
        return names

    def inputs(
        self, source: Path, predictor: Any, console: Console
    ) -> tuple[Case, ...]:
        """An image, a folder of images, or the cases of a dataset."""
        return load_inputs(source, channels=predictor.channels, say=console.say)

    def evaluate(
        self, predictions: Path, references: Path, options: EvaluateOptions
    ) -> MetricsFile:
        """Label maps by a convention; classes, where predictions and references have
        them.
        """
        settings = dict(options.settings)
        if options.tolerance_mm is not None:
            settings["tolerance_mm"] = options.tolerance_mm
        convention = choose_convention(options.convention, settings)
        metrics = evaluate_folders(
            predictions,
            references,
            task=self.name,
            convention=convention,
            classes=options.classes,
            whole=options.whole,
        )
        if options.raters:
            metrics["raters"], warnings = compare_raters(
                predictions, [references, *options.raters], convention
            )
            metrics["warnings"] = [*metrics.get("warnings", []), *warnings]
        if "classification" in metrics:
            metrics["task"] = WITH_CLASSES
        return metrics

    def pictures(
        self,
        run: Path,
        plan: Plan,
        metrics: MetricsFile,
        *,
        report: Path,
        console: Console,
    ) -> Pictures:
        """Slices, errors and surfaces of the best, median and worst case by Dice."""
        return picture_cases(run, plan, metrics, report=report, console=console)

    def parts(
        self, metrics: MetricsFile, records: Sequence[Mapping[str, Any]]
    ) -> list[Part]:
        """Labels; classes, lesions and raters where there are any; and how far to trust
        the model.
        """
        return [
            label_part(metrics, records),
            class_part(metrics, records),
            detection_part(metrics),
            raters_part(metrics),
            trust_part(metrics),
        ]

    def headline(self, metrics: MetricsFile) -> str:
        """Mean Dice of each label and over all; macro-F1 and AUC of the classes."""
        return label_headline(metrics)

    def title(self, plan: Plan) -> str:
        """Dataset and task."""
        return f"{plan.dataset}: {plan.task}"

    def facts(self, model: Path) -> dict[str, object]:
        """Data, labels, network, parameters and operations of a run or bundle."""
        bundle = read_bundle(model)
        description = bundle.description
        plan = description.plan
        answers = description.classification
        classes = {} if answers is None else _class_facts(answers)
        return {
            "bundle": str(bundle.folder),
            "identity": bundle.identity,
            "notice": description.notice,
            "task": description.task,
            "dataset": plan.dataset,
            "channels": list(plan.channels),
            "labels": plan.labels.labels,
            "spacing_mm": list(plan.spacing),
            "patch_size": list(plan.patch_size),
            "folds": [weights.fold for weights in description.weights],
            "network": plan.network,
            **classes,
            **description.card_facts,
            **description.cost_facts,
            **count_operations(
                plan.network,
                plan.topology,
                len(plan.inputs),
                plan.labels.output_channels,
                plan.patch_size,
                plan.network_options,
            ),
        }


def _class_facts(answers: ClassDescription) -> dict[str, object]:
    """The classes, and what is read beside the image."""
    clinical = [column.name for column in answers.clinical]
    read = {"clinical": clinical} if clinical else {}
    return {"classes": list(answers.classes), **read}


class SegmentationTask(LabelTask):
    """What training needs to know about segmentation."""

    name = "segmentation"

    def dataset(self, dataset: Dataset, classes: Path | None = None) -> Dataset:
        """Cases whose label map is not known teach nothing here; classes only keep the
        folds balanced.
        """
        if dataset.holds_exams:
            raise DataError(
                f"{dataset.root}: holds X-rays and volumes, no label maps; add --task "
                "reconstruction"
            )
        if classes is not None:
            dataset = with_classes(dataset, classes)
        cases = tuple(_taught_by_label(case) for case in dataset.cases)
        return dataset.model_copy(update={"task": self.name, "cases": cases})

    def objective(
        self, prepared: PreparedImages, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score for training on the cases `names`."""
        labels = prepared.plan.labels
        voxels = prepared.store.mean_voxels(names, len(labels.values))
        objective = SegmentationObjective.of(prepared.plan, recipe, voxels=voxels)
        return with_teacher(objective, prepared, recipe, names)


def _sensitive(options: PredictOptions, predictor: Predictor) -> Sensitive | None:
    """What is asked for of missing little."""
    if options.max_missed is None:
        return None
    require_choice("missed", options.missed, MissedKind)
    known = {
        "voxels": [each.missed for each in predictor.descriptions],
        "lesions": [each.missed_lesions for each in predictor.descriptions],
    }
    return sensitive(
        known[options.missed],
        options.max_missed,
        list(predictor.labels.targets),
        missed=options.missed,
        scales=options.scales,
    )


def _clinical(
    file: Path | None, descriptions: Sequence[LabelDescription]
) -> ClinicalTable | None:
    """The table of the clinical columns that models read; raises `UsageError` where
    none reads any.
    """
    if file is None:
        return None
    columns: list[ClinicalColumn] = []
    for description in descriptions:
        answers = description.classification
        columns += () if answers is None else answers.clinical
    if not columns:
        raise UsageError(
            f"--clinical {file}: the model reads no clinical columns; leave it out"
        )
    return read_clinical(file, columns)


def _taught_by_label(case: Case) -> Case:
    """Without its class where its label map is not known."""
    if case.label is not None:
        return case
    return case.model_copy(update={"class_name": None})
