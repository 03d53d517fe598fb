"""What the service says of models and jobs. Fields that are not known are left out: a
later service may say more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trivox_client.errors import ServerFailed

ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Failure:
    """Why a job failed."""

    code: str
    detail: str


@dataclass(frozen=True)
class Model:
    """labels: name -> value in the label maps; channels: images that it reads, in order;
    formats: of the results that may be asked for.
    """

    name: str
    task: str
    labels: Mapping[str, int]
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    formats: tuple[str, ...]
    version: str
    identity: str


@dataclass(frozen=True)
class Job:
    """state: queued, running, done, failed or cancelled; progress: 0 to 1; results:
    names, the image of the case first; eta_seconds: until it is done, if that is known.
    """

    id: str
    state: str
    stage: str = "queued"
    progress: float = 0.0
    results: tuple[str, ...] = ()
    model: str = ""
    eta_seconds: float | None = None
    expired: bool = False
    error: Failure | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


def model_of(content: Any) -> Model:
    """A model; raises `ServerFailed` for something else."""
    try:
        return Model(
            name=content["name"],
            task=content["task"],
            labels=dict(content["labels"]),
            channels=tuple(content["channels"]),
            classes=tuple(content["classes"]),
            formats=tuple(content["formats"]),
            version=content["version"],
            identity=content["identity"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _strange("model") from error


def job_of(content: Any) -> Job:
    """A job; raises `ServerFailed` for something else."""
    try:
        failure = content.get("error")
        eta = content.get("eta_seconds")
        return Job(
            id=str(content["id"]),
            state=str(content["state"]),
            stage=str(content.get("stage", "queued")),
            progress=float(content.get("progress", 0.0)),
            results=tuple(map(str, content.get("results", ()))),
            model=str(content.get("model", "")),
            eta_seconds=None if eta is None else float(eta),
            expired=bool(content.get("expired", False)),
            error=None if failure is None else _failure(failure),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange("job") from error


def _failure(content: Mapping[str, Any]) -> Failure:
    return Failure(code=str(content["code"]), detail=str(content["detail"]))


def _strange(what: str) -> ServerFailed:
    return ServerFailed(f"the answer is no {what}; is this a trivox service?")
