"""Answers about models: train, distill, pretrain, demo, import nnunet, info, models,
export, package.
"""

from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field

from trivox.exporting.card import ExportCard
from trivox.exporting.contract import Contract
from trivox.inference.zoo.card import Card
from trivox.planning.cost import CostFile
from trivox.schema import JsonObject
from trivox.tasks.pretraining import PretrainingFile
from trivox.verbs.answers.base import Answer, Count, Part, Place, reasons_of
from trivox.verbs.answers.measures import MeasuredAnswer


def _if_any(text: Any) -> Any:
    """None where nothing is said."""
    return text or None


Maybe = Annotated[str | None, BeforeValidator(_if_any)]


class TrainedFold(Part):
    """How the training of one fold went."""

    fold: Count
    folder: Place
    """Its checkpoints and metrics.jsonl."""
    epochs: Count
    """That it was trained for."""
    best_epoch: Count
    """With the best smoothed score on the validation cases; 0: none was measured."""
    best: float | None
    """That score."""
    seconds: float
    """Of training."""


class SetAside(Part):
    """A case that was left out, and why."""

    case: str
    reason: str


class TrainAnswer(MeasuredAnswer):
    """What `trivox train` and `trivox distill` made, measured on held-out cases."""

    folder: Place
    """The run."""
    bundle: Place
    """The model, for `trivox predict`."""
    report: Place
    """The page."""
    folds: tuple[TrainedFold, ...]
    set_aside: Annotated[tuple[SetAside, ...], reasons_of("case")]
    """Cases that were left out."""
    cost: CostFile | None
    """What its cost.json says."""


class DemoAnswer(MeasuredAnswer):
    """What `trivox demo` measured on cases that its training never saw."""

    run: TrainAnswer


class PretrainAnswer(Answer):
    """What `trivox pretrain` learnt."""

    folder: Place
    weights: Place
    """What `trivox train --pretrained` takes."""
    report: PretrainingFile = Field(validation_alias=AliasPath("facts"))
    """What its pretraining.json says."""


class ImportNnunetAnswer(Answer):
    """What `trivox import nnunet` brought in."""

    folder: Place
    """Of the bundle."""
    identity: str
    """Of the model: predictions name it."""
    task: str | None = Field(None, validation_alias=AliasPath("description", "task"))
    dataset: str = Field(validation_alias=AliasPath("description", "plan", "dataset"))
    network: str = Field(validation_alias=AliasPath("description", "plan", "network"))
    channels: tuple[str, ...] = Field(
        validation_alias=AliasPath("description", "plan", "channels")
    )
    labels: dict[str, int] = Field(
        validation_alias=AliasPath("description", "plan", "labels", "labels")
    )
    """Name -> value in the label maps."""
    folds: dict[str, str] = Field(
        validation_alias=AliasPath("description", "training", "checkpoints")
    )
    """Fold -> the checkpoint that was taken."""
    notes: tuple[str, ...] = Field(
        validation_alias=AliasPath("description", "training", "notes")
    )
    """What is done in another way than by nnU-Net."""


class InfoAnswer(Answer):
    """What `trivox info` knows of a model or a network; null where it does not apply."""

    network: str
    parameters: Count
    """Trainable."""
    gflop: float
    """Of one forward pass."""
    saved_activation_gib: float
    """Kept for the backward pass."""
    convention: str
    """How these are counted."""
    input: tuple[int, ...] | None = None
    """Channels and voxels (z, y, x) of a network that is no model."""
    grid: tuple[int, ...] | None = None
    """Voxels (z, y, x) of the volume that a network of X-rays gives."""
    views: Count | None = None
    detector: tuple[int, ...] | None = None
    """Pixels (rows, columns)."""
    bundle: Place | None = None
    """Folder of a model."""
    identity: str | None = None
    notice: str | None = None
    dataset: str | None = None
    """That the model learnt from."""
    channels: tuple[str, ...] | None = None
    labels: dict[str, int] | None = None
    """Name -> value in the label maps."""
    classes: tuple[str, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    """(z, y, x)"""
    patch_size: tuple[int, ...] | None = None
    """Voxels (z, y, x)."""
    window_hu: tuple[float, float] | None = None
    """Of the volumes."""
    trained_views: tuple[int, ...] | None = None
    folds: tuple[str, ...] | None = None
    card: Card | None = None
    """Of a model that is given to others."""
    cost: JsonObject | None = None
    """What preparing and training it has cost."""


class ReadyModelAnswer(Part):
    """A model that has a name."""

    name: str
    folder: Place | None
    """Of its bundle; null: not here yet."""
    task: Maybe
    inputs: tuple[str, ...]
    """What goes in, in words."""
    outputs: tuple[str, ...]
    """What comes out."""
    bytes: Count
    """Of its weights."""
    identity: Maybe
    card: Card | None
    trouble: Maybe
    """Why it cannot be used; null where it can."""


class ModelsAnswer(Answer):
    """What `trivox models` lists, and which models `trivox models fetch` brought here."""

    models: tuple[ReadyModelAnswer, ...]


class ExportAnswer(Answer):
    """What `trivox export` wrote, after it was tried."""

    task: str | None = Field(None, validation_alias=AliasPath("card", "task"))
    folder: Place
    card: ExportCard
    """What its export.json says; `verified` there: how the export compares."""


class PackageAnswer(Answer):
    """What `trivox package` wrote: the build context of a container."""

    task: str | None = Field(None, validation_alias=AliasPath("contract", "task"))
    folder: Place
    contract: Contract
    """What its contract.json says."""
