"""Costs in words: what was expected, what was measured, and their ratio."""

from collections.abc import Iterator
from dataclasses import dataclass

from trivox.learning.progress import duration
from trivox.memory import gigabytes
from trivox.planning.cost import (
    NOTHING,
    STAGES,
    CostFile,
    CostSettings,
    ForecastFile,
    Stage,
    Usage,
    total_of,
)

CPU = "CPU time"
INCLUDED = (
    "From the check of the cases to the end of the stage; starting Python and reading "
    "what the dataset holds are left out."
)


@dataclass(frozen=True)
class CostRow:
    """One quantity: expected and measured, as people say it, and measured / expected."""

    what: str
    forecast: str = ""
    measured: str = ""
    ratio: float | None = None


def cost_rows(cost: CostFile) -> list[CostRow]:
    """Each stage that was measured or is expected, then all that were measured together,
    beside the forecast of the same stages.
    """
    expected = {} if cost.forecast is None else cost.forecast.forecast.stages
    missing = {} if cost.forecast is None else cost.forecast.missing
    known = {stage: usage for stage, usage in expected.items() if stage not in missing}
    rows = [
        _row(stage, known.get(stage), cost.measured.get(stage))
        for stage in STAGES
        if stage in known or stage in cost.measured
    ]
    if not cost.measured:
        return rows + list(_together(total_of(known), None, cost.settings))
    both = {stage: known[stage] for stage in cost.measured if stage in known}
    comparable = total_of(both) if len(both) == len(cost.measured) else None
    return rows + list(_together(comparable, cost.total, cost.settings))


def _row(stage: Stage, expected: Usage | None, measured: Usage | None) -> CostRow:
    return CostRow(
        f"{stage}, time",
        "" if expected is None else duration(expected.seconds),
        "" if measured is None else duration(measured.seconds),
        _ratio(
            None if expected is None else expected.seconds,
            None if measured is None else measured.seconds,
        ),
    )


def _together(
    expected: Usage | None, measured: Usage | None, settings: CostSettings
) -> Iterator[CostRow]:
    """Time, memory, energy and price of all stages."""
    first = expected or NOTHING
    second = measured or NOTHING
    quantities = (
        ("all of it, time", first.seconds, second.seconds, duration),
        ("all of it, " + CPU, first.cpu_seconds, second.cpu_seconds, duration),
        ("memory", first.memory_bytes, second.memory_bytes, gigabytes),
        ("GPU memory", first.gpu_memory_bytes, second.gpu_memory_bytes, gigabytes),
        ("energy", first.kwh, second.kwh, _kwh),
        ("price", settings.price(first), settings.price(second), _price),
    )
    for what, before, after, said in quantities:
        if not before and not after:
            continue
        yield CostRow(
            what,
            "" if expected is None else said(before or 0.0),
            "" if measured is None else said(after or 0.0),
            _ratio(before if expected else None, after if measured else None),
        )


def _ratio(expected: float | None, measured: float | None) -> float | None:
    if not expected or measured is None:
        return None
    return measured / expected


def _kwh(value: float) -> str:
    return f"{value:.3g} kWh"


def _price(value: float) -> str:
    return f"{value:.4g}"


def cost_notes(cost: CostFile) -> list[str]:
    """How the energy is known, what a price is of, and what is left out."""
    forecast = cost.forecast
    ways = {*cost.total.energy_by}
    if forecast is not None:
        ways |= {*forecast.forecast.total.energy_by}
    notes = [f"Energy by {'; '.join(sorted(ways))}."] if ways else []
    settings = cost.settings
    prices = {"an hour": settings.price_per_hour, "a kWh": settings.price_per_kwh}
    known = [f"{price:g} {of}" for of, price in prices.items() if price is not None]
    if known:
        notes.append(f"Price at {' and '.join(known)}, in your unit.")
    if forecast is not None:
        notes += _about_forecast(forecast)
    return [*notes, INCLUDED]


def _about_forecast(forecast: ForecastFile) -> list[str]:
    lines = [
        f"Not forecast: {stage} ({why})." for stage, why in forecast.missing.items()
    ]
    times = forecast.forecast
    return [
        *lines,
        f"Forecast from {forecast.rehearsed} cases and a few steps on this machine: "
        f"{times.steps} steps of {forecast.rates.step.seconds:.2g} s in "
        f"{times.epochs:.3g} epochs a fold.",
    ]


def cost_lines(cost: CostFile) -> list[str]:
    """What a finished run has cost, in one line."""
    total = cost.total
    energy = f"{_kwh(total.kwh)} ({'; '.join(total.energy_by)})"
    parts = [
        duration(total.seconds),
        f"{duration(total.cpu_seconds)} of {CPU}",
        f"{gigabytes(total.memory_bytes)} of memory",
        energy,
    ]
    price = cost.settings.price(total)
    if price is not None:
        parts.append(f"price {_price(price)}")
    return [f"cost: {', '.join(parts)}"]
