"""Which model made a result, as every object about it says."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trivox.inference.descriptions import LabelDescription, Weights
from trivox.inference.reconstructor import Reconstructor
from trivox.version import __version__


@dataclass(frozen=True)
class ModelIdentity:
    """What an object says of the model behind it.

    name: for people: the data it was trained on and its networks; version: of trivox;
    sha256: over the checksums of all weights, 64 characters; task: as bundles name it.
    """

    name: str
    version: str
    sha256: str
    task: str


def checksum_of(files: Iterable[Weights]) -> str:
    """SHA-256 over the checksums of files, in their order."""
    joined = "".join(file.sha256 for file in files)
    return hashlib.sha256(joined.encode()).hexdigest()


def identity_of_labels(models: Sequence[LabelDescription]) -> ModelIdentity:
    """One or several models that give label maps and vote."""
    names = dict.fromkeys(f"{each.plan.dataset} {each.plan.network}" for each in models)
    files: list[Weights] = []
    for model in models:
        files += model.files
    task = models[0].plan.task
    return ModelIdentity(" + ".join(names), __version__, checksum_of(files), task)


def identity_of_volumes(reconstructor: Reconstructor) -> ModelIdentity:
    """One or several models that make volumes and are averaged."""
    plan = reconstructor.plan
    name = f"{plan.dataset} {plan.network}"
    checksum = checksum_of(reconstructor.weights)
    return ModelIdentity(name, __version__, checksum, plan.task)
