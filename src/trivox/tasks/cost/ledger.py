"""What a run has cost so far, in its `cost.json`: all sessions together, stage by stage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from trivox.config.recipe import Recipe
from trivox.errors import FormatError, TrivoxError, few
from trivox.files import file_hash, read_json, write_json
from trivox.learning.metering import Meter
from trivox.learning.runtime import Runtime, rank, world_size
from trivox.planning.cost import (
    NOTHING,
    Amount,
    CostFile,
    ForecastFile,
    Stage,
)
from trivox.schema import read_stamped, stamped
from trivox.tasks.stages import started
from trivox.tasks.task import RunRequest

COST = "cost.json"
FORECAST = "forecast.json"
ANY_LENGTH = {"epochs", "minutes", "seed", "learning_rate"}
"""Settings of a recipe that change no rate."""
AGAIN = "delete it, or run 'trivox plan --cost' again"


def forecast_beside(plan: Path) -> Path:
    """Where the forecast of a plan stands."""
    return plan.with_name(FORECAST)


def read_cost(run: Path) -> CostFile | None:
    """What a run has cost; None where nothing was recorded.

    Raises `FormatError` for a record that is damaged.
    """
    file = run / COST
    if not file.is_file():
        return None
    advice = "delete it; the figures of the run do not depend on it"
    return read_stamped(CostFile, file, error=FormatError, advice=advice)


def read_forecast(file: Path) -> ForecastFile:
    """A forecast; raises `FormatError` for one that is damaged."""
    return read_stamped(ForecastFile, file, error=FormatError, advice=AGAIN)


def task_in(file: Path) -> object:
    """What a record is about."""
    content = read_json(file)
    return content.get("task") if isinstance(content, dict) else None


class Ledger:
    """Adds what each stage takes to the record of a run; the first rank writes.

    A session that is killed has its last epoch end recorded.
    """

    def __init__(self, run: Path, task: str, meter: Meter, cost: CostFile) -> None:
        self.file = run / COST
        self.task = task
        self.meter = meter
        self.cost = cost
        self.note: Callable[[], None] = _nothing

    @contextmanager
    def stage(self, stage: Stage, *, whole: bool = False) -> Iterator[None]:
        """Within, work belongs to a stage. What fails counts too, unless a `whole` stage
        is wanted: a command that is refused before it begins leaves no trace.
        """
        before = self.cost.measured.get(stage, NOTHING)
        begun = self.meter.read()

        def note() -> None:
            """Record what was spent up to now; all ranks together."""
            spent = self.meter.of_all_ranks(self.meter.since(begun))
            measured = {**self.cost.measured, stage: before + spent}
            self._write(self.cost.model_copy(update={"measured": measured}))

        self.note = note
        try:
            yield
        except BaseException:
            # the other ranks may have ended elsewhere
            if world_size() == 1 and not whole:
                with suppress(TrivoxError, OSError):  # what ended the work is said
                    note()
            raise
        else:
            note()
        finally:
            self.note = _nothing

    def foresee(
        self,
        planned: ForecastFile | None,
        recipe: Recipe,
        runtime: Runtime,
        amount: Amount,
        *,
        say: Callable[[str], None],
    ) -> None:
        """Record what is expected of this training by a forecast of its plan; with a line
        and without a forecast where its rates do not hold.
        """
        if planned is None and self.cost.forecast is None:
            return
        forecast = planned or self.cost.forecast
        assert forecast is not None
        differences = _differences(forecast, recipe, runtime)
        if differences:
            say(f"the forecast is of another training ({few(differences)}); not used")
            expected = None
        else:
            expected = forecast.renewed(recipe, amount, self.cost.settings)
        self._write(self.cost.model_copy(update={"forecast": expected}))

    def _write(self, cost: CostFile) -> None:
        self.cost = cost
        if rank() == 0:
            content = cost.model_dump(mode="json")
            write_json(self.file, stamped(content, self.task))


def _nothing() -> None:
    """Outside of a stage."""


@contextmanager
def opened(
    request: RunRequest,
    device: torch.device,
    planned: ForecastFile | None,
    *,
    say: Callable[[str], None],
) -> Iterator[Ledger]:
    """The ledger of a run, with what earlier sessions spent. Settings that are not asked
    for now are those of before, and at first those of the forecast.
    """
    before = CostFile()
    if planned is not None:
        before = CostFile(settings=planned.settings)
    try:
        cost = read_cost(request.out)
        if cost is None and started(request.out):
            say(
                f"{request.out}: has no {COST} of what it took before; what the run costs "
                "is counted from now"
            )
        cost = cost or before
    except TrivoxError as error:
        say(f"warning: {error}; what the run costs is counted from now")
        cost = before
    given = request.cost.model_dump(exclude_unset=True)
    settings = cost.settings.model_copy(update=given)
    cost = cost.model_copy(update={"settings": settings})
    meter = Meter(device, watts_per_core=settings.watts_per_core)
    with meter.running():
        yield Ledger(request.out, request.task, meter, cost)


def planned_cost(
    plan: Path | None, task: str, *, say: Callable[[str], None]
) -> ForecastFile | None:
    """The forecast that stands beside a plan; None where there is none, and, with a line,
    where it is damaged or of something else.
    """
    file = None if plan is None else forecast_beside(plan)
    if plan is None or file is None or not file.is_file():
        return None
    try:
        forecast = read_forecast(file)
    except TrivoxError as error:
        say(f"warning: {error}")
        return None
    if task_in(file) == task and file_hash(plan) == forecast.plan_sha256:
        return forecast
    say(f"{file}: is of another plan; not used")
    return None


def _differences(forecast: ForecastFile, recipe: Recipe, runtime: Runtime) -> list[str]:
    """What is not as it was where the rates were measured."""
    names = [
        name
        for name in Recipe.model_fields
        if name not in ANY_LENGTH
        and getattr(recipe, name) != getattr(forecast.recipe, name)
    ]
    if runtime.device.type != forecast.device:
        names.append("device")
    if runtime.precision != forecast.precision:
        names.append("precision")
    if world_size() > 1:
        names.append("ranks")
    return names
