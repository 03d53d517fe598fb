"""What a training costs: time, memory, energy and price, forecast from what single
parts of it took on this machine. Pure arithmetic.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field

from trivox.config.recipe import Recipe
from trivox.energy import WATTS_PER_CORE
from trivox.schema import Frozen

MOST = 1e18
"""Seconds, joules or units of money; sums stop there, so that they can be read again."""
MOST_COUNTED = 2**62
"""Bytes, cases or steps; likewise."""

NotNegative = Annotated[float, Field(ge=0, le=MOST)]
Bytes = Annotated[int, Field(ge=0, le=MOST_COUNTED)]
Count = Annotated[int, Field(ge=0, le=MOST_COUNTED)]
JOULES_PER_KWH = 3.6e6

Stage = Literal["preparation", "training", "validation", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class CostSettings(Frozen):
    """What a user says of energy and money.

    watts_per_core: of a core that computes, where no counter can be read; price_per_hour:
    of the machine; price_per_kwh: of energy; both in whatever unit the user counts in,
    None: no price is known.
    """

    watts_per_core: float = Field(WATTS_PER_CORE, gt=0, le=1e4)
    price_per_hour: NotNegative | None = None
    price_per_kwh: NotNegative | None = None

    def price(self, usage: "Usage") -> float | None:
        """Of the time and the energy, each where it has a price; None: neither has."""
        prices = (
            (self.price_per_hour, usage.seconds / 3600),
            (self.price_per_kwh, usage.kwh),
        )
        known = [price * amount for price, amount in prices if price is not None]
        return sum(known) if known else None


NO_PRICES = CostSettings()


class Usage(Frozen):
    """What a piece of work took, of all processes that did it together.

    seconds: by the clock; cpu_seconds: of all cores; joules: of energy; energy_by: how
    these are known; memory_bytes, gpu_memory_bytes: at the fullest moment.
    """

    seconds: NotNegative = 0.0
    cpu_seconds: NotNegative = 0.0
    joules: NotNegative = 0.0
    memory_bytes: Bytes = 0
    gpu_memory_bytes: Bytes = 0
    energy_by: tuple[str, ...] = ()

    def __add__(self, other: "Usage") -> "Usage":
        """One after the other."""
        ways = {*self.energy_by, *other.energy_by}
        return Usage(
            seconds=min(MOST, self.seconds + other.seconds),
            cpu_seconds=min(MOST, self.cpu_seconds + other.cpu_seconds),
            joules=min(MOST, self.joules + other.joules),
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            gpu_memory_bytes=max(self.gpu_memory_bytes, other.gpu_memory_bytes),
            energy_by=tuple(sorted(ways)),
        )

    def times(self, count: float) -> "Usage":
        """So many such pieces one after the other."""
        changes = {
            "seconds": min(MOST, self.seconds * count),
            "cpu_seconds": min(MOST, self.cpu_seconds * count),
            "joules": min(MOST, self.joules * count),
        }
        return self.model_copy(update=changes)

    def without(self, other: "Usage") -> "Usage":
        """What is left of it once another piece of the same work is taken out."""
        changes = {
            "seconds": max(0.0, self.seconds - other.seconds),
            "cpu_seconds": max(0.0, self.cpu_seconds - other.cpu_seconds),
            "joules": max(0.0, self.joules - other.joules),
        }
        return self.model_copy(update=changes)

    @property
    def kwh(self) -> float:
        """The energy."""
        return self.joules / JOULES_PER_KWH


NOTHING = Usage()


class Rates(Frozen):
    """What single parts of a training took.

    preparing: a case checked, measured and prepared; step: an optimizer step; batch: one
    of validation; saving: a checkpoint; learning: after training, a case that the model
    remembers the look of; predicting: a held-out case predicted and measured; ending:
    what else validation does once; report: the page; held_out_bytes: that stay in memory
    of each held-out case.
    """

    preparing: Usage
    step: Usage
    batch: Usage
    saving: Usage
    learning: Usage
    predicting: Usage
    ending: Usage
    report: Usage
    held_out_bytes: Bytes = 0


class Amount(Frozen):
    """How much there is to do: cases to prepare, folds to train, and cases that these
    hold out together.
    """

    cases: Count
    held_out: Count
    folds: int = Field(1, ge=1)


class Forecast(Frozen):
    """What a training will cost.

    epochs, steps: of each fold; a budget of minutes is spent on so many. Early stopping
    may end it sooner.
    """

    epochs: NotNegative
    steps: Count
    stages: dict[Stage, Usage]

    @property
    def total(self) -> Usage:
        """All stages."""
        return total_of(self.stages)


class ForecastFile(Frozen):
    """What forecast.json says beside a plan.

    plan_sha256: of the plan.json that it is of; device, precision: that computed;
    recipe: that the rates hold for; rehearsed: cases that they were measured with;
    missing: stages that could not be rehearsed, and why.
    """

    plan_sha256: str
    device: str
    precision: str
    recipe: Recipe
    settings: CostSettings
    amount: Amount
    rehearsed: Count
    rates: Rates
    missing: dict[Stage, str] = Field(default_factory=dict)
    forecast: Forecast

    def renewed(self, recipe: Recipe, amount: Amount, settings: CostSettings) -> Self:
        """For another length of training or other cases, at the same rates."""
        changes = {
            "recipe": recipe,
            "amount": amount,
            "settings": settings,
            "forecast": forecast_cost(self.rates, recipe, amount),
        }
        return self.model_copy(update=changes)


class CostFile(Frozen):
    """What cost.json says in a run: what was measured in all its sessions, and what was
    forecast, None: nothing.
    """

    settings: CostSettings = CostSettings()
    forecast: ForecastFile | None = None
    measured: dict[Stage, Usage] = Field(default_factory=dict)

    @property
    def total(self) -> Usage:
        """All stages that were measured."""
        return total_of(self.measured)


def total_of(stages: dict[Stage, Usage]) -> Usage:
    """All stages one after the other."""
    return sum(stages.values(), start=NOTHING)


def forecast_cost(rates: Rates, recipe: Recipe, amount: Amount) -> Forecast:
    """What a training by a recipe takes at these rates."""
    per_epoch = recipe.iterations_per_epoch
    validating = rates.batch.times(recipe.validation_iterations)
    epoch = rates.step.times(per_epoch) + validating
    epoch += rates.saving
    epochs = float(recipe.epochs)
    if recipe.minutes is not None:
        epochs = 60 * recipe.minutes / max(epoch.seconds, 1e-9)
    training = epoch.times(epochs) + rates.saving
    if recipe.minutes is not None:
        training += validating  # of the epoch that the end of the time cuts short
    learning = rates.learning.times(amount.cases)
    predicting = rates.predicting.times(amount.held_out)
    validation = learning + predicting + rates.ending
    memory = validation.memory_bytes + rates.held_out_bytes * amount.held_out
    memory = min(MOST_COUNTED, memory)
    stages: dict[Stage, Usage] = {
        "preparation": rates.preparing.times(amount.cases),
        "training": training.times(amount.folds),
        "validation": validation.model_copy(update={"memory_bytes": memory}),
        "report": rates.report,
    }
    steps = min(MOST_COUNTED, round(epochs * per_epoch))
    return Forecast(epochs=epochs, steps=steps, stages=stages)
