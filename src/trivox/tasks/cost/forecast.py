"""The forecast that stands beside a plan."""

from pathlib import Path

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.splits import dataset_splits
from trivox.files import file_hash, write_json
from trivox.learning.metering import Meter
from trivox.learning.runtime import Runtime
from trivox.planning.cost import Amount, CostSettings, ForecastFile, forecast_cost
from trivox.schema import stamped
from trivox.tasks.console import Console
from trivox.tasks.cost.ledger import forecast_beside
from trivox.tasks.cost.rehearsal import rehearse
from trivox.tasks.stages import FOLDS
from trivox.tasks.task import PlanT, StoreT, Task


def forecast_of(
    task: Task[PlanT, StoreT],
    dataset: Dataset,
    made: PlanT,
    recipe: Recipe,
    runtime: Runtime,
    settings: CostSettings,
    *,
    plan: Path,
    console: Console,
) -> ForecastFile:
    """Rehearse the training of the first fold under the plan that was `made`, and write
    what it will take beside its file `plan`.
    """
    held_out = dataset_splits(dataset, folds=FOLDS)[0].validation
    amount = Amount(cases=len(dataset.training_cases), held_out=len(held_out))
    meter = Meter(runtime.device, watts_per_core=settings.watts_per_core)
    rehearsed = rehearse(task, dataset, made, recipe, runtime, meter, console)
    forecast = ForecastFile(
        plan_sha256=file_hash(plan),
        device=runtime.device.type,
        precision=runtime.precision,
        recipe=recipe,
        settings=settings,
        amount=amount,
        rehearsed=rehearsed.cases,
        rates=rehearsed.rates,
        missing=rehearsed.missing,
        forecast=forecast_cost(rehearsed.rates, recipe, amount),
    )
    content = stamped(forecast.model_dump(mode="json"), task.name)
    write_json(forecast_beside(plan), content)
    return forecast
