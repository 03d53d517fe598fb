"""What the API answers with: the same fields in the documentation and on the wire."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from trivox.inference.zoo.card import Card
from trivox.service.serve.api.problems import MEDIA_TYPE as PROBLEM
from trivox.service.serve.jobs.states import Job, Stage, State

ID = r"^[0-9a-f]{32}$"


class Accepted(BaseModel):
    """A job that was queued."""

    id: str
    state: State


class Failed(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class JobView(BaseModel):
    """A job as its client sees it.

    progress: 0 to 1; results: names, the image of the case first; eta_seconds: until it
    is done, by what jobs of the model took before; expired: whether the results are kept
    no longer; tries: that ended with a crash.
    """

    id: str
    state: State
    stage: Stage
    progress: float = Field(ge=0, le=1)
    results: list[str]
    model: str
    format: str | None
    created: str
    started: str | None
    ended: str | None
    eta_seconds: float | None
    tries: int
    expired: bool
    error: Failed | None


class JobList(BaseModel):
    """The newest jobs of a client."""

    jobs: list[JobView]


class ModelView(BaseModel):
    """A model that is served.

    labels: name -> value in the label maps; channels: images that it reads, in order;
    formats: of the results that may be asked for; background: value in the label maps;
    sha256: of each file of weights; class_temperature: by which the probabilities of
    classes are calibrated, None where it is not known.
    """

    name: str
    task: str
    labels: dict[str, int]
    channels: list[str]
    classes: list[str]
    formats: list[str]
    version: str
    identity: str
    sha256: dict[str, str]
    card: Card | None
    background: int = 0
    class_temperature: float | None = None


class ModelList(BaseModel):
    """All models that are served."""

    models: list[ModelView]


class Health(BaseModel):
    """That the server works. version: of trivox."""

    status: str
    version: str
    workers: int


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str


def view_of(job: Job, eta: float | None) -> JobView:
    """A job as its client sees it."""
    error = None
    if job.code is not None:
        error = Failed(code=job.code, detail=job.detail or "")
    return JobView(
        id=job.id,
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        results=[each.name for each in job.results],
        model=job.model,
        format=job.format,
        created=moment(job.created) or "",
        started=moment(job.started),
        ended=moment(job.ended),
        eta_seconds=None if eta is None else round(eta, 1),
        tries=job.tries,
        expired=job.expired,
        error=error,
    )


def moment(seconds: float | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer with, beside those of every one."""
    each = {
        "model": Problem,
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    usual = (400, 401, 403, 426)
    return {
        status: {**each, "description": "problem"} for status in (*usual, *statuses)
    }
