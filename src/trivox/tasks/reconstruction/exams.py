"""X-ray exams ready to train on, and the stages that make them so."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import load_dataset, save_dataset
from trivox.datasets.splits import Split
from trivox.errors import DataError
from trivox.planning.volumes import (
    ReconstructionPlan,
    read_reconstruction_plan,
    write_reconstruction_plan,
)
from trivox.preparation.exam_batches import (
    coarser,
)
from trivox.preparation.exam_store import ExamStore, prepare_exams
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.planning import plan_reconstruction
from trivox.tasks.stages import checked, splits_of


@dataclass(frozen=True, eq=False)
class PreparedExams:
    """X-ray exams ready to train on."""

    dataset: Dataset
    plan: ReconstructionPlan
    splits: tuple[Split, ...]
    store: ExamStore

    def volume(self, name: str) -> Tensor:
        """The CT on the network's grid, `(z, y, x)` HU."""
        volume: Tensor = coarser(
            torch.from_numpy(self.store.volume(name))[None].float(), self.plan
        )[0, 0]
        return volume


def prepare_xrays(
    path: Path,
    out: Path,
    recipe: Recipe,
    *,
    plan_file: Path | None = None,
    prepared: Path | None = None,
    reuse_plan: bool = True,
    console: Console,
) -> PreparedExams:
    """Run the stages that are missing in `out`; raises `DataError` for data without
    X-rays and volumes to learn from.

    plan_file: a plan to use instead of making one; prepared: a folder that 'trivox
    preprocess' wrote; reuse_plan: take the plan that is in `out` already.
    """
    dataset = load_dataset(path)
    if dataset.task != "reconstruction":
        raise DataError(
            f"{dataset.root}: holds no X-rays with volumes; 'trivox drr CT... --out DIR' makes such a dataset from CTs"
        )
    if not dataset.training_cases:
        raise DataError(
            f"{dataset.root}: no exam to train on has a ct.nii.gz; render from CTs with 'trivox drr'"
        )
    checked(dataset, out / "check.json", console)
    save_dataset(dataset, out / "dataset.json")
    there = [
        file
        for file in (out / "plan.json" if reuse_plan else None, plan_file)
        if file is not None and file.exists()
    ]
    plan = (
        read_reconstruction_plan(there[0])
        if there
        else plan_reconstruction(dataset, recipe)
    )
    write_reconstruction_plan(plan, out / "plan.json")
    z, y, x = plan.shape
    console.say(
        f"plan: {plan.network}, grid {z} x {y} x {x} of {plan.spacing[0]:.3g} mm, X-rays {plan.detector[0]} x "
        f"{plan.detector[1]} of {plan.pixel_mm:.3g} mm, batch {plan.batch_size}"
    )
    store = prepare_exams(
        dataset,
        plan,
        (prepared or out) / "prepared",
        workers=max(1, recipe.workers),
        progress=lambda names, total: console.track(names, total, "preprocessing"),
    )
    return PreparedExams(dataset, plan, splits_of(dataset, out), store)
