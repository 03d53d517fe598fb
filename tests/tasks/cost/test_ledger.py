"""What a run has cost: all its sessions together, and nothing of a refused command."""

import errno
import json
import shutil
from contextlib import suppress

import pytest
import torch

from trivox.errors import FormatError, RecipeError
from trivox.files import read_json, write_json
from trivox.planning.cost import NOTHING, CostFile, CostSettings, Usage
from trivox.tasks.cost import ledger as module
from trivox.tasks.cost.ledger import COST, Ledger, opened, planned_cost, read_cost
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.usefixtures("without_figures")

CPU = torch.device("cpu")


class Counting:
    """A meter by which a second passes at each look."""

    def __init__(self):
        self.now = 0

    def read(self):
        self.now += 1
        return self.now

    def since(self, before):
        return Usage(seconds=self.read() - before, joules=2.0, energy_by=("way",))

    def of_all_ranks(self, usage):
        return usage


@pytest.fixture
def lines():
    return []


def session(run, lines, asked=None, planned=None):
    request = RunRequest(run, run, cost=asked or CostSettings())
    return opened(request, CPU, planned, say=lines.append)


def make(run, cost=None):
    return Ledger(run, "segmentation", Counting(), cost or CostFile())


def test_a_run_that_went_on_without_a_record_is_said_to(tmp_path, lines):
    with session(tmp_path, lines):
        assert lines == []  # nothing was trained there
    (tmp_path / "checkpoints" / "latest").mkdir(parents=True)
    with session(tmp_path, lines) as made:
        assert made.cost.measured == {}
    (line,) = lines
    assert "has no cost.json of what it took before" in line
    assert "counted from now" in line
    with make(tmp_path).stage("training"):
        pass
    with session(tmp_path, lines):
        assert lines == [line]


def test_stages_are_recorded_and_folds_add_up(tmp_path):
    made = make(tmp_path)
    with made.stage("preparation", whole=True):
        pass
    for _ in range(3):
        with made.stage("training"):
            pass
    cost = read_cost(tmp_path)
    assert cost == made.cost
    assert cost.measured["preparation"].seconds == 1
    assert cost.measured["training"].seconds == 3
    assert cost.total.joules == 8
    assert read_json(tmp_path / COST)["task"] == "segmentation"


def test_an_epoch_that_ends_is_recorded_and_not_counted_twice(tmp_path):
    made = make(tmp_path)
    seen = []
    with made.stage("training"):
        for _ in range(3):
            made.note()
            seen.append(read_cost(tmp_path).measured["training"].seconds)
    seen.append(read_cost(tmp_path).measured["training"].seconds)
    assert seen == [1, 2, 3, 4]
    made.note()
    assert read_cost(tmp_path).measured["training"].seconds == 4


def test_sessions_add_up_also_where_one_of_them_failed(tmp_path):
    for number in range(1, 4):
        made = make(tmp_path, read_cost(tmp_path))
        with pytest.raises(KeyboardInterrupt), made.stage("training"):
            raise KeyboardInterrupt
        assert read_cost(tmp_path).measured["training"].seconds == number


def test_what_ended_the_work_is_said_also_where_its_cost_cannot_be_written(
    tmp_path, monkeypatch
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    made = make(tmp_path)
    with made.stage("preparation"):
        pass
    before = read_cost(tmp_path)
    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(KeyboardInterrupt), made.stage("training"):
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="no space"), made.stage("training"):
        pass
    assert read_cost(tmp_path) == before


def test_a_command_that_is_refused_before_it_begins_leaves_no_trace(tmp_path):
    made = make(tmp_path)
    with pytest.raises(RecipeError), made.stage("preparation", whole=True):
        raise RecipeError("no")
    assert not (tmp_path / COST).exists()


def test_of_ranks_that_ended_apart_what_the_last_epoch_said_stands(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "world_size", lambda: 2)
    made = make(tmp_path)
    with suppress(KeyboardInterrupt), made.stage("training"):
        made.note()
        raise KeyboardInterrupt
    assert read_cost(tmp_path).measured["training"].seconds == 1


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "rank", lambda: 1)
    made = make(tmp_path)
    with made.stage("training"):
        pass
    assert not (tmp_path / COST).exists()


def test_prices_of_before_hold_until_others_are_asked_for(tmp_path, lines):
    asked = CostSettings(price_per_kwh=0.3)
    with session(tmp_path, lines, asked) as made, made.stage("training"):
        pass
    with session(tmp_path, lines) as made:
        assert made.cost.settings.price_per_kwh == 0.3
    with session(tmp_path, lines, CostSettings(price_per_hour=2)) as made:
        assert made.cost.settings.price_per_kwh == 0.3
        assert made.cost.settings.price_per_hour == 2
    with session(tmp_path, lines, CostSettings(watts_per_core=3)) as made:
        assert made.meter.watts_per_core == 3
    assert lines == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"measured": 3}', '{"x": 1}'])
def test_a_damaged_record_stops_no_training_and_one_line_says_so(tmp_path, lines, text):
    (tmp_path / COST).write_text(text)
    with pytest.raises(FormatError) as raised:
        read_cost(tmp_path)
    assert "\n" not in str(raised.value)
    with session(tmp_path, lines) as made:
        assert made.cost.measured == {}
    (line,) = lines
    assert "counted from now" in line


def test_a_damaged_forecast_is_a_line(tmp_path, lines):
    plan = tmp_path / "plan.json"
    assert planned_cost(None, "segmentation", say=lines.append) is None
    assert planned_cost(plan, "segmentation", say=lines.append) is None
    assert lines == []
    (tmp_path / "forecast.json").write_text("{}")
    assert planned_cost(plan, "segmentation", say=lines.append) is None
    assert len(lines) == 1


def test_a_run_that_is_trained_longer_costs_what_all_its_sessions_did(
    tiny_data, tiny_run, tiny_settings, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = read_cost(run)
    longer = {**tiny_settings, "epochs": 1 + tiny_settings["epochs"]}
    request = RunRequest(tiny_data, run, "quick_test", longer)
    with pytest.raises(RecipeError, match="--resume"):
        run_request(request)
    assert read_cost(run) == before
    run_request(RunRequest(tiny_data, run, "quick_test", longer, resume=True))
    after = read_cost(run)
    assert set(after.measured) == set(before.measured)
    for stage, spent in before.measured.items():
        assert after.measured[stage].seconds > spent.seconds
        assert after.measured[stage].cpu_seconds >= spent.cpu_seconds
    summary = json.loads((run / "bundle" / "bundle.json").read_text())["training"]
    assert summary["cost"]["seconds"] >= round(after.measured["training"].seconds, 1)
    assert "<h2>Cost</h2>" in (run / "report.html").read_text(encoding="utf-8")


def test_a_finished_run_says_what_every_stage_took(tiny_run):
    cost = read_cost(tiny_run)
    assert list(cost.measured) == ["preparation", "training", "validation", "report"]
    assert all(spent != NOTHING for spent in cost.measured.values())
    assert cost.forecast is None
    assert cost.settings.price(cost.total) is None


def test_runs_of_before_have_no_record(tmp_path):
    assert read_cost(tmp_path) is None
    write_json(tmp_path / COST, {"settings": {}, "measured": {}})
    assert read_cost(tmp_path) == CostFile()
