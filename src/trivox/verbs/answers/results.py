"""Answers about results: predict, rank, report, explain."""

from typing import Annotated, Any, NotRequired

from pydantic import AliasPath, ConfigDict, Field
from typing_extensions import TypedDict

from trivox.evaluation.folders.ranking import RankingFile
from trivox.inference.detection.pair import DetectionRecord
from trivox.inference.doubt.flags import ScoreName
from trivox.inference.judge import SensitiveTarget, TargetVolume
from trivox.sources import Source
from trivox.tasks.labels.explanation import ExplainFile
from trivox.verbs.answers.base import AS_WRITTEN, Answer, Count, Part, Place


class ClassRecord(TypedDict):
    """The class of a case."""

    answer: str
    probabilities: dict[str, float]
    flags: list[str]


_CaseRecord = TypedDict("_CaseRecord", {"class": ClassRecord}, total=False)


class CaseRecord(_CaseRecord, total=False):
    """What predictions.json says of a case, as far as it is known; tasks and options add
    more.

    sources: what the inputs were; output: name of the prediction; error: why there is
    none; written: what the files were when they were written, by name; for the rest see
    `trivox.inference.judge.Judgement`.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    inputs: list[str]
    sources: list[Source]
    output: str
    seconds: float
    warnings: list[str]
    error: str
    volumes: dict[str, TargetVolume]
    votes: int
    agreement: float | None
    abstain: bool
    score: float | None
    flag: ScoreName
    unlike: list[str]
    reason: str | None
    sensitive: dict[str, SensitiveTarget]
    formats: dict[str, dict[str, Any]]
    detection: DetectionRecord
    written: dict[str, Source]


class PredictionsFile(TypedDict):
    """What predictions.json says; tasks and options add more.

    model: its identity; labels: name -> value in the maps; files: name -> case, blank:
    of all cases; cases: their records.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    task: NotRequired[str]
    format_version: int
    model: str
    labels: NotRequired[dict[str, int]]
    files: dict[str, str]
    cases: dict[str, CaseRecord]


class PredictedCase(Part):
    """What became of a case."""

    name: str
    is_done: bool
    """Whether there is a prediction; else `error` in the record says why not."""
    files: tuple[Place, ...]
    """That were written about it, the prediction first."""
    record: Annotated[CaseRecord, AS_WRITTEN]
    """What predictions.json says of it."""


class PredictAnswer(Answer):
    """What `trivox predict` made. It fails where a case was set aside."""

    folder: Place
    file: Place
    """The predictions.json in it."""
    results: str
    """What the cases are called."""
    done: Count
    """Cases that are predicted."""
    failed: tuple[str, ...]
    """Names of the cases that were set aside."""
    seconds: float
    """All cases together."""
    classes: tuple[str, ...]
    """That cases may belong to, if the model gives one; they stand in classes.csv."""
    note: str
    """What has to be said of all results; blank: nothing."""
    cases: tuple[PredictedCase, ...]


class RankAnswer(Answer):
    """How `trivox rank` ranked."""

    task: str | None = Field(None, validation_alias=AliasPath("content", "task"))
    file: Place
    """The ranking.json."""
    ranking: Annotated[RankingFile, AS_WRITTEN] = Field(
        validation_alias=AliasPath("content")
    )
    """What it says."""


class ReportAnswer(Answer):
    """What `trivox report` wrote."""

    file: Place
    """The page."""


class ExplainAnswer(Answer):
    """What `trivox explain` drew."""

    task: str | None = Field(None, validation_alias=AliasPath("facts", "task"))
    folder: Place
    files: tuple[Place, ...]
    """Figures and numbers."""
    explanation: Annotated[ExplainFile, AS_WRITTEN] = Field(
        validation_alias=AliasPath("facts")
    )
    """What explain.json says."""
