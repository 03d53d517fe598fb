"""A bundle: the folder that inference needs.

JSON and safetensors, nothing that executes.

    bundle.json                 format version, plan, settings of inference, training
                                summary, sha256 of each weights file
    weights-fold0.safetensors   and so on, one a fold
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivox.errors import BundleError
from trivox.files import atomic_path, read_json, write_json
from trivox.inference.doubt.calibration import Abstention
from trivox.inference.rules.postprocess import Postprocessing
from trivox.planning.plan import Plan
from trivox.version import __version__

FORMAT_VERSION = 1
PRETRAINED = "pretrained.safetensors"
"""What `trivox pretrain` leaves: weights to start from, no bundle."""


class Weights(BaseModel):
    """One trained network of the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.safetensors$")
    fold: str
    sha256: str


class ClassAnswers(BaseModel):
    """How the class of a case is answered.

    lesion: label indices that it is decided by; width: features of the head.

    classifiers: one for each weights file, that answers in place of the head; none: the
    heads answer, with their logits divided by `temperature`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...] = Field(min_length=2)
    lesion: tuple[int, ...] = Field(min_length=1)
    width: int = Field(ge=1)
    temperature: float = Field(1.0, gt=0)
    classifiers: tuple[Weights, ...] = ()


class BundleDescription(BaseModel):
    """Content of `bundle.json`.

    temperature: probabilities are those of logits divided by it; abstention: when to
    flag; classification: of models that also give a class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    trivox_version: str = __version__
    notice: str = "Research use only, not a medical device."
    task: str
    plan: Plan
    overlap: float = Field(0.5, ge=0, lt=1)
    mirror_axes: tuple[Literal["z", "y", "x"], ...] = ()
    postprocessing: Postprocessing = Postprocessing()
    temperature: float = Field(1.0, gt=0)
    abstention: Abstention | None = None
    classification: ClassAnswers | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    weights: tuple[Weights, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    folder: Path
    description: BundleDescription

    @property
    def identity(self) -> str:
        """A short hash over the weights: predictions name the model that made them."""
        joined = "".join(
            w.sha256 for w in (*self.description.weights, *self._classifiers)
        )
        return hashlib.sha256(joined.encode()).hexdigest()[:12]

    def weight_files(self) -> list[Path]:
        """Paths of the weights after comparing their checksums; raises `BundleError`
        for a damaged one.
        """
        return checked_files(self.folder, self.description.weights)

    def classifier_files(self) -> list[Path]:
        """Paths of the classifiers, likewise; none where the heads answer."""
        return checked_files(self.folder, self._classifiers)

    @property
    def _classifiers(self) -> tuple[Weights, ...]:
        answers = self.description.classification
        return () if answers is None else answers.classifiers


def checked_files(folder: Path, listed: Sequence[Weights]) -> list[Path]:
    """Paths of the listed files of a bundle after comparing their checksums; raises
    `BundleError` for a damaged one.
    """
    files = []
    for weights in listed:
        path = folder / weights.file
        if not path.exists():
            raise BundleError(
                f"{path}: weights are missing; copy the whole bundle folder"
            )
        if file_hash(path) != weights.sha256:
            raise BundleError(
                f"{path}: checksum differs from bundle.json; the file is damaged or was exchanged"
            )
        files.append(path)
    return files


def write_bundle(
    folder: Path,
    *,
    plan: Plan,
    weights: Mapping[str, Path],
    overlap: float,
    mirror_axes: Sequence[str],
    postprocessing: Postprocessing,
    training: Mapping[str, Any],
    temperature: float = 1.0,
    abstention: Abstention | None = None,
    classification: ClassAnswers | None = None,
    classifiers: Mapping[str, Path] | None = None,
) -> Bundle:
    """Copy the weights and classifiers (fold name -> safetensors file) and write
    `bundle.json` last.
    """
    entries = copy_weights(folder, "weights", weights)
    if classification is not None:
        own = copy_weights(folder, "classifier", classifiers or {})
        classification = classification.model_copy(update={"classifiers": tuple(own)})
    description = BundleDescription(
        task=plan.task,
        plan=plan,
        overlap=overlap,
        mirror_axes=tuple(mirror_axes),
        postprocessing=postprocessing,
        temperature=temperature,
        abstention=abstention,
        training=dict(training),
        classification=classification,
        weights=tuple(entries),
    )
    write_json(folder / "bundle.json", description.model_dump(mode="json"))
    return Bundle(folder, description)


def copy_weights(folder: Path, what: str, files: Mapping[str, Path]) -> list[Weights]:
    """Copy files (fold name -> safetensors file) into a bundle, with their checksums."""
    entries = []
    for fold, source in files.items():
        name = f"{what}-fold{fold}.safetensors"
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(source.read_bytes())
        entries.append(Weights(file=name, fold=fold, sha256=file_hash(folder / name)))
    return entries


def read_bundle(path: Path) -> Bundle:
    """Read a bundle that gives label maps, from its folder, its `bundle.json`, or the
    run that holds it.
    """
    file, content = bundle_content(path)
    plan = content.get("plan")
    if isinstance(plan, dict) and not {"labels", "topology"} & set(plan):
        raise BundleError(
            f"{file}: a model of task {content.get('task')} gives no label maps; choose another model"
        )
    return Bundle(file.parent, validated_description(BundleDescription, content, file))


def task_of(path: Path) -> str:
    """The task of the bundle or run at `path`."""
    return str(bundle_content(path)[1].get("task"))


def bundle_content(path: Path) -> tuple[Path, dict[str, Any]]:
    """The `bundle.json` at `path` (a bundle's folder, the file, or a run) and what it
    says, of a known version.
    """
    candidates = [path / "bundle.json", path / "bundle" / "bundle.json", path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None or file.suffix != ".json":
        state = "no model"
        if (path / PRETRAINED).exists():
            state = (
                "holds pretrained weights and no model (train with --pretrained first)"
            )
        elif (path / "recipe.json").exists():
            state = "training has not finished (continue it with --resume)"
        raise BundleError(
            f"{path}: {state}; give a run or a bundle folder that holds bundle.json"
        )
    content = read_json(file)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{file}: bundle format {version} is not {FORMAT_VERSION}; use the trivox version that wrote it"
        )
    return file, content


D = TypeVar("D", bound=BaseModel)


def validated_description(kind: type[D], content: Mapping[str, Any], file: Path) -> D:
    """The description that `file` holds; raises `BundleError` with the first thing that
    is wrong.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(
            f"{file}: {where}: {first['msg']}; the bundle was altered, export it again"
        ) from error


def file_hash(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
