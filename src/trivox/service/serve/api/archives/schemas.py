"""What is asked of archives, and what clients are told of them."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from trivox.schema import Frozen
from trivox.service.serve.work.references import UID

Word = Annotated[
    str, StringConstraints(max_length=64, pattern=r"^[^\\\x00-\x1f\x7f]*$")
]
"""What must match; * and ? stand for any letters and any letter."""


class ArchiveList(BaseModel):
    """Names of the archives that may be searched."""

    archives: list[str]


class StudyQuery(Frozen):
    """Which studies are looked for; blank: any. dates: a day as 20260131 or a range as
    20260101-20260131.
    """

    patient_id: Word = ""
    patient_name: Word = ""
    dates: str = Field("", pattern=r"^(\d{8})?(-(\d{8})?)?$")
    modality: Word = ""
    description: Word = ""
    accession: Word = ""


class SeriesQuery(Frozen):
    """Whose series are looked for."""

    study: str = Field(pattern=rf"^{UID}$", max_length=64)


class StudyView(BaseModel):
    """A study, as far as the archive says."""

    study: str
    date: str
    modalities: str
    patient_id: str
    patient_name: str
    description: str
    objects: int | None


class StudyList(BaseModel):
    """Studies that match; more: whether there are others."""

    studies: list[StudyView]
    more: bool


class SeriesView(BaseModel):
    """A series; reference: what a job names it by."""

    reference: str
    modality: str
    number: str
    description: str
    objects: int | None


class SeriesList(BaseModel):
    """The series of a study; more: whether there are others."""

    series: list[SeriesView]
    more: bool
