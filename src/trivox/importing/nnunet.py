"""An nnU-Net v2 model folder as a trivox bundle: plans and labels translated, weights
renamed, nothing learnt anew.

The folder is the one nnU-Net writes: `plans.json`, `dataset.json`,
`fold_X/checkpoint_final.pth`. Checkpoints are pickles. They are opened only on the
user's word, and then with torch's restricted reader, which builds tensors and plain
numbers and refuses everything else. nnU-Net itself is not needed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from trivox.config.choices import CheckpointName
from trivox.errors import BundleError, TrustError
from trivox.files import in_one_line, new_folder
from trivox.importing.nnunet_checkpoints import (
    CHECKPOINTS,
    Checkpoint,
    checkpoint_files,
    file_name,
    read_checkpoint,
)
from trivox.importing.nnunet_files import SUPPORTED, read_plans
from trivox.importing.nnunet_plans import read_nnunet_plan
from trivox.inference.bundle import Bundle, LabelBundle, copy_weights, write_bundle
from trivox.inference.descriptions import AXES, LabelDescription
from trivox.networks.registry import build_network
from trivox.outputs import require_new_folder
from trivox.planning.plan import Plan
from trivox.planning.topology import Topology
from trivox.scratch import scratch_folder

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
class _Model:
    """A model folder, read: what its bundle says, and the weights of each fold."""

    folder: Path
    description: LabelDescription
    weights: dict[str, dict[str, Tensor]]
    previous: str | None

    @property
    def plan(self) -> Plan:
        return self.description.plan


@in_one_line()
def import_nnunet(
    folder: Path,
    out: Path,
    *,
    trust: bool = False,
    checkpoint: CheckpointName | None = None,
    previous: Path | None = None,
) -> LabelBundle:
    """Write the model in `folder` as a bundle to `out`; all trained folds become
    members of one ensemble.

    trust: the user knows where the checkpoints come from; checkpoint: the one to take
    of each fold, None: the final one, else the best, else the latest; previous: folder
    of the model that a cascade refines, None: where nnU-Net puts it. Raises
    `TrustError` without trust, `BundleError` if the folder is incomplete or its network
    is not one that trivox has.
    """
    require_new_folder(out)
    model = _read_model(folder, checkpoint, trust=trust)
    if model.previous is None:
        _require_alone(previous, model)
        return _write(out, model, None)
    before = _read_model(
        previous or _sibling(folder, model.previous), checkpoint, trust=trust
    )
    _require_stages(before, model)
    return _write(out, model, before)


def _read_model(folder: Path, wanted: CheckpointName | None, *, trust: bool) -> _Model:
    """A model folder as it lies there, without the model that it refines."""
    reader = read_plans(folder).image_reader_writer
    files = checkpoint_files(folder, wanted)
    if not trust:
        raise TrustError(
            f"{next(iter(files.values()))}: is a Python pickle, a kind of file that "
            "can carry code; add --trust if you know where it comes from (it is read "
            "by torch's restricted loader all the same)"
        )
    folds = {fold: read_checkpoint(file) for fold, file in files.items()}
    first = next(iter(folds.values()))
    if len({checkpoint.configuration for checkpoint in folds.values()}) > 1:
        raise BundleError(
            f"{folder}: its folds are of different configurations; give the folder of "
            "a single one"
        )
    plan, previous = read_nnunet_plan(folder, first)
    axes = AXES[3 - plan.dimension :]
    mirror = tuple(axes[axis] for axis in first.mirror_axes if axis < len(axes))
    training: dict[str, object] = {
        "source": "nnU-Net v2",
        "configuration": first.configuration,
        "trainer": first.trainer,
        "checkpoints": {fold: file.name for fold, file in files.items()},
        "notes": [*_notes_on_files(files, wanted), *_notes(plan, reader)],
    }
    description = LabelDescription.model_construct(
        task=plan.task,
        plan=plan,
        mirror_axes=mirror,
        may_mirror=mirror,
        training=training,
    )
    weights = {fold: _renamed(checkpoint, plan) for fold, checkpoint in folds.items()}
    return _Model(folder, description, weights, previous)


def _notes_on_files(files: dict[str, Path], wanted: CheckpointName | None) -> list[str]:
    """Which folds have another checkpoint than the preferred one."""
    usual = file_name(wanted or CHECKPOINTS[0])
    return [
        f"fold {fold}: has no {usual}; {file.name} is taken"
        for fold, file in files.items()
        if file.name != usual
    ]


def _notes(plan: Plan, reader: str) -> list[str]:
    """What has to be known of the bundle."""
    notes = ["nnU-Net's postprocessing.pkl is not imported"]
    if plan.grid.axes == "stored":
        notes.append(
            f"reads voxels as they are stored, as nnU-Net's {reader} does: give it "
            "images whose axes run as those of its training images"
        )
    return notes


# -- cascades --------------------------------------------------------------------------
def _sibling(folder: Path, configuration: str) -> Path:
    """Where nnU-Net puts another configuration of the same trainer and plans."""
    family, separator, _ = folder.resolve().name.rpartition("__")
    sibling = folder.resolve().parent / f"{family}{separator}{configuration}"
    if not separator or not (sibling / "plans.json").is_file():
        raise BundleError(
            f"{folder}: refines the labels of a {configuration} model, which is not at "
            f"{sibling}; name its folder with --previous"
        )
    return sibling


def _require_alone(previous: Path | None, model: _Model) -> None:
    if previous is not None:
        raise BundleError(
            f"{model.folder}: {model.description.training['configuration']} refines no "
            "other model; leave --previous out"
        )


def _require_stages(before: _Model, model: _Model) -> None:
    """Raise `BundleError` unless `model` refines `before`."""
    configuration = before.description.training["configuration"]
    if configuration != model.previous:
        raise BundleError(
            f"{before.folder}: is a {configuration} model, and {model.folder} refines "
            f"the labels of {model.previous}; name its folder with --previous"
        )
    if _sees(before.plan) != _sees(model.plan):
        raise BundleError(
            f"{before.folder}: labels, channels or axes differ from those of "
            f"{model.folder}; give two stages of the same dataset and plans"
        )


def _sees(plan: Plan) -> tuple[object, ...]:
    return plan.labels, plan.channels, plan.axis_order, plan.grid.axes


# -- the bundle ------------------------------------------------------------------------
def _write(out: Path, model: _Model, before: _Model | None) -> LabelBundle:
    with new_folder(out) as folder, scratch_folder() as scratch:
        previous = None
        if before is not None:
            files = _saved(before, scratch / "previous")
            copied = copy_weights(folder, "previous", files)
            previous = before.description.naming(copied, [])
        content = {**dict(model.description), "previous": previous}
        description = LabelDescription.model_validate(content)
        bundle = write_bundle(folder, description, _saved(model, scratch))
    return Bundle(out, bundle.description)


def _saved(model: _Model, folder: Path) -> dict[str, Path]:
    """The weights of each fold in a file of its own."""
    folder.mkdir(exist_ok=True)
    files = {fold: folder / f"{fold}.safetensors" for fold in model.weights}
    for fold, state in model.weights.items():
        save_file(state, files[fold])
    return files


# -- weights ---------------------------------------------------------------------------
def _renamed(checkpoint: Checkpoint, plan: Plan) -> dict[str, Tensor]:
    """nnU-Net's state under trivox's names; 2-D kernels get an axis of one.

    Every tensor must have its place.
    """
    weights = checkpoint.weights
    expected = _expected_state(plan)
    names = {name: nnunet_name(name, plan.topology) for name in expected}
    renamed = {
        name: _fitting(weights.get(names[name]), tensor, names[name], checkpoint)
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
            channels=len(plan.inputs),
            outputs=plan.labels.output_channels,
            options=plan.network_options,
        )
    return network.state_dict()


def _fitting(
    value: Tensor | None, expected: Tensor, name: str, checkpoint: Checkpoint
) -> Tensor:
    """A copy of `value` of the type and shape of `expected`; raises `BundleError` if it
    has another shape.
    """
    if value is not None and value.ndim == 4:
        value = value.unsqueeze(2)
    if value is not None and value.shape == expected.shape:
        return value.to(expected.dtype).contiguous().clone()
    problem = "is missing"
    if value is not None:
        problem = f"has shape {tuple(value.shape)}, not {tuple(expected.shape)}"
    raise BundleError(
        f"{checkpoint.file}: {name} {problem}; the checkpoint and plans.json are of "
        f"different networks, or {checkpoint.trainer} builds one of its own"
    )


def _require_known(
    weights: Collection[str], known: set[str], checkpoint: Checkpoint
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
