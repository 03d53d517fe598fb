"""What all tasks share that learn from patches of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.errors import PlanError
from trivox.learning.runtime import Runtime, rank_positions
from trivox.learning.tracking import RunLog
from trivox.networks.registry import patch_family
from trivox.planning.describe import describe_plan, sized
from trivox.planning.plan import ImagePlan, Plan
from trivox.planning.planner import make_plan
from trivox.preparation.batches import BatchSource, Source
from trivox.preparation.preprocess import preprocess
from trivox.preparation.resident import GpuStore
from trivox.preparation.sampler import PatchSampler
from trivox.preparation.store import Store
from trivox.tasks.console import Console
from trivox.tasks.forecast import forecast_training
from trivox.tasks.foresight import with_foresight
from trivox.tasks.stages import fingerprint_of
from trivox.tasks.task import TRAINING, VALIDATION, PlanDecision, Prepared, Task

ImagePlanT = TypeVar("ImagePlanT", bound=ImagePlan)


class ImageTask(Task[ImagePlanT, Store], Generic[ImagePlanT]):
    """A task that learns from patches of one or several registered volumes."""

    labelled: ClassVar[bool] = True
    """Whether intensities are measured inside the labels."""

    def decide(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        runtime: Runtime,
        fingerprint: Path,
        console: Console,
    ) -> ImagePlan:
        """Measure the training cases, then decide spacing, patch, network and batch."""
        measured = fingerprint_of(dataset, fingerprint, console, labelled=self.labelled)
        plan = make_plan(
            measured,
            dataset,
            recipe,
            patch_family(recipe.network).blueprint,
            task=self.name,
            activation_bytes=runtime.activation_bytes,
            gpu=runtime.on_gpu,
        )
        return with_foresight(plan, dataset, measured, console)

    def warnings(self, plan: ImagePlanT) -> Sequence[str]:
        """What resampling destroys, and cases that become huge by it."""
        return plan.warnings

    def require_fitting(self, plan: ImagePlanT, dataset: Dataset, file: Path) -> None:
        """Raise `PlanError` if a plan was made for other channels or labels."""
        labels = plan.labels if isinstance(plan, Plan) else None
        if plan.channels != dataset.channels or labels != dataset.labels:
            raise PlanError(
                f"{file}: made for other channels or labels than {dataset.root}; run "
                "'trivox plan' on this dataset"
            )

    def decisions(self, plan: ImagePlanT) -> list[PlanDecision]:
        """Spacing, patch, batch, network, normalisation and memory."""
        return describe_plan(plan)

    def plan_line(self, plan: ImagePlanT) -> str:
        """Network, patch, batch, spacing and memory."""
        return (
            f"plan: {plan.network}, patch {sized(plan.patch_size)}, batch "
            f"{plan.batch_size}, spacing {sized(plan.spacing)} mm, about "
            f"{plan.memory.total / 1e9:.1f} GB"
        )

    def store(
        self,
        dataset: Dataset,
        plan: ImagePlanT,
        folder: Path,
        *,
        workers: int,
        replace: bool,
        console: Console,
    ) -> Store:
        """Crop, normalise and resample all training cases."""
        return preprocess(
            dataset,
            plan,
            folder,
            workers=workers,
            replace=replace,
            progress=lambda names, total: console.track(names, total, "preprocessing"),
            say=console.say,
        )

    def source(
        self,
        prepared: Prepared[ImagePlanT, Store],
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> Source:
        """Batches of patches."""
        return self.patches(prepared, recipe, names, training=training)

    def patches(
        self,
        prepared: Prepared[ImagePlanT, Store],
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> BatchSource:
        """Batches of patches; each rank takes its share of the global batch."""
        plan = prepared.plan
        positions = rank_positions(recipe.batch_size or plan.batch_size)
        store = prepared.store
        sampler = PatchSampler(
            store,
            names,
            plan.patch_size,
            positions.stop,
            recipe.foreground_fraction,
        )
        return BatchSource(
            sampler=sampler,
            seed=recipe.seed,
            spacing=plan.spacing,
            positions=positions,
            augmentation=recipe.augmentation if training else None,
            stream=TRAINING if training else VALIDATION,
            masks=int(plan.mask_channel),
            gpu=store.gpu if isinstance(store, GpuStore) else None,
        )

    def micro_batch(
        self,
        prepared: Prepared[ImagePlanT, Store],
        recipe: Recipe,
        runtime: Runtime,
        log: RunLog,
    ) -> int | None:
        """By forecast."""
        plan = prepared.plan
        batch = len(rank_positions(recipe.batch_size or plan.batch_size))
        return forecast_training(plan, recipe, runtime, batch=batch, log=log)

    def channels(self, prepared: Prepared[ImagePlanT, Store]) -> int:
        """Channels of the plan."""
        return len(prepared.plan.inputs)
