"""Cases, and the dataset that says what they mean."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from trivox.datasets.labels import LabelScheme

NOTE = "NOTE.txt"
"""A file beside the data with what every report on them has to say: that they are
drawn, for example.
"""

Task = Literal["segmentation", "multitask", "reconstruction"]


class Case(BaseModel):
    """One exam: an image file for each channel (or one file that holds all channels)
    and, if known, its label map.

    patient: cases of one patient never fall on both sides of a split; defaults to the
    case's own name. absent: indices of channels without a file; `images` holds the
    others, in order. labels: how label maps of this case are written, where that
    differs from the dataset. class_name: the class of the case, one of the dataset's
    `classes`, None if not known. geometry, volume: of X-ray views, whose one image file
    holds them all: where they were taken, and the CT, if known. split: cases to train
    on, those of a declared validation split, or of a test set that no training sees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class Dataset(BaseModel):
    """Cases and what they mean.

    Paths are absolute; `labels` is None for images to predict or to pretrain on.

    classes: names of the classes that cases may belong to, in the order of the
    classifier's outputs; none: no classes. note: what every report on the data has to
    say, from `NOTE` in the dataset's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: Path
    layout: str
    task: Task = "segmentation"
    channels: tuple[str, ...]
    labels: LabelScheme | None = None
    classes: tuple[str, ...] = ()
    note: str = ""
    cases: tuple[Case, ...]

    @model_validator(mode="after")
    def _classes_are_known(self) -> "Dataset":
        strange = next(
            (
                case
                for case in self.cases
                if case.class_name not in (None, *self.classes)
            ),
            None,
        )
        if strange is not None:
            raise ValueError(
                f"{strange.name}: class '{strange.class_name}' is none of {', '.join(self.classes) or 'none'}"
            )
        return self

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """Cases outside a declared test set that there is something to learn from: a
        label map, a class, or a volume.

        All of them where the dataset has no labels.
        """
        if self.task == "reconstruction":
            return tuple(
                case
                for case in self.cases
                if case.split != "test" and case.volume is not None
            )
        unlabelled = self.labels is None
        return tuple(
            case
            for case in self.cases
            if case.split != "test"
            and (unlabelled or case.label is not None or case.class_name is not None)
        )
