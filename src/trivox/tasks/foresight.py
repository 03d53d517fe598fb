"""What a plan will do to the cases, said before it is done: labels that resampling
destroys, and cases that become huge.
"""

from trivox.datasets.checks.findings import Finding, warning
from trivox.datasets.dataset import Dataset
from trivox.memory import free_memory, gigabytes
from trivox.planning.describe import sized
from trivox.planning.fingerprint import Fingerprint, outline
from trivox.planning.footprint import preparation_bytes
from trivox.planning.plan import ImagePlan, Plan
from trivox.planning.spacing import axis_order, target_spacing
from trivox.planning.survival import Survival, look_at_survival
from trivox.preparation.grid import shape_on_grid
from trivox.tasks.console import Console
from trivox.volumes.volume import Shape


def with_foresight(
    plan: ImagePlan, dataset: Dataset, measured: Fingerprint, console: Console
) -> ImagePlan:
    """The plan with what resampling keeps among its reasons, and warnings of what it
    destroys and of cases too large for the memory that is free now.
    """
    warnings = huge_cases(plan, measured)
    reasons = dict(plan.reasons)
    if isinstance(plan, Plan):
        survival = survival_of(plan, dataset, measured, console)
        reasons["resampling"] = survival.summary()
        warnings += survival.warnings(plan.labels)
    changes = {"reasons": reasons, "warnings": tuple(warnings)}
    return plan.model_copy(update=changes)


def survival_of(
    plan: Plan, dataset: Dataset, measured: Fingerprint, console: Console
) -> Survival:
    """What the labels of the training cases lose at the spacing of the plan."""
    boxes = {case.name: case.box for case in measured.cases}
    return look_at_survival(
        dataset,
        plan.spacing,
        plan.axis_order,
        boxes=boxes,
        progress=lambda cases: console.track(cases, len(cases), "counting labels"),
    )


def planned_losses(dataset: Dataset, console: Console) -> list[Finding]:
    """A warning for each label that is lost at the spacing that a plan would have by
    the headers of the images; cropping, which a header does not tell, is left out.
    """
    assert dataset.labels is not None
    measured = outline(dataset)
    if not measured.cases:
        return []
    spacing, _ = target_spacing(measured)
    order, _ = axis_order(spacing)
    first, second, third = order
    survival = look_at_survival(
        dataset,
        (spacing[first], spacing[second], spacing[third]),
        order,
        progress=lambda cases: console.track(cases, len(cases), "counting labels"),
    )
    fix = "or accept it, if these structures do not matter"
    return [
        warning("lost-label", "", line, fix)
        for line in survival.warnings(dataset.labels)
    ]


def huge_cases(plan: ImagePlan, measured: Fingerprint) -> list[str]:
    """A line about the case that is the largest after resampling, if it does not fit
    into memory.
    """
    sizes: dict[str, Shape] = {
        case.name: shape_on_grid(case.shape, case.spacing, plan)
        for case in measured.cases
    }
    channels = len(plan.inputs)
    needed = {
        name: preparation_bytes(shape, channels=channels)
        for name, shape in sizes.items()
    }
    largest = max(needed, key=lambda name: needed[name])
    free = free_memory()
    if needed[largest] <= free:
        return []
    return [
        f"{largest} becomes {sized(sizes[largest])} voxels at {sized(plan.spacing)} mm: "
        f"about {gigabytes(needed[largest])} of memory, {gigabytes(free)} are available; "
        "correct its voxel size, or set a coarser spacing in plan.json"
    ]
