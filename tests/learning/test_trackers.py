"""Trackers: TensorBoard, Weights & Biases and MLflow get every figure, offline, and go
on with their run on a resume.
"""

import json
import sqlite3
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from training_toys import epochs_of, make
from trivox.config.recipe import make_recipe
from trivox.errors import ResourceError
from trivox.learning.trackers import open_trackers
from trivox.learning.tracking import RunLog, run_log

SETTINGS = {"learning_rate": 0.5, "loss": {"dice": 1.0}}


class FakeRun:
    def __init__(self, options):
        self.options = options
        self.logged = []
        self.finished = False

    def log(self, figures, *, step):
        self.logged.append((step, figures))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package: what it was told."""
    fake = ModuleType("wandb")
    fake.runs = []
    fake.init = lambda **options: fake.runs.append(FakeRun(options)) or fake.runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


class FakeClient:
    """As much of mlflow.MlflowClient as is used; one store for all clients of an
    address.
    """

    stores: ClassVar[dict] = {}

    def __init__(self, tracking_uri):
        self.store = self.stores.setdefault(
            tracking_uri, SimpleNamespace(experiments={}, runs={})
        )

    def get_experiment_by_name(self, name):
        return self.store.experiments.get(name)

    def create_experiment(self, name, artifacts):
        self.store.experiments[name] = SimpleNamespace(experiment_id="7")
        return "7"

    def create_run(self, experiment, *, run_name):
        run = SimpleNamespace(
            experiment=experiment,
            name=run_name,
            params={},
            metrics=[],
            status="RUNNING",
        )
        self.store.runs[str(len(self.store.runs))] = run
        return SimpleNamespace(
            info=SimpleNamespace(run_id=str(len(self.store.runs) - 1))
        )

    def update_run(self, run, *, status):
        self.store.runs[run].status = status

    def log_param(self, run, key, value):
        self.store.runs[run].params[key] = value

    def log_metric(self, run, key, value, *, step):
        self.store.runs[run].metrics.append((key, value, step))

    def set_terminated(self, run):
        self.store.runs[run].status = "FINISHED"


@pytest.fixture
def mlflow(monkeypatch):
    fake = ModuleType("mlflow")
    FakeClient.stores = {}
    fake.MlflowClient = FakeClient
    fake.is_tracking_uri_set = lambda: False
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "sqlalchemy", ModuleType("sqlalchemy"))
    return fake


def log_twice(folder, name):
    """Two sessions of one run."""
    for step in (3, 6):
        (tracker,) = open_trackers([name], folder, project="livers", settings=SETTINGS)
        log = RunLog(folder, say=lambda line: None, trackers=[tracker])
        log.record(
            {
                "kind": "epoch",
                "step": step,
                "train_loss": step / 10,
                "validation_dice": None,
                "loss/a+b": 0.5,
            }
        )
        log.close()


def test_wandb_gets_the_figures_offline_and_one_identity(tmp_path, wandb):
    log_twice(tmp_path, "wandb")
    first, second = wandb.runs
    assert first.options["mode"] == "offline"
    assert first.options["resume"] == "allow"
    assert first.options["id"] == second.options["id"] != ""
    assert (
        first.options["project"],
        first.options["dir"],
        first.options["config"],
    ) == (
        "livers",
        str(tmp_path),
        SETTINGS,
    )
    assert first.logged == [(3, {"train_loss": 0.3, "loss/a+b": 0.5})]
    assert second.logged == [(6, {"train_loss": 0.6, "loss/a+b": 0.5})]
    assert first.finished


def test_mlflow_gets_the_figures_in_the_run_folder_and_one_run(tmp_path, mlflow):
    log_twice(tmp_path, "mlflow")
    ((address, store),) = FakeClient.stores.items()
    assert address == f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    ((_, run),) = store.runs.items()
    assert run.params == SETTINGS
    assert run.metrics == [
        ("train_loss", 0.3, 3),
        ("loss/a_b", 0.5, 3),
        ("train_loss", 0.6, 6),
        ("loss/a_b", 0.5, 6),
    ]
    assert (run.name, run.status) == (tmp_path.name, "FINISHED")


def test_mlflow_talks_to_the_server_that_the_user_has_set(tmp_path, mlflow):
    mlflow.is_tracking_uri_set = lambda: True
    log_twice(tmp_path, "mlflow")
    assert list(FakeClient.stores) == [None]  # mlflow's own choice


def test_tensorboard_gets_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    log_twice(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [
        (3, pytest.approx(0.3)),
        (6, pytest.approx(0.6)),
    ]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_says_how_to_get_it(tmp_path, monkeypatch, name):
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ResourceError,
        match=rf"{name} is not installed; run: pip install 'trivox\[track\]'",
    ):
        open_trackers([name], tmp_path, project="p", settings={})


def test_a_training_reports_each_epoch_to_its_trackers_and_closes_them(tmp_path, wandb):
    tmp_path.mkdir(exist_ok=True)
    recipe = make_recipe("production", {"track": ["wandb"], "project": "livers"})
    with run_log(tmp_path, recipe, say=lambda line: None) as log:
        trainer = make(tmp_path)
        trainer.log = log
        trainer.fit()
    (run,) = wandb.runs
    assert [step for step, _ in run.logged] == [4, 8]
    assert [figures["validation_dice"] for _, figures in run.logged] == [
        record["validation_dice"] for record in epochs_of(tmp_path)
    ]
    assert run.options["config"] == recipe.model_dump(mode="json")
    assert run.finished


def test_trackers_are_closed_when_training_fails(tmp_path, wandb):
    def fail(recipe):
        with run_log(tmp_path, recipe, say=lambda line: None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(make_recipe("production", {"track": ["wandb"]}))
    assert wandb.runs[0].finished


# -- the real packages, where they are installed ---------------------------------------
@pytest.mark.filterwarnings("ignore")
def test_real_wandb_writes_a_run_without_a_server(tmp_path):
    pytest.importorskip("wandb")
    log_twice(tmp_path, "wandb")
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.slow  # 8 s: mlflow makes its database
@pytest.mark.filterwarnings("ignore")
def test_real_mlflow_writes_a_run_without_a_server(tmp_path):
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    log_twice(tmp_path, "mlflow")
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
        rows = database.execute(
            "select key, value, step from metrics where key = 'train_loss' order by step"
        ).fetchall()
        assert rows == [("train_loss", 0.3, 3), ("train_loss", 0.6, 6)]
        params = dict(database.execute("select key, value from params").fetchall())
    assert json.loads(params["learning_rate"]) == 0.5
