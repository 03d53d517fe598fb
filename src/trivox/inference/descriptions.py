"""What `bundle.json` says of a model: of one that gives label maps, and of one that
makes volumes of X-rays.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from trivox.datasets.clinical.columns import ClinicalColumn
from trivox.inference.doubt.calibration import Abstention
from trivox.inference.doubt.conformal import VolumeIntervals
from trivox.inference.doubt.flags import Flag
from trivox.inference.doubt.likeness import Likeness
from trivox.inference.doubt.missed import MissedControl
from trivox.inference.doubt.shift import VolumeCases, numbers_of_look
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.zoo.card import Card
from trivox.planning.plan import Plan
from trivox.planning.volumes import VolumePlan
from trivox.schema import Frozen, Grown
from trivox.version import NOTICE, __version__

AxisName = Literal["z", "y", "x"]
AXES: tuple[AxisName, ...] = ("z", "y", "x")
"""Of the network's grid."""
SYNTHETIC = "synthetic CT, not acquired"
"""Said of every volume that a network made."""


Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
"""That logits are divided by; what is fitted lies within 0.05 and 20."""
Views = Annotated[int, Field(ge=0, le=1000)]


class Weights(Frozen):
    """One trained network of the bundle."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.safetensors$")
    fold: str
    sha256: str


NO_ANSWER = {
    "format_version",
    "trivox_version",
    "notice",
    "training",
    "weights",
    "card",
}
"""Fields of a description that decide no answer, and its files, which have their own
hashes.
"""


class ClassDescription(Grown):
    """Of a model that also answers with the class of a case.

    lesion: label indices that it is decided by; width: features of the head;
    classifiers: one for each weights file, that answers in place of the head; none: the
    heads answer, with their logits divided by `temperature`; clinical: columns that are
    read beside the image.
    """

    later: ClassVar[tuple[str, ...]] = ("clinical",)

    classes: tuple[str, ...] = Field(min_length=2)
    lesion: tuple[int, ...] = Field(min_length=1)
    width: int = Field(ge=1, le=2**14)
    temperature: Temperature = 1.0
    classifiers: tuple[Weights, ...] = ()
    clinical: tuple[ClinicalColumn, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes {self.classes} occur more than once")
        names = [column.name for column in self.clinical]
        if len(set(names)) < len(names):
            raise ValueError(f"clinical columns {names} occur more than once")
        return self


class BundleDescription(Grown):
    """What every `bundle.json` says.

    weights: none while the model lies in no bundle yet; card: of a model that is given
    to others.
    """

    later: ClassVar[tuple[str, ...]] = ("card",)

    format_version: Literal[1] = 1
    trivox_version: str = __version__
    notice: str = NOTICE
    task: str
    training: dict[str, Any] = Field(default_factory=dict)
    weights: tuple[Weights, ...] = ()
    card: Card | None = None

    @property
    def files(self) -> tuple[Weights, ...]:
        """All files that decide what the model answers."""
        return self.weights

    @property
    def identity(self) -> str:
        """A short hash over the files: predictions name the model that made them."""
        return identity_of(self.files)

    @property
    def card_facts(self) -> dict[str, object]:
        """The card ready for JSON, if there is one."""
        return {} if self.card is None else {"card": self.card.model_dump(mode="json")}

    @property
    def cost_facts(self) -> dict[str, object]:
        """What preparing and training has cost, if that is known."""
        cost = self.training.get("cost")
        return {} if cost is None else {"cost": cost}

    def naming(
        self, weights: Sequence[Weights], classifiers: Sequence[Weights]
    ) -> Self:
        """The description with the files of its bundle."""
        return self.model_copy(update={"weights": tuple(weights)})


class LabelDescription(BundleDescription):
    """Of a model that gives label maps.

    mirror_axes: along which copies are mirrored and averaged unless told otherwise;
    may_mirror: along which they may be at all; temperature: probabilities are those of
    logits divided by it; abstention: when to flag by entropy; flag: whether that, or
    how little votes agree, flags; likeness: what the training images
    looked like; volumes: how far true volumes lie from predicted ones; volume_cases:
    from what cases that was learnt; missed,
    missed_lesions: from what probability on few voxels, or lesions, are missed;
    classification: of models that also give
    a class; previous: the coarser model whose labels this one refines.
    """

    later: ClassVar[tuple[str, ...]] = (
        "card",
        "may_mirror",
        "flag",
        "volumes",
        "volume_cases",
        "missed",
        "missed_lesions",
        "previous",
    )

    plan: Plan
    overlap: float = Field(0.5, ge=0, lt=1)
    mirror_axes: tuple[AxisName, ...] = ()
    may_mirror: tuple[AxisName, ...] = AXES
    postprocessing: Postprocessing = Postprocessing()
    temperature: Temperature = 1.0
    abstention: Abstention | None = None
    flag: Flag | None = None
    likeness: Likeness | None = None
    volumes: VolumeIntervals | None = None
    volume_cases: VolumeCases | None = None
    missed: MissedControl | None = None
    missed_lesions: MissedControl | None = None
    classification: ClassDescription | None = None
    previous: "LabelDescription | None" = None

    @model_validator(mode="before")
    @classmethod
    def _mirrors_what_it_did(cls, given: Any) -> Any:
        """Older bundles do not say along which axes they may be mirrored."""
        if not isinstance(given, Mapping) or "may_mirror" in given:
            return given
        mirrored = given.get("mirror_axes")
        return {**given, "may_mirror": mirrored} if mirrored else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.plan.refines == (self.previous is None):
            raise ValueError(
                "a plan that refines labels needs the model that finds them"
            )
        return self

    @model_validator(mode="after")
    def _of_known_labels(self) -> Self:
        known = range(1, len(self.plan.labels.values))
        lesion = () if self.classification is None else self.classification.lesion
        for name, indices in {
            "classification.lesion": lesion,
            "postprocessing.largest_of": self.postprocessing.largest_of,
        }.items():
            if not set(indices) <= set(known):
                raise ValueError(f"{name} {indices} is none of {list(known)}")
        promises = {
            "volumes": self.volumes,
            "missed": self.missed,
            "missed_lesions": self.missed_lesions,
        }
        for name, promise in promises.items():
            targets = set() if promise is None else set(promise.targets)
            strange = sorted(targets - set(self.plan.labels.targets))
            if strange:
                raise ValueError(f"{name}: the model has no label '{strange[0]}'")
        return self

    @model_validator(mode="after")
    def _of_such_images(self) -> Self:
        numbers = numbers_of_look(len(self.plan.channels))
        cases = self.volume_cases
        if cases is not None and len(cases.looks[0]) != numbers:
            raise ValueError(
                f"volume_cases.looks have {len(cases.looks[0])} numbers, images of "
                f"{len(self.plan.channels)} channels {numbers}"
            )
        return self

    @property
    def classifiers(self) -> tuple[Weights, ...]:
        """Files of the classifiers; none where the heads answer."""
        answers = self.classification
        return () if answers is None else answers.classifiers

    @property
    def files(self) -> tuple[Weights, ...]:
        """Weights and classifiers, and those of the coarser model."""
        before = () if self.previous is None else self.previous.files
        return (*self.weights, *self.classifiers, *before)

    def naming(
        self, weights: Sequence[Weights], classifiers: Sequence[Weights]
    ) -> Self:
        """The description with the files of its bundle."""
        answers = self.classification
        if answers is not None:
            files = {"classifiers": tuple(classifiers)}
            answers = answers.model_copy(update=files)
        update = {"weights": tuple(weights), "classification": answers}
        return self.model_copy(update=update)


class VolumeDescription(BundleDescription):
    """Of a model that makes volumes of X-rays.

    views: the numbers of views that it was trained with.
    """

    notice: str = f"{NOTICE} Output: {SYNTHETIC}."
    plan: VolumePlan
    views: tuple[Views, ...]


def digest_of(said: Iterable[BaseModel]) -> str:
    """A short hash over what models say that decides an answer besides the files:
    plan, labels, rules. What is as it is by default does not count, so that a field
    which is new in a version changes nothing.
    """
    parts = []
    for each in said:
        plain = each.model_dump(mode="json", exclude_defaults=True, exclude=NO_ANSWER)
        parts.append(json.dumps(plain, sort_keys=True))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def identity_of(files: Iterable[Weights]) -> str:
    """A short hash over the checksums of files; empty for none."""
    joined = "".join(file.sha256 for file in files)
    return hashlib.sha256(joined.encode()).hexdigest()[:12] if joined else ""
