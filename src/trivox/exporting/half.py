"""A bundle whose weights are stored in half precision: half the bytes, read back as
fp32. What that changes in answers is measured on cases.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from trivox.datasets.dataset import Case
from trivox.errors import BundleError
from trivox.files import file_hash, new_folder, write_bytes, write_json
from trivox.inference.bundle import read_any_bundle
from trivox.inference.describe import Prediction
from trivox.inference.descriptions import (
    BundleDescription,
    LabelDescription,
    Weights,
)
from trivox.inference.many.predictors import CasePredictor
from trivox.learning.checkpoints import load_weights
from trivox.outputs import require_new_folder
from trivox.tasks.choice import task_of
from trivox.tasks.options import PredictOptions
from trivox.volumes.volume import Array

LARGEST = torch.finfo(torch.float16).max
"""Numbers beyond it become infinite in half precision."""


@dataclass(frozen=True)
class Agreement:
    """How alike two models answer in a case: share of voxels with equal values, and the
    mean absolute difference of the values.
    """

    equal: float
    mean_difference: float

    @classmethod
    def of(cls, first: Array, second: Array) -> "Agreement":
        """Of two answers on one grid."""
        gap = np.abs(first.astype(np.float64) - second)
        return cls(equal=float((gap == 0).mean()), mean_difference=float(gap.mean()))


def write_half(model: Path, out: Path, **said: object) -> BundleDescription:
    """Write a run or bundle to the new folder `out` with weights in half precision.

    said: fields of the description that become others (`card=...`). What classifiers
    hold stays as it is. Raises `BundleError` for weights beyond the range of half
    precision.
    """
    require_new_folder(out)
    bundle = read_any_bundle(model)
    bundle.checked(bundle.description.files)
    with new_folder(out) as folder:
        description = _halved(bundle.description, bundle.folder, folder)
        description = description.model_copy(update=said)
        write_json(folder / "bundle.json", description.model_dump(mode="json"))
    return description


def agreement(
    first: Path, second: Path, cases: Iterable[Case], *, device: str = "cpu"
) -> dict[str, Agreement]:
    """How alike two models answer, case by case, in fp32."""
    options = PredictOptions(device=device, precision="fp32")
    one = task_of(first).predictor([first], options)
    other = task_of(second).predictor([second], options)
    return {
        case.name: Agreement.of(_values(one, case), _values(other, case))
        for case in cases
    }


def _values(predictor: CasePredictor[Any], case: Case) -> Array:
    """The label map of a case, or its volume in HU."""
    computed = predictor.compute(predictor.begin(case))
    answer: Any = predictor.complete(case, computed)
    answered = answer.labels if isinstance(answer, Prediction) else answer.volume
    values: Array = answered.array
    return values


def _halved(
    description: BundleDescription, source: Path, folder: Path
) -> BundleDescription:
    """Copy the files of a description; returns it with their new checksums."""
    update: dict[str, Any] = {
        "weights": _half_files(description.weights, source, folder)
    }
    if isinstance(description, LabelDescription):
        for entry in description.classifiers:
            shutil.copyfile(source / entry.file, folder / entry.file)
        if description.previous is not None:
            update["previous"] = _halved(description.previous, source, folder)
    return description.model_copy(update=update)


def _half_files(
    listed: Sequence[Weights], source: Path, folder: Path
) -> tuple[Weights, ...]:
    entries = []
    for entry in listed:
        path = folder / entry.file
        tensors = _half_tensors(load_weights(source / entry.file), path)
        write_bytes(path, save(tensors))
        entries.append(entry.model_copy(update={"sha256": file_hash(path)}))
    return tuple(entries)


def _half_tensors(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    halves = {}
    for name, value in tensors.items():
        if not value.is_floating_point():
            halves[name] = value
            continue
        if value.numel() and float(value.abs().max()) > LARGEST:
            raise BundleError(
                f"{path.name}: {name} holds numbers above {LARGEST:g}, which half "
                "precision has not; keep the model in fp32"
            )
        halves[name] = value.half()
    return halves
