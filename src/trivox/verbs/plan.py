"""What is decided before training: `trivox.plan`."""

from dataclasses import dataclass
from pathlib import Path

from trivox.config.choices import PresetName, TaskName
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import UsageError
from trivox.files import write_json
from trivox.learning.runtime import make_runtime
from trivox.outputs import FINGERPRINT, FORECAST, PLAN
from trivox.planning.cost import CostFile, CostSettings, ForecastFile
from trivox.planning.plan import Plan
from trivox.planning.volumes import VolumePlan
from trivox.tasks.choice import task_for
from trivox.tasks.console import Console, Quiet
from trivox.tasks.cost.forecast import forecast_of
from trivox.tasks.cost.ledger import forecast_beside
from trivox.tasks.cost.table import CostRow, cost_notes, cost_rows
from trivox.tasks.stages import recipe_for
from trivox.tasks.task import PlanDecision
from trivox.verbs.folders import require_apart, require_result
from trivox.verbs.settings import (
    Settings,
    cost_settings,
    overrides,
    recipe_name,
    series_choice,
)
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
    cost: ForecastFile | None = None

    @property
    def task(self) -> str:
        """What it is a plan of."""
        return str(self.plan.task)

    @property
    def fingerprint(self) -> Path | None:
        """The file that holds what was measured; None where nothing had to be."""
        return fingerprint_beside(self.file) if isinstance(self.plan, Plan) else None

    @property
    def cost_rows(self) -> list[CostRow]:
        """What training will cost, for people; nothing where that was not asked."""
        return [] if self.cost is None else cost_rows(_alone(self.cost))

    @property
    def cost_notes(self) -> list[str]:
        """How that is known."""
        return [] if self.cost is None else cost_notes(_alone(self.cost))


def _alone(forecast: ForecastFile) -> CostFile:
    return CostFile(settings=forecast.settings, forecast=forecast)


def fingerprint_beside(file: Path) -> Path:
    """Where the measurements of a plan stand."""
    return file.with_name("fingerprint.json")


@described
def plan(
    dataset: Path | str,
    out: Path | str = Path("plan.json"),
    *,
    task: TaskName | None = None,
    classes: Path | str | None = None,
    preset: PresetName | None = None,
    recipe: Path | str | None = None,
    network: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    memory_gb: float | None = None,
    patch_size: tuple[int, ...] | None = None,
    device: str = "auto",
    set: Settings = None,
    series: str | None = None,
    slice_tolerance: float | None = None,
    cost: bool = False,
    watts_per_core: float | None = None,
    price_per_hour: float | None = None,
    price_per_kwh: float | None = None,
    console: Console | None = None,
) -> Planned:
    """Measure a dataset and decide spacing, patch, network and batch, with the reason
    for each.

    What was measured stands beside the plan in `fingerprint.json`, and with `cost` what
    training will take in `forecast.json`. Raises `DataError` for data that cannot be
    used, `PlanError` for a plan that cannot be, `UsageError` for prices of nothing.
    """
    prices = _prices(cost, watts_per_core, price_per_hour, price_per_kwh)
    file = Path(out)
    require_result(file, PLAN)
    fingerprint = fingerprint_beside(file)
    require_result(fingerprint, FINGERPRINT)
    require_apart(file, fingerprint)
    if cost:
        require_result(forecast_beside(file), FORECAST)
        require_apart(file, forecast_beside(file))
    choice = series_choice(series, slice_tolerance)
    data = load_dataset(Path(dataset)).read_by(choice)
    chosen_task = task_for(data, task)
    data = chosen_task.dataset(data, None if classes is None else Path(classes))
    settings = overrides(
        recipe,
        set,
        network=network,
        epochs=epochs,
        minutes=minutes,
        memory_gb=memory_gb,
        patch_size=patch_size,
    )
    named = recipe_name(recipe) or chosen_task.recipe
    chosen = recipe_for(preset, settings, device=device, named=named)
    runtime = make_runtime(device, chosen.precision)
    console = console or Quiet()
    made = chosen_task.plan(
        data, chosen, runtime=runtime, fingerprint=fingerprint, console=console
    )
    write_json(file, made.model_dump(mode="json"))
    forecast = None
    if cost:
        forecast = forecast_of(
            chosen_task, data, made, chosen, runtime, prices, plan=file, console=console
        )
    decisions = tuple(chosen_task.decisions(made))
    warnings = tuple(chosen_task.warnings(made))
    return Planned(data.name, file, made, decisions, warnings, forecast)


def _prices(cost: bool, *options: float | None) -> CostSettings:
    """What energy and time cost; raises `UsageError` where nothing is forecast."""
    watts_per_core, price_per_hour, price_per_kwh = options
    if not cost and any(option is not None for option in options):
        raise UsageError("prices and watts are of a forecast; add --cost")
    return cost_settings(watts_per_core, price_per_hour, price_per_kwh)
