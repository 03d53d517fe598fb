"""From a rehearsal to a forecast that training takes up, and what stands in a table."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trivox
from json_schemas import complaints
from trivox.config.recipe import merged, read_recipe
from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError, UsageError
from trivox.learning.metering import Meter
from trivox.learning.runtime import Runtime
from trivox.planning.cost import STAGES, CostFile, CostSettings, Usage
from trivox.schema import unstamped
from trivox.tasks.choice import task_named
from trivox.tasks.cost import rehearsal
from trivox.tasks.cost.ledger import Ledger, planned_cost
from trivox.tasks.cost.sample import MOST_CASES, mean_size, size_of, spread
from trivox.tasks.cost.table import cost_notes, cost_rows
from trivox.verbs.answers.documents import document

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def planned(tiny_data, tiny_settings, tmp_path_factory):
    """A plan with its forecast, each part tried once."""
    out = tmp_path_factory.mktemp("planned") / "plan.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "SECONDS", 0.0)
        patch.setattr(rehearsal, "OF_STEPS", 1e-3)
        return trivox.plan(
            tiny_data,
            out,
            preset="quick_test",
            set=tiny_settings,
            device="cpu",
            cost=True,
            price_per_hour=2,
            watts_per_core=5,
        )


def test_every_part_of_a_training_was_tried(planned):
    forecast = planned.cost
    assert forecast.missing == {}
    assert set(forecast.forecast.stages) == set(STAGES)
    for part in ("preparing", "step", "batch", "saving", "predicting", "report"):
        spent = getattr(forecast.rates, part)
        assert spent.seconds > 0, part
        assert spent.energy_by
    assert forecast.forecast.total.memory_bytes > 0
    written = json.loads((planned.file.parent / "forecast.json").read_text())
    assert written["task"] == planned.task
    assert type(forecast).model_validate(unstamped(written)) == forecast
    assert complaints("forecast-file", written) == []
    assert complaints("plan", document("plan", planned)) == []


def test_the_folder_of_a_rehearsal_is_gone_and_the_data_are_as_they_were(
    tiny_data, planned
):
    names = {path.name for path in planned.file.parent.iterdir()}
    assert names == {"plan.json", "fingerprint.json", "forecast.json"}


def rehearsed(planned, data, folder):
    """The first part of a rehearsal of the same plan on other data."""
    recipe = planned.cost.recipe
    return rehearsal.Rehearsal(
        task_named("segmentation"),
        load_dataset(data),
        planned.plan,
        recipe,
        Runtime(torch.device("cpu"), "fp32"),
        Meter(torch.device("cpu"), watts_per_core=5),
        folder,
    )


def test_cases_that_a_training_sets_aside_are_not_rehearsed(
    tiny_data, planned, tmp_path
):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    made = rehearsed(planned, data, tmp_path / "work")
    first, second, *_ = made.dataset.training_cases
    for case in (first, second):
        case.images[0].write_bytes(b"nothing")
    assert made.prepare(made.dataset.training_cases[:4]).seconds > 0
    names = {case.name for case in made.sound}
    assert names == {case.name for case in made.dataset.training_cases[2:4]}
    others = rehearsed(planned, data, tmp_path / "others")
    with pytest.raises(DataError, match="none of 2 cases can be prepared"):
        others.prepare([first, second])


def test_a_training_under_the_plan_has_its_forecast_and_prices(
    tiny_data, tiny_settings, planned, tmp_path
):
    longer = {**tiny_settings, "epochs": 3}
    run = trivox.train(
        tiny_data,
        tmp_path / "run",
        preset="quick_test",
        set=longer,
        device="cpu",
        plan=planned.file,
    )
    cost = run.cost
    assert cost.forecast.rates == planned.cost.rates
    assert cost.forecast.forecast.epochs == 3  # of this training, not of the plan's
    assert cost.settings == planned.cost.settings
    assert cost.settings.price(cost.total) > 0
    rows = {row.what: row for row in cost_rows(cost)}
    for stage in STAGES:
        row = rows[f"{stage}, time"]
        expected = cost.forecast.forecast.stages[stage].seconds
        assert row.ratio == pytest.approx(cost.measured[stage].seconds / expected)
    assert rows["price"].forecast
    page = run.report.read_text(encoding="utf-8")
    assert "measured / forecast" in page
    assert "5 W a core, which is assumed" in page


@pytest.mark.parametrize(
    ("change", "runtime", "named"),
    [
        ({"batch_size": 3}, {}, "batch_size"),
        ({"augmentation": {"gamma": 0.9}}, {}, "augmentation"),
        ({}, {"precision": "fp16"}, "precision"),
        ({}, {"device": torch.device("mps")}, "device"),
    ],
)
def test_rates_of_another_training_are_not_used_and_a_line_says_so(
    planned, tmp_path, change, runtime, named
):
    recipe = planned.cost.recipe
    amount = planned.cost.amount
    here = Runtime(torch.device("cpu"), planned.cost.precision)
    made = Ledger(tmp_path, planned.task, meter=None, cost=CostFile())
    lines = []
    longer = recipe.model_copy(update={"epochs": 7, "seed": 3})
    made.foresee(planned.cost, longer, here, amount, say=lines.append)
    assert made.cost.forecast.forecast.epochs == 7
    assert lines == []
    other = read_recipe(merged(recipe.model_dump(), change))
    where = replace(here, **runtime)
    made.foresee(planned.cost, other, where, amount, say=lines.append)
    assert made.cost.forecast is None
    (line,) = lines
    assert named in line


def test_a_plan_that_was_edited_has_no_forecast(planned, tmp_path):
    for name in ("plan.json", "forecast.json"):
        content = (planned.file.parent / name).read_bytes()
        (tmp_path / name).write_bytes(content)
    plan = tmp_path / "plan.json"
    lines = []
    assert planned_cost(plan, planned.task, say=lines.append) == planned.cost
    assert planned_cost(plan, "multitask", say=lines.append) is None
    plan.write_text(plan.read_text() + " ")
    assert planned_cost(plan, planned.task, say=lines.append) is None
    assert len(lines) == 2


def test_validation_that_cannot_be_tried_is_said_and_not_counted(
    planned, monkeypatch, tiny_data, tiny_settings, tmp_path
):
    def fail(*arguments):
        raise DataError("too few\ncases")

    monkeypatch.setattr(rehearsal, "SECONDS", 0.0)
    monkeypatch.setattr(rehearsal, "OF_STEPS", 1e-3)
    monkeypatch.setattr("trivox.tasks.labels.segmentation.finish_labels", fail)
    made = trivox.plan(
        tiny_data,
        tmp_path / "plan.json",
        preset="quick_test",
        set=tiny_settings,
        device="cpu",
        cost=True,
    )
    assert set(made.cost.missing) == {"validation", "report"}
    assert "too few cases" in " ".join(made.cost_notes)
    named = {row.what for row in made.cost_rows}
    assert "training, time" in named
    assert "validation, time" not in named
    assert "price" not in named


@pytest.mark.parametrize(
    "options",
    [
        {"price_per_hour": 1.0},
        {"cost": True, "price_per_hour": -1.0},
        {"cost": True, "price_per_kwh": float("nan")},
        {"cost": True, "watts_per_core": 0.0},
    ],
)
def test_options_that_make_no_sense_are_one_line_and_nothing_is_written(
    tiny_data, tmp_path, options
):
    out = tmp_path / "plan.json"
    with pytest.raises(UsageError) as raised:
        trivox.plan(tiny_data, out, device="cpu", **options)
    assert "\n" not in str(raised.value)
    assert "--" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_forecast_is_not_written_over(tiny_data, tmp_path):
    file = tmp_path / "forecast.json"
    file.write_text('{"rain": "tomorrow"}')
    with pytest.raises(DataError, match=r"forecast\.json"):
        trivox.plan(tiny_data, tmp_path / "plan.json", device="cpu", cost=True)
    assert file.read_text() == '{"rain": "tomorrow"}'
    assert not (tmp_path / "plan.json").exists()


# -- which cases stand for all ---------------------------------------------------------
def write_cases(folder, sizes):
    cases = []
    for number, size in enumerate(sizes):
        file = folder / f"{number}.nii.gz"
        file.write_bytes(b"x" * size)
        cases.append(Case(name=f"case{number}", images=(file,)))
    return cases


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 500), min_size=1, max_size=80))
def test_a_sample_is_of_all_sizes_without_a_case_twice(tmp_path_factory, sizes):
    cases = write_cases(tmp_path_factory.mktemp("cases"), sizes)
    sample = spread(cases)
    names = [case.name for case in sample]
    assert len(set(names)) == len(sample) == min(len(cases), MOST_CASES)
    assert {*names} <= {case.name for case in cases}
    ordered = sorted(sizes)
    share = -(-len(sizes) // len(sample))
    chosen = sorted(map(size_of, sample))
    for part, size in enumerate(chosen):
        low = int(part * len(sizes) / len(sample))
        assert ordered[low] <= size <= ordered[min(low + share, len(sizes) - 1)]
    assert spread(cases[::-1]) == sample


def test_a_folder_is_as_large_as_its_files(tmp_path):
    folder = tmp_path / "series" / "deep"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    (folder.parent / "b").write_bytes(b"123")
    case = Case(name="a", images=(folder.parent, tmp_path / "gone"))
    assert size_of(case) == 8
    assert mean_size([case, case]) == 8
    assert mean_size([]) == 0


# -- the table -------------------------------------------------------------------------
def test_without_a_forecast_the_table_holds_what_was_measured():
    spent = Usage(
        seconds=3600, cpu_seconds=60, joules=3.6e6, memory_bytes=2, energy_by=("x",)
    )
    cost = CostFile(measured={"training": spent})
    rows = cost_rows(cost)
    assert [row.what for row in rows] == [
        "training, time",
        "all of it, time",
        "all of it, CPU time",
        "memory",
        "energy",
    ]
    assert {row.forecast for row in rows} == {""}
    assert {row.ratio for row in rows} == {None}
    assert rows[-1].measured == "1 kWh"
    assert any("Energy by x" in note for note in cost_notes(cost))
    priced = cost.model_copy(update={"settings": CostSettings(price_per_hour=7)})
    assert cost_rows(priced)[-1].measured == "7"
