"""Cases, and the dataset that says what they mean."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trivox.datasets.labels import LabelScheme
from trivox.datasets.names import complaint_of, safe_name, usable_name
from trivox.errors import DataError, FormatError
from trivox.schema import Frozen
from trivox.volumes.choice import NO_CHOICE, SeriesChoice

NOTE = "NOTE.txt"
"""A file beside the data with what every report on them has to say: that they are
drawn, for example.
"""


Word = Literal["train", "validation", "test"]
SIDES: dict[Word, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""What people call the sides of a split, in small letters."""


def side_of(content: Any) -> Any:
    """The side that a word means, in any case; what is none stays as it is."""
    word = str(content).strip().lower()
    return next((side for side, words in SIDES.items() if word in words), content)


Side = Annotated[Word, BeforeValidator(side_of)]


class Case(Frozen):
    """One patient or exam: an image file for each channel (or one file that holds all
    channels) and, if known, its label map.

    patient: cases of one patient never fall on both sides of a split; defaults to the
    case's own name. absent: indices of channels without a file; `images` holds the
    others, in order. labels: how label maps of this case are written, where that
    differs from the dataset. class_name: the class of the case, one of the dataset's
    `classes`, None if not known. geometry, volume: of X-ray views, whose one image file
    holds them all: where they were taken, and the CT, if known. clinical: what a table
    says of it beside, by column. split: cases to train
    on, those of a declared validation split, or of a test set that no training sees.
    taught: whether a trained model answers for it, so that it teaches without a label.
    order: which of the channels in its files are meant, in which order; none: all of
    them, as they come. choice: how DICOM images are read. complaint: why the case cannot
    be used, and what to do; whatever reads cases sets it aside.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    patient: str = ""
    split: Side = "train"
    taught: bool = False
    absent: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    choice: SeriesChoice = NO_CHOICE
    complaint: str = ""
    labels: LabelScheme | None = None
    class_name: str | None = None
    geometry: Path | None = None
    volume: Path | None = None
    clinical: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _patient_defaults_to_name(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("patient"):
            return data
        return {**data, "patient": data.get("name")}

    @field_validator("name")
    @classmethod
    def _names_files(cls, name: str) -> str:
        try:
            return usable_name(name)
        except ValueError as error:
            raise FormatError(f"the name of a case, {error}; rename it") from error

    def with_complaint(self, complaint: str) -> "Case":
        """The same case, which cannot be used."""
        return self.model_copy(update={"complaint": complaint})

    def read_by(self, choice: SeriesChoice) -> "Case":
        """The same case, whose DICOM images are read by a choice, if there is one."""
        if choice == NO_CHOICE:
            return self
        return self.model_copy(update={"choice": choice})

    def require_usable(self) -> None:
        """Raise `DataError` with the complaint, if there is one."""
        if self.complaint:
            raise DataError(f"{self.name}: {self.complaint}")

    @property
    def is_exam(self) -> bool:
        """Whether its image holds X-ray views, so that their geometry is known."""
        return self.geometry is not None


def listed_case(name: str, *, images: tuple[Path, ...], **content: Any) -> Case:
    """A case that was found under the name of its files; one whose name cannot be that
    of files of ours has a complaint.
    """
    complaint = complaint_of(name)
    if not complaint:
        return Case(name=name, images=images, **content)
    why = f"the name {name[:60]!a} {complaint}, since files are named after it; rename"
    return Case(name=safe_name(name), images=(), complaint=f"{why} the case")


class Fold(Frozen):
    """Names of the cases that a dataset declares to train and to validate on."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


class Dataset(Frozen):
    """Cases and what they mean.

    Paths are absolute; `labels` is None for images to predict or to pretrain on.

    task: what is learnt from the dataset; written by the task into a run's
    `dataset.json`, None as read from a layout. classes: names of the classes that cases
    may belong to, in the order of the classifier's outputs; none: no classes. note:
    what every report on the data has to say, from `NOTE` in the dataset's folder.
    folds: those that are declared, and in `folds_from` where; none: they are made.
    remarks: what the dataset declares and is not as it says, each `what; what to do`.
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
    folds: tuple[Fold, ...] = ()
    folds_from: str = ""
    remarks: tuple[str, ...] = ()
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

    def read_by(self, choice: SeriesChoice) -> "Dataset":
        """The same dataset, whose DICOM images are read by a choice, if there is one."""
        cases = tuple(case.read_by(choice) for case in self.cases)
        return self.model_copy(update={"cases": cases})

    @property
    def holds_exams(self) -> bool:
        """Whether its cases are exams: X-ray views, from which volumes are learnt."""
        return any(case.is_exam for case in self.cases)

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """Cases outside a declared test set that can be used and that there is something
        to learn from: a label map, a class, answers of a model; a volume, of exams.

        All of them where other images than exams have no labels.
        """
        usable = (case for case in self.cases if not case.complaint)
        cases = [case for case in usable if case.split != "test"]
        if self.holds_exams:
            return tuple(case for case in cases if case.volume is not None)
        if self.labels is None:
            return tuple(cases)
        return tuple(
            case
            for case in cases
            if case.taught or case.label is not None or case.class_name is not None
        )
