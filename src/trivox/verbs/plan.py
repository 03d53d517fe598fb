"""What is decided before training: `trivox.plan`."""

from dataclasses import dataclass
from pathlib import Path

from trivox.config.choices import PresetName
from trivox.datasets.layouts.choice import load_dataset
from trivox.files import write_json
from trivox.learning.runtime import make_runtime
from trivox.outputs import FINGERPRINT, PLAN
from trivox.planning.plan import Plan
from trivox.planning.volumes import VolumePlan
from trivox.tasks.choice import task_of
from trivox.tasks.console import Console, Quiet
from trivox.tasks.stages import recipe_for
from trivox.tasks.task import PlanDecision
from trivox.verbs.folders import require_apart, require_result
from trivox.verbs.settings import Settings, overrides, recipe_name, series_choice
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Planned:
    """A plan, the file that holds it, and its decisions for people: what was decided,
    what it is, and why.
    """

    dataset: str
    file: Path
    plan: Plan | VolumePlan
    decisions: tuple[PlanDecision, ...]
    warnings: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """What it is a plan of."""
        return str(self.plan.task)

    @property
    def fingerprint(self) -> Path | None:
        """The file that holds what was measured; None where nothing had to be."""
        return fingerprint_beside(self.file) if isinstance(self.plan, Plan) else None


def fingerprint_beside(file: Path) -> Path:
    """Where the measurements of a plan stand."""
    return file.with_name("fingerprint.json")


@described
def plan(
    dataset: Path | str,
    out: Path | str = Path("plan.json"),
    *,
    preset: PresetName | None = None,
    recipe: Path | str | None = None,
    network: str | None = None,
    memory_gb: float | None = None,
    patch_size: tuple[int, ...] | None = None,
    device: str = "auto",
    set: Settings = None,
    series: str | None = None,
    slice_tolerance: float | None = None,
    console: Console | None = None,
) -> Planned:
    """Measure a dataset and decide spacing, patch, network and batch, with the reason
    for each.

    What was measured stands beside the plan in `fingerprint.json`. Raises `DataError`
    for data that cannot be used, `PlanError` for a plan that cannot be.
    """
    file = Path(out)
    require_result(file, PLAN)
    fingerprint = fingerprint_beside(file)
    require_result(fingerprint, FINGERPRINT)
    require_apart(file, fingerprint)
    choice = series_choice(series, slice_tolerance)
    data = load_dataset(Path(dataset)).read_by(choice)
    task = task_of(data)
    data = data.model_copy(update={"task": task.name})
    settings = overrides(
        recipe, set, network=network, memory_gb=memory_gb, patch_size=patch_size
    )
    named = recipe_name(recipe) or task.recipe
    chosen = recipe_for(preset, settings, device=device, named=named)
    made = task.plan(
        data,
        chosen,
        runtime=make_runtime(device, chosen.precision),
        fingerprint=fingerprint,
        console=console or Quiet(),
    )
    write_json(file, made.model_dump(mode="json"))
    decisions = tuple(task.decisions(made))
    return Planned(data.name, file, made, decisions, tuple(task.warnings(made)))
