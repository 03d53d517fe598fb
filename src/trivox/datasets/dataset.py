"""Cases, and the dataset that says what they mean."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from trivox.datasets.labels import LabelScheme
from trivox.datasets.names import usable_name
from trivox.errors import FormatError
from trivox.schema import Frozen

NOTE = "NOTE.txt"
"""A file beside the data with what every report on them has to say: that they are
drawn, for example.
"""


class Case(Frozen):
    """One patient or exam: an image file for each channel (or one file that holds all
    channels) and, if known, its label map.

    patient: cases of one patient never fall on both sides of a split; defaults to the
    case's own name. absent: indices of channels without a file; `images` holds the
    others, in order. labels: how label maps of this case are written, where that
    differs from the dataset. class_name: the class of the case, one of the dataset's
    `classes`, None if not known. geometry, volume: of X-ray views, whose one image file
    holds them all: where they were taken, and the CT, if known. split: cases to train
    on, those of a declared validation split, or of a test set that no training sees.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    patient: str = ""
    split: Literal["train", "validation", "test"] = "train"
    absent: tuple[int, ...] = ()
    labels: LabelScheme | None = None
    class_name: str | None = None
    geometry: Path | None = None
    volume: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _patient_defaults_to_name(cls, data: dict[str, object]) -> dict[str, object]:
        return data if data.get("patient") else {**data, "patient": data.get("name")}

    @field_validator("name")
    @classmethod
    def _names_files(cls, name: str) -> str:
        try:
            return usable_name(name)
        except ValueError as error:
            raise FormatError(f"the name of a case, {error}; rename it") from error

    @property
    def is_exam(self) -> bool:
        """Whether its image holds X-ray views, so that their geometry is known."""
        return self.geometry is not None


class Dataset(Frozen):
    """Cases and what they mean.

    Paths are absolute; `labels` is None for images to predict or to pretrain on.

    task: what is learnt from the dataset; written by the task into a run's
    `dataset.json`, None as read from a layout. classes: names of the classes that cases
    may belong to, in the order of the classifier's outputs; none: no classes. note:
    what every report on the data has to say, from `NOTE` in the dataset's folder.
    """

    format_version: Literal[1] = 1
    name: str
    root: Path
    layout: str
    task: str | None = None
    channels: tuple[str, ...]
    labels: LabelScheme | None = None
    classes: tuple[str, ...] = ()
    note: str = ""
    cases: tuple[Case, ...]

    @model_validator(mode="after")
    def _classes_are_known(self) -> "Dataset":
        known = (None, *self.classes)
        for case in self.cases:
            if case.class_name not in known:
                raise ValueError(
                    f"{case.name}: class '{case.class_name}' is none of "
                    f"{', '.join(self.classes) or 'none'}"
                )
        return self

    @property
    def holds_exams(self) -> bool:
        """Whether its cases are exams: X-ray views, from which volumes are learnt."""
        return any(case.is_exam for case in self.cases)

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """Cases outside a declared test set that there is something to learn from: a
        label map or a class; a volume, of exams.

        All of them where other images than exams have no labels.
        """
        cases = [case for case in self.cases if case.split != "test"]
        if self.holds_exams:
            return tuple(case for case in cases if case.volume is not None)
        if self.labels is None:
            return tuple(cases)
        return tuple(
            case
            for case in cases
            if case.label is not None or case.class_name is not None
        )
