"""Cases, and the dataset that says what they mean."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from trivox.datasets.labels import LabelScheme

Task = Literal["segmentation", "multitask", "reconstruction"]


class Case(BaseModel):
    """One exam: an image file for each channel (or one file that holds all channels) and, if known, its label map.

    patient: cases of one patient never fall on both sides of a split; defaults to the case's own name. absent: indices of
    channels without a file; `images` holds the others, in order. labels: how label maps of this case are written, where
    that differs from the dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    patient: str = ""
    split: Literal["train", "test"] = "train"
    absent: tuple[int, ...] = ()
    labels: LabelScheme | None = None

    @model_validator(mode="before")
    @classmethod
    def _patient_defaults_to_name(cls, data: dict[str, object]) -> dict[str, object]:
        return data if data.get("patient") else {**data, "patient": data.get("name")}


class Dataset(BaseModel):
    """Cases and what they mean. Paths are absolute; `labels` is None for images to predict or to pretrain on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: Path
    layout: str
    task: Task = "segmentation"
    channels: tuple[str, ...]
    labels: LabelScheme | None = None
    cases: tuple[Case, ...]

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """Cases that do not belong to a declared test set, and have a label map where the dataset has labels."""
        unlabelled = self.labels is None
        return tuple(case for case in self.cases if case.split == "train" and (unlabelled or case.label is not None))
