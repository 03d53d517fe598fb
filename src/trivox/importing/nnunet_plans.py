"""nnU-Net's `plans.json` and `dataset.json` as a trivox plan; what trivox's U-Nets
cannot do is refused in one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from trivox.datasets.label_parsing import parse_labels
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.msd import numbered_names
from trivox.errors import BundleError
from trivox.importing.nnunet_checkpoints import Checkpoint
from trivox.importing.nnunet_files import (
    SUPPORTED,
    Configuration,
    DatasetFile,
    NetworkArguments,
    OldArchitecture,
    PlansFile,
    checked,
    read_dataset,
    read_plans,
)
from trivox.importing.nnunet_resampling import read_grid_rules
from trivox.planning.grid_rules import GridRules
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan, Scheme
from trivox.planning.topology import Topology
from trivox.schema import JsonObject, first_complaint
from trivox.tasks.labels.segmentation import SegmentationTask

SCHEMES: dict[str, Scheme] = {
    "ZScoreNormalization": "z-score",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale-0-1",
    "RGBTo01Normalization": "rgb-0-1",
}
CT_VALUES = {
    "mean": "mean",
    "std": "std",
    "low": "percentile_00_5",
    "high": "percentile_99_5",
}
"""What CT normalisation needs, under nnU-Net's names."""


