"""Costs add up, forecasts are what their parts take, prices are the user's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.config.recipe import make_recipe
from trivox.planning.cost import (
    MOST,
    MOST_COUNTED,
    NOTHING,
    STAGES,
    Amount,
    CostFile,
    CostSettings,
    Forecast,
    Rates,
    Usage,
    forecast_cost,
)

numbers = st.floats(0, 1e6)
usages = st.builds(
    Usage,
    seconds=numbers,
    cpu_seconds=numbers,
    joules=numbers,
    memory_bytes=st.integers(0, 10**12),
    gpu_memory_bytes=st.integers(0, 10**12),
    energy_by=st.sampled_from([(), ("a",), ("b",)]),
)
SUMS = ("seconds", "cpu_seconds", "joules")


def usage(seconds):
    """One second takes two of CPU time and three joules."""
    return Usage(seconds=seconds, cpu_seconds=2 * seconds, joules=3 * seconds)


RATES = Rates(
    preparing=usage(1),
    step=usage(0.5),
    batch=usage(0.25),
    saving=usage(2),
    learning=usage(0.1),
    predicting=usage(3),
    ending=usage(4),
    report=usage(5),
)


def recipe(**settings):
    steps = {"iterations_per_epoch": 10, "validation_iterations": 4}
    return make_recipe("quick_test", {**steps, **settings})


@given(usages, usages)
def test_one_after_the_other_adds_up_and_memory_is_that_of_the_fullest(one, other):
    both = one + other
    for name in SUMS:
        assert getattr(both, name) == getattr(one, name) + getattr(other, name)
    assert both.memory_bytes == max(one.memory_bytes, other.memory_bytes)
    assert both.gpu_memory_bytes == max(one.gpu_memory_bytes, other.gpu_memory_bytes)
    assert set(both.energy_by) == {*one.energy_by, *other.energy_by}
    assert one + NOTHING == one
    assert both == other + one


@given(usages, st.floats(0, 1000))
def test_many_pieces_take_as_many_times_as_much_and_no_more_memory(one, count):
    many = one.times(count)
    for name in SUMS:
        assert getattr(many, name) == getattr(one, name) * count
    assert many.memory_bytes == one.memory_bytes


@given(usages, usages)
def test_what_is_taken_out_and_put_back_is_the_same_and_never_less_than_nothing(
    one, other
):
    rest = (one + other).without(other)
    for name in SUMS:
        whole = getattr(one, name) + getattr(other, name)
        wanted = getattr(one, name)
        assert math.isclose(getattr(rest, name), wanted, abs_tol=1e-9 * (1 + whole))
        assert getattr(one.without(one + other), name) == 0


@given(st.integers(1, 50), st.integers(1, 5), st.integers(0, 40), st.integers(1, 40))
def test_a_forecast_of_epochs_is_the_sum_of_its_parts(epochs, folds, held_out, cases):
    amount = Amount(cases=cases, held_out=held_out, folds=folds)
    forecast = forecast_cost(RATES, recipe(epochs=epochs), amount)
    assert forecast.steps == 10 * epochs
    assert forecast.epochs == epochs
    an_epoch = 10 * 0.5 + 4 * 0.25 + 2
    wanted = {
        "preparation": cases,
        "training": folds * (epochs * an_epoch + 2),
        "validation": 0.1 * cases + 3 * held_out + 4,
        "report": 5,
    }
    assert list(forecast.stages) == list(STAGES)
    for stage, seconds in wanted.items():
        spent = forecast.stages[stage]
        assert math.isclose(spent.seconds, seconds)
        assert math.isclose(spent.cpu_seconds, 2 * seconds)
        assert math.isclose(spent.joules, 3 * seconds)
    assert math.isclose(forecast.total.seconds, sum(wanted.values()))


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 1000))
def test_memory_grows_with_what_stays_of_held_out_cases(before, each, held_out):
    predicting = RATES.predicting.model_copy(update={"memory_bytes": before})
    changes = {"predicting": predicting, "held_out_bytes": each}
    rates = RATES.model_copy(update=changes)
    amount = Amount(cases=1, held_out=held_out)
    forecast = forecast_cost(rates, recipe(), amount)
    assert forecast.total.memory_bytes == before + each * held_out


@given(st.floats(0.1, 1e4))
def test_minutes_are_spent_on_as_many_steps_as_fit(minutes):
    amount = Amount(cases=1, held_out=1)
    forecast = forecast_cost(RATES, recipe(minutes=minutes), amount)
    an_epoch = 10 * 0.5 + 4 * 0.25 + 2
    assert math.isclose(forecast.epochs, 60 * minutes / an_epoch)
    assert forecast.steps == round(10 * forecast.epochs)
    # then comes what ends a training: a validation and a checkpoint
    training = forecast.stages["training"].seconds
    assert math.isclose(training, 60 * minutes + 4 * 0.25 + 2)


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_price_is_of_the_hours_and_the_energy(hour, kwh):
    spent = Usage(seconds=7200, joules=3.6e6 * 5)
    assert spent.kwh == 5
    both = CostSettings(price_per_hour=hour, price_per_kwh=kwh)
    assert math.isclose(both.price(spent), 2 * hour + 5 * kwh)
    assert CostSettings(price_per_hour=hour).price(spent) == 2 * hour
    assert CostSettings(price_per_kwh=kwh).price(spent) == 5 * kwh


def test_without_prices_there_is_no_price():
    assert CostSettings().price(usage(3600)) is None


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, 1e300])
@pytest.mark.parametrize("name", list(CostSettings.model_fields))
def test_impossible_prices_and_powers_are_refused(name, wrong):
    with pytest.raises(ValueError, match=name):
        CostSettings(**{name: wrong})


@given(st.dictionaries(st.sampled_from(STAGES), usages))
def test_the_record_of_a_run_is_the_sum_of_its_stages(measured):
    total = CostFile(measured=measured).total
    for name in SUMS:
        wanted = sum(getattr(each, name) for each in measured.values())
        assert math.isclose(getattr(total, name), wanted)
    again = CostFile.model_validate(CostFile(measured=measured).model_dump(mode="json"))
    assert again.measured == measured


@given(st.floats(0, MOST), st.integers(0, MOST_COUNTED), st.floats(0.1, 1e4))
def test_what_a_record_may_say_can_be_added_and_forecast_and_read_again(
    seconds, most, minutes
):
    largest = usage(seconds / 3).model_copy(update={"memory_bytes": most})
    spent = Usage.model_validate(largest.model_dump())
    cost = CostFile(measured=dict.fromkeys(STAGES, spent))
    assert cost.total.memory_bytes == most
    names = set(Rates.model_fields) - {"held_out_bytes"}
    rates = Rates(**dict.fromkeys(names, spent), held_out_bytes=most)
    amount = Amount(cases=most, held_out=most, folds=5)
    for length in ({"epochs": 100}, {"minutes": minutes}):
        forecast = forecast_cost(rates, recipe(**length), amount)
        assert Forecast.model_validate(forecast.model_dump()) == forecast
        assert forecast.total.seconds <= MOST
