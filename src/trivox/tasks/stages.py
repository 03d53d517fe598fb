"""The stages before training: check, fingerprint, plan, preprocess.

Each leaves a file in the run and is reused if there.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe, make_recipe
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import load_dataset, save_dataset
from trivox.datasets.splits import Split, make_splits
from trivox.errors import DataError, PlanError
from trivox.files import read_json, write_json
from trivox.learning.runtime import Runtime, make_runtime
from trivox.networks.registry import patch_family
from trivox.planning.describe import sized
from trivox.planning.fingerprint import (
    Fingerprint,
    measure,
    read_fingerprint,
    write_fingerprint,
)
from trivox.planning.plan import ImagePlan, Plan, read_plan, write_plan
from trivox.planning.planner import make_plan
from trivox.preparation.preprocess import preprocess
from trivox.preparation.store import Store
from trivox.tasks.console import Console

FOLDS = 5


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """Images ready to train on."""

    dataset: Dataset
    plan: ImagePlan
    splits: tuple[Split, ...]
    store: Store


@dataclass(frozen=True, eq=False)
class Prepared(PreparedImages):
    """Images with labels, ready to train on."""

    plan: Plan


def recipe_for(
    preset: str | None,
    overrides: Mapping[str, Any] | None,
    *,
    device: str = "auto",
    named: str | None = None,
) -> Recipe:
    """The recipe asked for; without a preset, quick_test where there is no GPU (others
    take weeks), else production.
    """
    if preset is None:
        preset = (
            "quick_test"
            if make_runtime(device, "auto").device.type == "cpu"
            else "production"
        )
    return make_recipe(preset, overrides, named=named)


def prepare_run(
    path: Path,
    out: Path,
    recipe: Recipe,
    *,
    runtime: Runtime,
    fit: Callable[[Dataset], Dataset] = lambda dataset: dataset,
    plan_file: Path | None = None,
    prepared: Path | None = None,
    reuse_plan: bool = True,
    console: Console,
) -> Prepared:
    """Run the stages that are missing in `out`; raises `DataError` if training on the
    dataset would be wrong.

    fit: makes of the dataset what the task learns from; plan_file: a plan to use
    instead of making one; prepared: a folder that 'trivox preprocess' wrote;
    reuse_plan: take the plan that is in `out` already.
    """
    dataset = fit(load_dataset(path))
    checked(dataset, out / "check.json", console)
    save_dataset(dataset, out / "dataset.json")
    fingerprint = fingerprint_of(dataset, out / "fingerprint.json", console)
    if reuse_plan and (out / "plan.json").exists():
        plan = read_plan(out / "plan.json")
        require_fitting(plan, dataset, out / "plan.json")
    elif plan_file is not None:
        plan = read_plan(plan_file)
        require_fitting(plan, dataset, plan_file)
    else:
        plan = plan_for(
            fingerprint, dataset, recipe, activation_bytes=runtime.activation_bytes
        )
    write_plan(plan, out / "plan.json")
    console.say(
        f"plan: {plan.network}, patch {sized(plan.patch_size)}, batch {plan.batch_size}, spacing {sized(plan.spacing)} mm, "
        f"about {plan.memory.total / 1e9:.1f} GB"
    )
    store = preprocess(
        dataset,
        plan,
        (prepared or out) / "prepared",
        workers=max(1, recipe.workers),
        replace=prepared is None,
        progress=lambda names, total: console.track(names, total, "preprocessing"),
    )
    return Prepared(dataset, plan, splits_of(dataset, out), store)


def checked(dataset: Dataset, file: Path, console: Console) -> None:
    """Check once; a later stage of the same run trusts the file.

    Raises `DataError` with the first problems.
    """
    earlier = read_json(file) if file.exists() else None
    if isinstance(earlier, dict) and earlier.get("errors") == 0:
        return
    report = check_dataset(dataset)
    write_json(file, report.to_json())
    if report.errors:
        first = "; ".join(str(finding) for finding in report.errors[:2])
        raise DataError(
            f"{dataset.root}: {len(report.errors)} problems would make training wrong: {first}; all: {file}"
        )
    note = f", {len(report.warnings)} warnings (see {file})" if report.warnings else ""
    console.say(f"checked {report.checked_cases} cases ({dataset.layout} layout){note}")


def fingerprint_of(
    dataset: Dataset, file: Path, console: Console, *, labelled: bool = True
) -> Fingerprint:
    """Measure the training cases, or read what was measured before on the same cases."""
    names = {case.name for case in dataset.training_cases}
    if file.exists():
        old = read_fingerprint(file)
        same = (old.dataset, set(old.intensities)) == (
            dataset.name,
            set(dataset.channels),
        )
        if same and {case.name for case in old.cases} == names:
            return old
    found = measure(
        dataset,
        labelled=labelled,
        progress=lambda cases: console.track(cases, len(names), "measuring"),
    )
    write_fingerprint(found, file)
    return found


def plan_for(
    fingerprint: Fingerprint, dataset: Dataset, recipe: Recipe, *, activation_bytes: int
) -> Plan:
    """The plan of images with labels that a recipe's dials ask for; raises `PlanError`
    where there are no labels.
    """
    plan = image_plan_for(
        fingerprint,
        dataset,
        recipe,
        task=dataset.task,
        activation_bytes=activation_bytes,
    )
    if not isinstance(plan, Plan):
        raise PlanError(
            f"{dataset.root}: a plan needs labels; 'trivox check' shows what was found"
        )
    return plan


def image_plan_for(
    fingerprint: Fingerprint,
    dataset: Dataset,
    recipe: Recipe,
    *,
    task: str,
    activation_bytes: int,
) -> ImagePlan:
    """The plan that a recipe's dials ask for, with labels where the dataset has some."""
    return make_plan(
        fingerprint,
        dataset,
        recipe,
        patch_family(recipe.network).blueprint,
        task=task,
        activation_bytes=activation_bytes,
    )


def started(run: Path) -> bool:
    """Whether training in `run` has left a checkpoint."""
    return any(run.glob("**/checkpoints/latest*"))


def splits_of(dataset: Dataset, out: Path) -> tuple[Split, ...]:
    """The folds; those that a started run was trained with may not change, or it would
    be validated on its own cases.
    """
    splits, file = make_splits(dataset.training_cases, folds=FOLDS), out / "splits.json"
    content = [
        {name: list(names) for name, names in asdict(split).items()} for split in splits
    ]
    if file.exists() and started(out) and read_json(file) != content:
        raise DataError(
            f"{out}: the training cases changed since this run began; choose another --out"
        )
    write_json(file, content)
    return splits


def require_fitting(plan: ImagePlan, dataset: Dataset, file: Path) -> None:
    """Raise `PlanError` if a plan read from `file` was made for other channels or
    labels.
    """
    labels = plan.labels if isinstance(plan, Plan) else None
    if plan.channels != dataset.channels or labels != dataset.labels:
        raise PlanError(
            f"{file}: made for other channels or labels than {dataset.root}; run 'trivox plan' on this dataset"
        )
