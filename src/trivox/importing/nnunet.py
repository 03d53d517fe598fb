"""An nnU-Net v2 model folder as a trivox bundle: plans and labels translated, weights
renamed, nothing learnt anew.

The folder is the one nnU-Net writes: `plans.json`, `dataset.json`,
`fold_X/checkpoint_final.pth`. Checkpoints are pickles. They are opened only on the
user's word, and then with torch's restricted reader, which builds tensors and plain
numbers and refuses everything else. nnU-Net itself is not needed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from trivox.errors import BundleError, TrustError
from trivox.files import in_one_line
from trivox.importing.nnunet_files import SUPPORTED, read_plans
from trivox.importing.nnunet_plans import read_nnunet_plan
from trivox.inference.bundle import LabelBundle, write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.networks.registry import build_network
from trivox.planning.plan import Plan
from trivox.planning.topology import Topology

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""In order of preference; a fold without the first gives the second."""
KINDS = ("float64", "float32", "float16", "int64", "int32", "bool")
"""Numbers that a checkpoint may hold."""
UNITS = {"0": "conv", "1": "norm"}
"""Layers of trivox's `ConvBlock` under nnU-Net's names."""
ROOMS = {
    "up": "transpconvs",
    "heads": "seg_layers",
    "first": "conv1",
    "second": "conv2",
}
"""Parts of trivox's U-Nets under nnU-Net's names."""


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """What is taken from a checkpoint file."""

    file: Path
    weights: dict[str, Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


@in_one_line()
def import_nnunet(folder: Path, out: Path, *, trust: bool = False) -> LabelBundle:
    """Write the model in `folder` as a bundle to `out`; all trained folds become
    members of one ensemble.

    trust: the user knows where the checkpoints come from. Raises `TrustError` without
    it, `BundleError` if the folder is incomplete or its network is not one that trivox
    has.
    """
    reader = read_plans(folder).image_reader_writer
    files = _checkpoint_files(folder)
    if not trust:
        raise TrustError(
            f"{next(iter(files.values()))}: is a Python pickle, a kind of file that "
            "can carry code; add --trust if you know where it comes from (it is read "
            "by torch's restricted loader all the same)"
        )
    if (out / "bundle.json").exists():
        raise BundleError(f"{out}: holds a bundle already; choose another --out")
    folds = {fold: _read_checkpoint(file) for fold, file in files.items()}
    first = next(iter(folds.values()))
    if len({checkpoint.configuration for checkpoint in folds.values()}) > 1:
        raise BundleError(
            f"{folder}: its folds are of different configurations; give the folder of "
            "a single one"
        )
    plan = read_nnunet_plan(folder, first.configuration)
    axes = "zyx"[3 - plan.dimension :]
    mirror = tuple(axes[axis] for axis in first.mirror_axes if axis < len(axes))
    training: dict[str, object] = {
        "source": "nnU-Net v2",
        "configuration": first.configuration,
        "trainer": first.trainer,
        "checkpoints": {fold: file.name for fold, file in files.items()},
        "notes": _notes(plan, mirrored=set(mirror) == set(axes), reader=reader),
    }
    weights = {fold: _renamed(checkpoint, plan) for fold, checkpoint in folds.items()}
    return _write(out, plan, weights, mirror, training)


def _write(
    out: Path,
    plan: Plan,
    weights: dict[str, dict[str, Tensor]],
    mirror: Sequence[str],
    training: dict[str, object],
) -> LabelBundle:
    with TemporaryDirectory(prefix="trivox-") as name:
        files = {fold: Path(name) / f"{fold}.safetensors" for fold in weights}
        for fold, state in weights.items():
            save_file(state, files[fold])
        description = LabelDescription(
            task=plan.task, plan=plan, mirror_axes=mirror, training=training
        )
        return write_bundle(out, description, files)


def _notes(plan: Plan, *, mirrored: bool, reader: str) -> list[str]:
    """In what the bundle may answer otherwise than nnU-Net."""
    notes = ["nnU-Net's postprocessing.pkl is not imported"]
    if plan.dimension == 2:
        notes.append(
            "nnU-Net keeps the distance of slices as it is; here it becomes "
            f"{plan.spacing[0]:g} mm, the training median"
        )
    if not mirrored and "Reorient" not in reader:
        notes.append(
            "it was trained on voxels as stored and without mirroring along all axes; "
            "trivox turns every image to RAS first, so this is the same model only if "
            "the training images were stored in RAS"
        )
    return notes


# -- files -----------------------------------------------------------------------------
def _checkpoint_files(folder: Path) -> dict[str, Path]:
    """The checkpoint of each fold; like nnU-Net, `fold_all` only where there are no
    numbered ones.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("fold_*")):
        present = [path / name for name in CHECKPOINTS if (path / name).is_file()]
        if present:
            files[path.name.removeprefix("fold_")] = present[0]
    if not files:
        raise BundleError(
            f"{folder}: no fold_X/{CHECKPOINTS[0]}; copy the whole model folder, or "
            "train it first"
        )
    return {fold: file for fold, file in files.items() if fold != "all"} or files


def _numbers() -> list[Any]:
    """What a checkpoint may hold besides tensors: numpy's scalars, under the names of
    numpy 1 and 2.
    """
    scalar = np.float64(0).__reduce__()[0]  # numpy's own constructor of scalars
    constructors = [
        (scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")
    ]
    kinds = [type(np.dtype(name)) for name in KINDS]
    return [*constructors, np.dtype, *kinds]


def _read_checkpoint(file: Path) -> _Checkpoint:
    try:
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(file, map_location="cpu", weights_only=True)
        return _Checkpoint(
            file=file,
            weights=dict(content["network_weights"]),
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


# -- weights ---------------------------------------------------------------------------
def _renamed(checkpoint: _Checkpoint, plan: Plan) -> dict[str, Tensor]:
    """nnU-Net's state under trivox's names; 2-D kernels get an axis of one.

    Every tensor must have its place.
    """
    weights = {
        name.removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in checkpoint.weights.items()
    }
    expected = _expected_state(plan)
    names = {name: nnunet_name(name, plan.topology) for name in expected}
    renamed = {
        name: _fitting(weights.get(names[name]), tensor, names[name], checkpoint.file)
        for name, tensor in expected.items()
    }
    _require_known(weights, set(names.values()), checkpoint)
    return renamed


def _expected_state(plan: Plan) -> dict[str, Tensor]:
    """State of the plan's network, without values."""
    with torch.device("meta"):
        network = build_network(
            plan.network,
            plan.topology,
            channels=len(plan.channels),
            outputs=plan.labels.output_channels,
        )
    return network.state_dict()


def _fitting(value: Tensor | None, expected: Tensor, name: str, file: Path) -> Tensor:
    """A copy of `value` in float32, of the shape of `expected`; raises `BundleError` if
    it has another.
    """
    if value is not None and value.ndim == 4:
        value = value.unsqueeze(2)
    if value is not None and value.shape == expected.shape:
        return value.float().contiguous().clone()
    problem = "is missing"
    if value is not None:
        problem = f"has shape {tuple(value.shape)}, not {tuple(expected.shape)}"
    raise BundleError(
        f"{file}: {name} {problem}; the checkpoint and plans.json are of different "
        "networks"
    )


def _require_known(
    weights: Collection[str], known: set[str], checkpoint: _Checkpoint
) -> None:
    """Raise `BundleError` for a tensor that no network of trivox has; nnU-Net's modules
    list each layer twice, and the decoder holds the encoder.
    """
    for name in sorted(set(weights) - known):
        if ".all_modules." in name or name.startswith("decoder.encoder."):
            continue
        raise BundleError(
            f"{checkpoint.file}: {name} has no place in the network; "
            f"{checkpoint.trainer} changed it, and {SUPPORTED}"
        )


def nnunet_name(name: str, topology: Topology) -> str:
    """The name of a parameter of trivox's U-Nets in nnU-Net's; its decoder counts from
    the coarsest stage.
    """
    room, index, *rest = name.split(".")
    if room == "stem":
        return f"encoder.stem.convs.0.{UNITS[index]}.{rest[0]}"
    turned = topology.stages - 2 - int(index)
    if room in ("up", "heads"):
        return f"decoder.{ROOMS[room]}.{turned}.{rest[0]}"
    if room == "decoder":
        block, layer, leaf = rest
        return f"decoder.stages.{turned}.convs.{block}.{UNITS[layer]}.{leaf}"
    if len(rest) == 3:  # plain
        block, layer, leaf = rest
        return f"encoder.stages.{index}.0.convs.{block}.{UNITS[layer]}.{leaf}"
    block, part, layer, leaf = rest
    stage = f"encoder.stages.{index}.blocks.{block}"
    # average pooling where strided, then a projection: one unit there, convolution and
    # norm here
    if part == "skip":
        first = int(any(step > 1 for step in topology.strides[int(index)]))
        return f"{stage}.skip.{first}.{UNITS[str(int(layer) - first)]}.{leaf}"
    return f"{stage}.{ROOMS[part]}.{UNITS[layer]}.{leaf}"
