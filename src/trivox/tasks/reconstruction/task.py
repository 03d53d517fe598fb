"""Reconstruction: the volume that one to eight X-rays show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError, RecipeError, UsageError
from trivox.evaluation.folders.volumes import (
    chosen_window,
    evaluate_volumes,
    holds_volumes,
)
from trivox.evaluation.metrics.content import MetricsFile
from trivox.evaluation.metrics.volumes import NOTICE
from trivox.evaluation.report.pages import Part
from trivox.evaluation.report.parts.volumes import volume_headline, volume_part
from trivox.inference.bundle import read_volume_bundle
from trivox.inference.descriptions import SYNTHETIC
from trivox.inference.many.predictors import CasePredictor
from trivox.inference.reconstructor import Reconstructor, volume_network
from trivox.learning.losses.volumes import VolumeCriterion
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime, rank_positions
from trivox.memory import require_memory
from trivox.networks.counting import count_volume_network
from trivox.planning.describe import describe_volume_plan, sized
from trivox.planning.footprint import rendering_bytes, volume_bytes
from trivox.planning.volumes import VolumePlan, read_volume_plan
from trivox.preparation.exam_batches import ExamSource, to_window
from trivox.preparation.exam_store import ExamStore, prepare_exams
from trivox.results.case import CaseResult, volume_result
from trivox.results.options import ResultOptions
from trivox.tasks.console import Console
from trivox.tasks.options import EvaluateOptions, PredictOptions
from trivox.tasks.reconstruction.exams import PreparedExams, reference_volume
from trivox.tasks.reconstruction.objective import ReconstructionObjective
from trivox.tasks.reconstruction.pictures import picture_exams
from trivox.tasks.reconstruction.planning import TASK, plan_reconstruction
from trivox.tasks.reconstruction.prediction import write_beside
from trivox.tasks.reconstruction.validation import finish_volumes
from trivox.tasks.report import report_run
from trivox.tasks.task import ModelTask, Pictures, PlanDecision, RunRequest

OF_LABELS = (
    "tta",
    "probabilities",
    "uncertainty",
    "mc_samples",
    "subtype_results",
    "scales",
    "detection",
    "clinical",
    "max_missed",
    "missed",
    "weighted_intervals",
)
"""Options of predictions that only models of label maps know."""


class ReconstructionTask(ModelTask[VolumePlan, ExamStore]):
    """What training needs to know about X-rays and volumes."""

    name = TASK
    recipe = "xray2ct"
    results = "volumes"
    gives = "volumes"
    endings_beside = (".png", ".json")
    measured_before = "on the network's grid"
    note = SYNTHETIC

    def require_possible(self, recipe: Recipe) -> None:
        """Volumes are learnt from CTs alone."""
        if recipe.distillation.teachers:
            raise RecipeError(
                "a model that makes volumes is not distilled; leave distillation out, "
                "and train a smaller --network"
            )

    # -- the data and what is decided from them ---------------------------------------

    def suits(self, dataset: Dataset) -> bool:
        """Exams of X-rays."""
        return dataset.holds_exams

    def dataset(self, dataset: Dataset, classes: Path | None = None) -> Dataset:
        """Exams, at least one of them with its CT."""
        if not self.suits(dataset):
            raise DataError(
                f"{dataset.root}: holds no X-rays with volumes; 'trivox drr CT... --out "
                "DIR' makes such a dataset from CTs"
            )
        if not dataset.training_cases:
            raise DataError(
                f"{dataset.root}: no exam to train on has a ct.nii.gz; render from CTs "
                "with 'trivox drr'"
            )
        return dataset.model_copy(update={"task": self.name})

    def plan(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        runtime: Runtime,
        fingerprint: Path,
        console: Console,
    ) -> VolumePlan:
        """The grid about the isocentre, and the X-rays rendered to learn from."""
        return plan_reconstruction(dataset, recipe)

    def read_plan(self, file: Path) -> VolumePlan:
        """Read a plan of volumes."""
        return read_volume_plan(file)

    def require_fitting(self, plan: VolumePlan, dataset: Dataset, file: Path) -> None:
        """Exams are brought to any plan."""

    def decisions(self, plan: VolumePlan) -> list[PlanDecision]:
        """Grid, window, X-rays, network."""
        return describe_volume_plan(plan)

    def plan_line(self, plan: VolumePlan) -> str:
        """Network, grid, X-rays and batch."""
        z, y, x = plan.shape
        rows, columns = plan.detector
        return (
            f"plan: {plan.network}, grid {z} x {y} x {x} of {plan.spacing[0]:.3g} mm, "
            f"X-rays {rows} x {columns} of {plan.pixel_mm:.3g} mm, batch "
            f"{plan.batch_size}"
        )

    def store(
        self,
        dataset: Dataset,
        plan: VolumePlan,
        folder: Path,
        *,
        workers: int,
        replace: bool,
        console: Console,
    ) -> ExamStore:
        """Bring CTs and views to the plan's grids; raises `DataError` before grids or a
        training step take more memory than there is.
        """
        require_memory(
            rendering_bytes(plan) + volume_bytes(plan, volumes=plan.batch_size),
            f"batches of {plan.batch_size} grids of {sized(plan.shape)} voxels",
            "use a smaller --patch-size or batch_size",
        )
        return prepare_exams(
            dataset,
            plan,
            folder,
            workers=workers,
            replace=replace,
            progress=lambda names, total: console.track(names, total, "preprocessing"),
            say=console.say,
        )

    # -- learning ---------------------------------------------------------------------

    def network(
        self, prepared: PreparedExams, recipe: Recipe, names: Sequence[str]
    ) -> nn.Module:
        """A network that knows the mean of the training volumes."""
        plan = prepared.plan
        network = volume_network(plan)
        total = torch.zeros(plan.shape, dtype=torch.float64)
        for name in names:
            total += to_window(reference_volume(prepared, name), plan.window).double()
        network.set_mean((total / len(names)).float())
        return network

    def objective(
        self, prepared: PreparedExams, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score; nothing in it depends on the cases."""
        plan = prepared.plan
        criterion = VolumeCriterion(
            recipe.reconstruction.loss,
            window=plan.window,
            water_per_mm=plan.water_per_mm,
            grid=plan.grid,
        )
        return ReconstructionObjective(criterion, recipe.reconstruction)

    def source(
        self,
        prepared: PreparedExams,
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> ExamSource:
        """Batches of exams; each rank takes every `world_size`-th sample of the global
        batch.
        """
        plan = prepared.plan
        positions = rank_positions(recipe.batch_size or plan.batch_size)
        return ExamSource(
            store=prepared.store,
            names=names,
            plan=plan,
            options=recipe.reconstruction,
            seed=recipe.seed,
            positions=positions,
            batch_size=positions.stop,
            training=training,
        )

    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: PreparedExams,
        folders: Mapping[int, Path],
        console: Console,
    ) -> Mapping[str, Any]:
        """Bundle, and validation beside the classical ladder."""
        metrics = finish_volumes(self.name, request, recipe, prepared, folders, console)
        return {} if metrics is None else metrics

    def report(self, run: Path, folders: Mapping[int, Path], console: Console) -> None:
        """The page, with the curves of the first fold."""
        first = next(iter(folders.values()))
        report_run(self, run, console=console, log_folder=first)

    # -- use --------------------------------------------------------------------------

    def predictor(
        self, models: Sequence[Path], options: PredictOptions
    ) -> CasePredictor[Any]:
        """One or several runs or bundles, whose volumes are averaged."""
        usual = PredictOptions()
        for name in OF_LABELS:
            if getattr(options, name) != getattr(usual, name):
                option = name.replace("_", "-")
                raise UsageError(
                    f"--{option} is of models that give label maps; leave it out for a "
                    "reconstruction"
                )
        if options.engine not in ("auto", "torch"):
            raise UsageError(
                f"--engine {options.engine} computes label maps; networks that read "
                "X-rays are torch's, leave --engine out"
            )
        return Reconstructor.load(
            models, device=options.device, precision=options.precision
        )

    def result(
        self, predictor: Any, case: Case, made: Any, options: ResultOptions
    ) -> CaseResult:
        """A synthetic volume."""
        return volume_result(predictor, case, made, options)

    def written_beside(
        self, predictor: Any, out: Path
    ) -> Callable[[Case, Any], Mapping[str, Any]]:
        """A figure, and the metrics where the exam has its CT."""
        return partial(write_beside, out=out, window=predictor.plan.window)

    def inputs(
        self, source: Path, predictor: CasePredictor[Any], console: Console
    ) -> tuple[Case, ...]:
        """A dataset of X-rays, or one exam."""
        dataset = load_dataset(source)
        if not self.suits(dataset):
            raise DataError(
                f"{source}: holds no X-rays; give exams as 'trivox drr' writes them "
                "(views, geometry.json)"
            )
        return dataset.cases

    def suits_references(self, references: Path) -> bool:
        """CTs."""
        return holds_volumes(references)

    def evaluate(
        self, predictions: Path, references: Path, options: EvaluateOptions
    ) -> MetricsFile:
        """PSNR, SSIM, MAE and more of synthetic CTs in a window of HU."""
        for field in fields(EvaluateOptions):
            usual = getattr(EvaluateOptions(), field.name)
            if field.name != "settings" and getattr(options, field.name) != usual:
                raise UsageError(
                    f"{references} holds CTs, not label maps; of the options only "
                    "--set window=... applies"
                )
        window = chosen_window(options.settings)
        return evaluate_volumes(predictions, references, task=self.name, window=window)

    def pictures(
        self,
        run: Path,
        plan: VolumePlan,
        metrics: MetricsFile,
        *,
        report: Path,
        console: Console,
    ) -> Pictures:
        """X-rays, synthetic CT, reference and error of the best, median and worst
        exam.
        """
        return Pictures(picture_exams(run, metrics, console=console))

    def wrote(self, metrics: MetricsFile) -> bool:
        """Metrics which say that the volumes are synthetic."""
        return bool(metrics.get("notice") == NOTICE)

    def parts(
        self, metrics: MetricsFile, records: Sequence[Mapping[str, Any]]
    ) -> list[Part]:
        """The volumes beside the classical ladder."""
        return [volume_part(metrics, records)]

    def headline(self, metrics: MetricsFile) -> str:
        """Mean PSNR, SSIM and MAE."""
        return volume_headline(metrics)

    def title(self, plan: VolumePlan) -> str:
        """Dataset and task, and that the volumes are synthetic."""
        return f"{plan.dataset}: {plan.task} (synthetic CT, not acquired)"

    def facts(self, model: Path) -> dict[str, object]:
        """Data, grid, network, parameters and operations of a run or bundle."""
        bundle = read_volume_bundle(model)
        description = bundle.description
        plan = description.plan
        return {
            "bundle": str(bundle.folder),
            "notice": description.notice,
            "task": description.task,
            "dataset": plan.dataset,
            "spacing_mm": list(plan.spacing),
            "window_hu": list(plan.window),
            "trained_views": list(description.views),
            "folds": [weights.fold for weights in description.weights],
            **description.card_facts,
            **description.cost_facts,
            **count_volume_network(
                plan.network, views=2, shape=plan.shape, options=plan.network_options
            ),
        }
