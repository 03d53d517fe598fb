"""nnU-Net's checkpoints: which one of a fold is taken, and what is read of it.

They are pickles, read with torch's restricted reader, which builds tensors, numpy's
numbers and arrays, and refuses everything else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivox.config.choices import CheckpointName
from trivox.errors import BundleError

CHECKPOINTS: tuple[CheckpointName, ...] = ("final", "best", "latest")
"""In order of preference; a fold without the first gives the second, then the third."""
KINDS = (
    *("float64", "float32", "float16", "complex128", "complex64", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
"""Numbers that a checkpoint may hold."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is taken from a checkpoint file."""

    file: Path
    weights: dict[str, Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]

    @property
    def norm(self) -> str:
        """What normalises its network's features; some trainers decide it, not the
        plans.
        """
        is_batch = any(name.endswith("running_mean") for name in self.weights)
        return "batch" if is_batch else "torch-instance"


def file_name(checkpoint: CheckpointName) -> str:
    """The name of a checkpoint's file."""
    return f"checkpoint_{checkpoint}.pth"


def checkpoint_files(folder: Path, wanted: CheckpointName | None) -> dict[str, Path]:
    """The checkpoint of each fold; like nnU-Net, `fold_all` only where there are no
    numbered ones.

    wanted: the only one to take; None: the first of `CHECKPOINTS` that a fold has.
    """
    names = [file_name(each) for each in ((wanted,) if wanted else CHECKPOINTS)]
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("fold_*")):
        present = [path / name for name in names if (path / name).is_file()]
        if present:
            files[path.name.removeprefix("fold_")] = present[0]
    if not files:
        raise BundleError(
            f"{folder}: no fold_X/{names[0]}{_others(folder)}; copy the whole model "
            "folder, or train it first"
        )
    return {fold: file for fold, file in files.items() if fold != "all"} or files


def _others(folder: Path) -> str:
    """What there is instead of a checkpoint."""
    others = sorted({path.name for path in folder.glob("fold_*/checkpoint_*.pth")})
    return f" (there is {', '.join(others)})" if others else ""


def read_checkpoint(file: Path) -> Checkpoint:
    """What is needed of a checkpoint; raises `BundleError` for one that is damaged, not
    nnU-Net's, or holds objects besides numbers.
    """
    try:
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(file, map_location="cpu", weights_only=True)
        return Checkpoint(
            file=file,
            weights=_weights(content["network_weights"]),
            configuration=str(content["init_args"]["configuration"]),
            trainer=str(content["trainer_name"]),
            mirror_axes=tuple(content.get("inference_allowed_mirroring_axes") or ()),
        )
    except KeyError as error:
        raise BundleError(
            f"{file}: has no {error}; only checkpoints of nnU-Net v2 can be imported"
        ) from error
    except Exception as error:  # torch raises anything for a damaged or refused file
        reason = " ".join(str(error).split())
        if "Unsupported global" in reason:
            name = reason.split("GLOBAL ")[-1].split(" ")[0]
            raise BundleError(
                f"{file}: holds a Python object ({name}), which is not read"
            ) from error
        raise BundleError(
            f"{file}: cannot be read ({reason:.120}); copy it again"
        ) from error


def _weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors by name, without what compiled and parallel networks prefix; some
    trainers save numpy arrays.
    """
    return {
        name.removeprefix("module.").removeprefix("_orig_mod."): torch.as_tensor(value)
        for name, value in state.items()
    }


def _numbers() -> list[Any]:
    """What a checkpoint may hold besides tensors: numpy's numbers and arrays, under the
    names of numpy 1 and 2.
    """
    scalar = np.float64(0).__reduce__()[0]  # numpy's own constructors
    array = np.zeros(0).__reduce__()[0]
    constructors = [
        (made_by, f"numpy.{core}.multiarray.{name}")
        for made_by, name in ((scalar, "scalar"), (array, "_reconstruct"))
        for core in ("core", "_core")
    ]
    kinds = [type(np.dtype(name)) for name in KINDS]
    return [*constructors, np.dtype, np.ndarray, *kinds]