def read_nnunet_plan(folder: Path, checkpoint: Checkpoint) -> tuple[Plan, str | None]:
    """The plan of the model in `folder` that a checkpoint is of, and the configuration
    whose labels it refines, if any; raises `BundleError` for what trivox cannot do.
    """
    file = folder / "plans.json"
    name = checkpoint.configuration
    plans = read_plans(folder)
    dataset = read_dataset(folder)
    content = _with_parents(plans.configurations, name, file)
    configuration = checked(Configuration, content, f"{file}: configuration {name}")
    residual, arguments = _architecture(configuration, content, file, checkpoint)
    where = f"{file}: network of {name}, trained by {checkpoint.trainer}"
    network = checked(NetworkArguments, arguments, where)
    grid = read_grid_rules(
        configuration,
        plans.image_reader_writer,
        file,
        refines=configuration.previous_stage is not None,
    )
    topology = network.topology(residual=residual, where=where)
    model = _Model(plans, configuration, topology, grid, checkpoint.norm, folder)
    try:
        plan = model.plan(dataset)
    # pydantic's errors are ValueErrors
    except (ValueError, IndexError, TypeError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            reason = first_complaint(error)
        raise BundleError(
            f"{file}: configuration {name} contradicts itself ({reason}); {SUPPORTED}"
        ) from error
    return plan, configuration.previous_stage


@dataclass(frozen=True)
class _Model:
    """What the model in `folder` was trained by; without its dataset."""

    plans: PlansFile
    configuration: Configuration
    topology: Topology
    grid: GridRules
    norm: str
    folder: Path

    def plan(self, dataset: DatasetFile) -> Plan:
        """As a trivox plan; raises `ValueError`, `IndexError` or `TypeError` where the
        parts contradict each other.
        """
        configuration = self.configuration
        labels = _labels(dataset, self.folder)
        channels = numbered_names(
            dataset.channel_names,
            where=self.folder / "dataset.json",
            key="channel_names",
        )
        file = self.folder / "plans.json"
        normalisations = _normalisations(self.plans, configuration, file)
        missing = 3 - len(configuration.patch_size)
        patch_size = (1,) * missing + configuration.patch_size
        spacing, median_shape = _grid(self.plans, configuration)
        refines = configuration.previous_stage is not None
        memory = forecast_memory(
            self.topology,
            patch_size,
            batch=configuration.batch_size,
            channels=len(channels) + (len(labels.labels) if refines else 0),
            outputs=labels.output_channels,
        )
        return Plan(
            dataset=self.plans.dataset_name or self.folder.parent.name,
            task=SegmentationTask.name,
            labels=labels,
            channels=channels,
            normalisations=normalisations,
            axis_order=self.plans.transpose_forward,
            spacing=spacing,
            grid=self.grid,
            median_shape=median_shape,
            dimension=len(configuration.patch_size),
            patch_size=patch_size,
            batch_size=configuration.batch_size,
            batch_dice=configuration.batch_dice,
            refines=refines,
            network=self.network,
            topology=self.topology,
            network_options={"norm": self.norm},
            memory=memory,
            reasons={"patch_size": "nnU-Net's"},
        )

    @property
    def network(self) -> str:
        """Its name in trivox; the sizes of residual encoders differ in their plans
        alone.
        """
        if not self.topology.residual:
            return "nnunet-plain"
        size = re.search("ResEncUNet(M|L|XL)Plans", self.plans.plans_name)
        return f"resenc-{size[1].lower()}" if size else "resenc-m"


def _grid(
    plans: PlansFile, configuration: Configuration
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Spacing and median size; a 2-D configuration leaves the first axis to the
    training median.
    """
    missing = 3 - len(configuration.patch_size)
    first_sizes = plans.original_median_shape_after_transp[:missing]
    first_spacings = plans.original_median_spacing_after_transp[:missing]
    sizes = (*first_sizes, *configuration.median_image_size_in_voxels)
    spacing = (*first_spacings, *configuration.spacing)
    return spacing, tuple(max(1, round(size)) for size in sizes)


def _with_parents(
    configurations: Mapping[str, JsonValue], name: str, file: Path
) -> JsonObject:
    """A configuration with what it inherits."""
    configuration = configurations.get(name)
    if not isinstance(configuration, dict):
        raise BundleError(
            f"{file}: has no configuration '{name}', which the checkpoints are of; "
            "copy the plans again"
        )
    content = dict(configuration)
    parent = content.pop("inherits_from", None)
    if not parent:
        return content
    # a circle ends in the error above
    others = {key: value for key, value in configurations.items() if key != name}
    return {**_with_parents(others, str(parent), file), **content}


def _architecture(
    configuration: Configuration,
    content: JsonObject,
    file: Path,
    checkpoint: Checkpoint,
) -> tuple[bool, Mapping[str, object]]:
    """Whether the encoder is residual, and the arguments of the network; plans before
    nnU-Net 2.5 are translated.
    """
    arguments: Mapping[str, object]
    if configuration.architecture is not None:
        name = configuration.architecture.network_class_name
        arguments = configuration.architecture.arch_kwargs
    else:
        old = checked(OldArchitecture, content, f"{file}: network")
        name = old.name
        arguments = old.arguments
    kind = str(name).rpartition(".")[2]
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise BundleError(
            f"{file}: network '{kind}' of {checkpoint.trainer} is not supported; "
            f"{SUPPORTED}"
        )
    return kind == "ResidualEncoderUNet", arguments


def _labels(dataset: DatasetFile, folder: Path) -> LabelScheme:
    """Labels or regions; a list of one value is a label, unless another list has
    several (nnU-Net's rule).
    """
    labels = dict(dataset.labels)
    lists = {name: value for name, value in labels.items() if isinstance(value, list)}
    order: tuple[int, ...] = ()
    if any(len(values) != 1 for values in lists.values()):
        order = dataset.regions_class_order
    else:
        labels |= {name: values[0] for name, values in lists.items()}
    return parse_labels(labels, where=folder / "dataset.json", order=order)


def _normalisations(
    plans: PlansFile, configuration: Configuration, file: Path
) -> list[Normalisation]:
    channels = zip(
        configuration.normalization_schemes,
        configuration.use_mask_for_norm,
        strict=True,
    )
    result = []
    for index, (name, masked) in enumerate(channels):
        if name not in SCHEMES:
            raise BundleError(
                f"{file}: normalisation '{name}' is not supported; known: "
                f"{', '.join(SCHEMES)}"
            )
        scheme = SCHEMES[name]
        values = _ct_values(plans, index, file) if scheme == "ct" else {}
        masked = masked and name.startswith("ZScore")
        result.append(Normalisation(scheme=scheme, masked=masked, **values))
    return result


def _ct_values(plans: PlansFile, channel: int, file: Path) -> dict[str, float]:
    """What CT normalisation of a channel needs."""
    channels = plans.foreground_intensity_properties_per_channel
    measured = channels.get(str(channel), {})
    if not measured.keys() >= set(CT_VALUES.values()):
        raise BundleError(
            f"{file}: no intensities of channel {channel}, which CT normalisation needs"
        )
    values = {name: measured[nnunet] for name, nnunet in CT_VALUES.items()}
    values["std"] = max(values["std"], 1e-8)
    return values
