"""Answers about figures: evaluate, verify."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AliasPath, Field

from trivox.evaluation.metrics.class_content import ClassSummary
from trivox.evaluation.metrics.content import SummaryRow
from trivox.verbs.answers.base import AS_WRITTEN, Answer, Count, Counted, Place


class MeasuredAnswer(Answer):
    """What was measured, in short."""

    task: str | None = Field(None, validation_alias=AliasPath("metrics", "task"))
    file: Place
    """The metrics.json that holds all of it."""
    headline: str
    """The most important figures in one line."""
    convention: str | None = Field(
        None, validation_alias=AliasPath("metrics", "convention", "name")
    )
    """Name of the rules that were measured by; null where there is only one way."""
    cases: Counted = Field(validation_alias=AliasPath("metrics", "cases"))
    """That were measured."""
    summary: Annotated[Mapping[str, SummaryRow], AS_WRITTEN] = Field(
        validation_alias=AliasPath("metrics", "summary")
    )
    """Statistics over cases by label and metric, as in the file."""
    classes: Annotated[ClassSummary | None, AS_WRITTEN] = Field(
        None, validation_alias=AliasPath("metrics", "classification", "summary")
    )
    """Scores of the classes, as in the file; null if none were measured."""
    warnings: tuple[str, ...]
    """What a reader of the figures has to know."""


class EvaluateAnswer(MeasuredAnswer):
    """What `trivox evaluate` measured."""


class VerifyAnswer(Answer):
    """What `trivox verify` compared. It fails where something does not agree."""

    source: Place
    """The run or metrics.json."""
    numbers: Count
    """That were measured again."""
    cases: Count
    """That were predicted again."""
    disagreements: tuple[str, ...]
    """A line each: what does not follow from the files."""
    unchecked: tuple[str, ...]
    """A line each: what could not be looked at, and why."""
