"""Answers about data: import, check, plan, preprocess, drr, deidentify."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field

from trivox.datasets.checks.findings import CheckFile
from trivox.planning.cost import ForecastFile
from trivox.planning.plan import Plan
from trivox.planning.volumes import VolumePlan
from trivox.privacy.folder import DeidentifiedFile
from trivox.verbs.answers.base import Answer, Count, Counted, Part, Place


class ImportBratsAnswer(Answer):
    """What `trivox import brats` brought in."""

    folder: Place
    """Of the dataset."""
    cases: Count
    families: tuple[str, ...]
    """Of BraTS that the cases are from."""
    held_out: Count
    """Cases that no training sees."""
    unlabelled: Count
    """Cases without a label map."""
    incomplete: Count
    """Cases that lack a sequence."""


class ImportClassFoldersAnswer(Answer):
    """What `trivox import class-folders` brought in."""

    folder: Place
    """Of the dataset."""
    cases: Count
    classes: dict[str, int]
    """Cases of each class."""
    folds: Count
    """1 if the source declares a validation split."""
    validation: Count
    """Cases to validate on, of the only fold."""
    test: Count
    """Cases that no training sees."""
    unlabelled: Count
    """Cases without a mask."""
    masks_alone: Count
    """Masks without image, which are left out."""


class CheckedDataset(Part):
    """A dataset in short."""

    name: str
    root: Place
    layout: str
    cases: Counted
    """All that there are."""
    training_cases: Counted
    """To train on."""
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    """That cases may belong to; none: no classes."""


class CheckAnswer(Answer):
    """What `trivox check` found. It fails where something would make training wrong, and
    its findings say what.
    """

    dataset: CheckedDataset
    class_counts: dict[str, int]
    """Cases of each class; `not known`: without one."""
    is_ready: bool
    """Whether training can begin."""
    file: Place | None
    """Where the findings were written to, null without --out."""
    page: Place | None
    """Of pictures of labels that are probably wrong, null without --page."""
    report: CheckFile = Field(validation_alias=AliasPath("report", "content"))
    """What that file says."""


class Decision(Part):
    """One decision of a plan, for people."""

    what: str
    decision: str
    why: str


def _decisions(rows: Sequence[Any]) -> list[Any]:
    """Rows of three texts by name."""
    names = ("what", "decision", "why")
    return [dict(zip(names, row, strict=True)) for row in rows]


class CostRow(Part):
    """One quantity that training takes, for people."""

    what: str
    forecast: str


class PlanAnswer(Answer):
    """What `trivox plan` decided."""

    dataset: str
    file: Place
    """The plan.json that was written."""
    fingerprint: Place | None
    """What was measured, beside it; null where nothing had to be."""
    plan: Plan | VolumePlan
    """What plan.json says."""
    decisions: Annotated[tuple[Decision, ...], BeforeValidator(_decisions)]
    warnings: tuple[str, ...]
    cost: ForecastFile | None
    """What its forecast.json says; null without --cost."""
    cost_rows: tuple[CostRow, ...]
    """The forecast in words."""
    cost_notes: tuple[str, ...]
    """How it is known."""


class PreprocessAnswer(Answer):
    """What `trivox preprocess` made ready."""

    folder: Place
    """For `trivox train --prepared`."""
    cases: tuple[str, ...]
    """Names of the cases in it."""


class DrrAnswer(Answer):
    """What `trivox drr` rendered. It fails where a CT could not be rendered."""

    folder: Place
    """Of the dataset."""
    exams: tuple[Place, ...]
    """Folders that were written."""
    views: Count
    """Of each exam."""
    failed: tuple[str, ...]
    """A line for each CT that could not be rendered."""


class DeidentifyAnswer(Answer):
    """What `trivox deidentify` did; nothing of a source. It fails where a file cannot be
    read.
    """

    folder: Place
    """That can be handed on."""
    report: DeidentifiedFile
    """What its deidentified.json says."""
