"""TensorBoard, Weights & Biases and MLflow behind one small protocol.

All write into the run's folder; none needs a server.

Nothing leaves the machine unasked: `wandb sync RUN/wandb/offline-run-*` sends a run,
and mlflow talks to a server only if the user has set its tracking URI. Each continues
its own record of a run that is resumed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from trivox.files import write_text
from trivox.optional import optional_package


class Tracker(Protocol):
    """Where figures go besides `metrics.jsonl`."""

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a step."""

    def close(self) -> None:
        """Finish all files."""


def open_trackers(
    names: Sequence[str], folder: Path, *, project: str, settings: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers of a run in `folder`; `settings` is the recipe.

    Raises `ResourceError` for a missing package.
    """
    kinds: dict[str, Callable[..., Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": Wandb,
        "mlflow": MLflow,
    }
    return [kinds[name](folder, project, settings) for name in names]


class TensorBoard:
    """Event files in `tensorboard/`; look at them with `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        self.writer: Any = optional_package(
            "torch.utils.tensorboard", extra="track"
        ).SummaryWriter(str(folder / "tensorboard"))

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a step."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self.writer.close()


class Wandb:
    """Weights & Biases in offline mode: files in `wandb/`."""

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        wandb: Any = optional_package("wandb", extra="track")
        self.run = wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            mode="offline",
            config=dict(settings),
            id=_identity(folder / "wandb" / "id.txt"),
            resume="allow",
        )

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a step."""
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        """Finish the run's files."""
        self.run.finish()


class MLflow:
    """MLflow: a database in `mlflow/`, or the server whose tracking URI the user has
    set.
    """

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        mlflow: Any = optional_package("mlflow", extra="track")
        optional_package("sqlalchemy", extra="track")
        home = folder.resolve() / "mlflow"
        home.mkdir(exist_ok=True)
        local = (
            None if mlflow.is_tracking_uri_set() else f"sqlite:///{home / 'mlflow.db'}"
        )
        self.client = mlflow.MlflowClient(tracking_uri=local)
        self.run = self._run(home, project, folder.name, settings)

    def _run(
        self, home: Path, project: str, name: str, settings: Mapping[str, Any]
    ) -> str:
        """The id of this run, kept in a file; a new run takes the recipe as its
        parameters.
        """
        file = home / "id.txt"
        if file.exists():
            run = file.read_text(encoding="ascii")
            self.client.update_run(run, status="RUNNING")
            return run
        experiment = self.client.get_experiment_by_name(project)
        if experiment:
            number = experiment.experiment_id
        else:
            number = self.client.create_experiment(project, str(home))
        run = str(self.client.create_run(number, run_name=name).info.run_id)
        for key, value in settings.items():
            self.client.log_param(run, key, value)
        write_text(file, run)
        return run

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a step."""
        for name, value in figures.items():
            self.client.log_metric(
                self.run, re.sub(r"[^\w\-. :/]", "_", name), value, step=step
            )

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run)


def _identity(file: Path) -> str:
    """The run's own id: drawn once, then read."""
    if not file.exists():
        write_text(file, token_hex(8))
    return file.read_text(encoding="ascii")
