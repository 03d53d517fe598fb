"""nnU-Net's `plans.json` and `dataset.json` as a trivox plan; what trivox's U-Nets
cannot do is refused in one line.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.msd import numbered_names
from trivox.datasets.listing import parse_labels
from trivox.errors import BundleError
from trivox.files import read_json
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan, Scheme
from trivox.planning.topology import Sizes, Topology
from trivox.schema import Frozen, first_complaint
from trivox.tasks.labels.segmentation import SegmentationTask

SCHEMES: dict[str, Scheme] = {
    "ZScoreNormalization": "z-score",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale-0-1",
    "RGBTo01Normalization": "rgb-0-1",
}
SUPPORTED = "trivox imports nnU-Net's plain and residual-encoder U-Nets as its planners write them"
CT_VALUES = {
    "mean": "mean",
    "std": "std",
    "low": "percentile_00_5",
    "high": "percentile_99_5",
}
"""What CT normalisation needs, under nnU-Net's names."""

Model = TypeVar("Model", bound=BaseModel)


class _Network(Frozen):
    """nnU-Net's `arch_kwargs`; a value that trivox's networks do not have is refused."""

    n_stages: int
    features_per_stage: tuple[int, ...]
    kernel_sizes: tuple[Sizes, ...]
    strides: tuple[Sizes, ...]
    blocks: tuple[int, ...] = Field(
        validation_alias=AliasChoices("n_conv_per_stage", "n_blocks_per_stage")
    )
    n_conv_per_stage_decoder: tuple[int, ...]
    conv_op: str = Field(pattern=r"Conv[23]d$")
    conv_bias: Literal[True]
    norm_op: str = Field(pattern=r"InstanceNorm[23]d$")
    norm_op_kwargs: dict[str, Any]
    nonlin: str = Field(pattern=r"LeakyReLU$")
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: Literal[False] = False
    deep_supervision: bool = True
    dropout_op: None = None
    dropout_op_kwargs: Any = None
    bottleneck_channels: None = None
    stem_channels: None = None

    @field_validator("norm_op_kwargs")
    @classmethod
    def _is_known_norm(cls, value: dict[str, Any]) -> dict[str, Any]:
        if (value.get("eps", 1e-5), value.get("affine")) != (1e-5, True):
            raise ValueError(
                "only instance norms with scale and shift and eps 1e-5 exist here"
            )
        return value

    @field_validator("nonlin_kwargs")
    @classmethod
    def _same_slope(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if (value or {}).get("negative_slope", 0.01) != 0.01:
            raise ValueError("only the slope 0.01 exists here")
        return value

    @model_validator(mode="after")
    def _coherent(self) -> "_Network":
        rows = (self.features_per_stage, self.kernel_sizes, self.strides, self.blocks)
        stages = {len(row) for row in rows}
        stages.add(len(self.n_conv_per_stage_decoder) + 1)
        if stages != {self.n_stages}:
            raise ValueError("its lists do not have one entry a stage")
        if set(self.strides[0]) != {1}:
            raise ValueError("the first stage must work at full resolution")
        return self

    def topology(self, *, residual: bool) -> Topology:
        """As a topology of three axes; nnU-Net counts decoder stages from the coarsest."""
        missing = (1,) * (3 - len(self.strides[0]))
        return Topology(
            kernels=tuple((*missing, *kernel) for kernel in self.kernel_sizes),
            strides=tuple((*missing, *stride) for stride in self.strides),
            features=self.features_per_stage,
            encoder_blocks=self.blocks,
            decoder_blocks=self.n_conv_per_stage_decoder[::-1],
            residual=residual,
        )


class _Configuration(BaseModel):
    """What is needed of one of the plans' configurations."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    batch_size: int
    batch_dice: bool = False
    patch_size: tuple[int, ...] = Field(min_length=2, max_length=3)
    spacing: tuple[float, ...] = Field(min_length=2, max_length=3)
    median_image_size_in_voxels: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    previous_stage: str | None = None


def read_nnunet_plan(folder: Path, name: str) -> Plan:
    """The plan of configuration `name` of the model in `folder`; raises `BundleError`
    for what trivox cannot do.
    """
    file = folder / "plans.json"
    plans = read_object(file)
    dataset = read_object(folder / "dataset.json")
    content = _with_parents(plans.get("configurations") or {}, name, file)
    configuration = _checked(_Configuration, content, f"{file}: configuration {name}")
    if configuration.previous_stage or "cascade" in name:
        raise BundleError(
            f"{file}: {name} needs the output of another model; import its 3d_fullres "
            "or 3d_lowres"
        )
    residual, arguments = _architecture(content, file)
    network = _checked(_Network, arguments, f"{file}: network of {name}")
    try:
        facts = _data_facts(plans, dataset, configuration, folder)
        facts |= _network_facts(network, configuration, residual)
        facts["memory"] = forecast_memory(
            facts["topology"],
            facts["patch_size"],
            batch=configuration.batch_size,
            channels=len(facts["channels"]),
            outputs=facts["labels"].output_channels,
        )
        facts["reasons"] = {"patch_size": f"nnU-Net's, {name}"}
        return Plan.model_validate(facts)
    # pydantic's errors are ValueErrors
    except (ValueError, IndexError, TypeError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            reason = first_complaint(error)
        raise BundleError(
            f"{file}: configuration {name} contradicts itself ({reason}); {SUPPORTED}"
        ) from error


def _data_facts(
    plans: dict[str, Any],
    dataset: dict[str, Any],
    configuration: _Configuration,
    folder: Path,
) -> dict[str, Any]:
    """What the plan says about the data; a 2-D configuration leaves the first axis to
    the training median.
    """
    missing = 3 - len(configuration.patch_size)
    first_sizes = plans.get("original_median_shape_after_transp", [1])[:missing]
    first_spacings = plans.get("original_median_spacing_after_transp", [1])[:missing]
    sizes = (*first_sizes, *configuration.median_image_size_in_voxels)
    names = dataset.get("channel_names") or {}
    file = folder / "dataset.json"
    return {
        "dataset": str(plans.get("dataset_name", folder.parent.name)),
        "task": SegmentationTask.name,
        "labels": _labels(dataset, folder),
        "channels": numbered_names(names, where=file, key="channel_names"),
        "normalisations": _normalisations(plans, configuration, folder / "plans.json"),
        "axis_order": plans.get("transpose_forward", (0, 1, 2)),
        "spacing": (*first_spacings, *configuration.spacing),
        "median_shape": [max(1, round(size)) for size in sizes],
    }


def _network_facts(
    network: _Network, configuration: _Configuration, residual: bool
) -> dict[str, Any]:
    dimension = len(configuration.patch_size)
    return {
        "dimension": dimension,
        "patch_size": (1,) * (3 - dimension) + configuration.patch_size,
        "batch_size": configuration.batch_size,
        "batch_dice": configuration.batch_dice,
        "network": "resenc-m" if residual else "nnunet-plain",
        "topology": network.topology(residual=residual),
    }


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object of an nnU-Net model folder."""
    if not file.is_file():
        raise BundleError(
            f"{file}: not found; give the folder that nnU-Net trained in, for example "
            "Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres"
        )
    content = read_json(file)
    if not isinstance(content, dict):
        raise BundleError(
            f"{file}: is not what nnU-Net writes; copy the whole model folder again"
        )
    return content


def _with_parents(
    configurations: dict[str, Any], name: str, file: Path
) -> dict[str, Any]:
    """A configuration with what it inherits."""
    if not isinstance(configurations.get(name), dict):
        raise BundleError(
            f"{file}: has no configuration '{name}', which the checkpoints are of; "
            "copy the plans again"
        )
    content = dict(configurations[name])
    parent = content.pop("inherits_from", None)
    if not parent:
        return content
    # a circle ends in the error above
    others = {key: value for key, value in configurations.items() if key != name}
    return {**_with_parents(others, parent, file), **content}


def _architecture(content: dict[str, Any], file: Path) -> tuple[bool, dict[str, Any]]:
    """Whether the encoder is residual, and the arguments of the network; plans before
    nnU-Net 2.5 are translated.
    """
    given = content.get("architecture")
    if given is None:
        name = content.get("UNet_class_name")
        arguments = _old_arguments(content)
    else:
        name = given.get("network_class_name")
        arguments = dict(given.get("arch_kwargs") or {})
    kind = str(name).rpartition(".")[2]
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise BundleError(f"{file}: network '{kind}' is not supported; {SUPPORTED}")
    return kind == "ResidualEncoderUNet", arguments


def _old_arguments(content: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the network as nnU-Net before 2.5 wrote them (and as 2.5 itself
    translates them).
    """
    strides = content.get("pool_op_kernel_sizes") or []
    base = content.get("UNet_base_num_features", 32)
    most = content.get("unet_max_num_features", 320)
    dimension = len(content.get("patch_size") or [])
    return {
        "n_stages": len(strides),
        "features_per_stage": [
            min(base * 2**stage, most) for stage in range(len(strides))
        ],
        "kernel_sizes": content.get("conv_kernel_sizes"),
        "strides": strides,
        "n_conv_per_stage": content.get("n_conv_per_stage_encoder"),
        "n_conv_per_stage_decoder": content.get("n_conv_per_stage_decoder"),
        "conv_op": f"Conv{dimension}d",
        "conv_bias": True,
        "norm_op": f"InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
    }


def _labels(dataset: dict[str, Any], folder: Path) -> LabelScheme:
    """Labels or regions; a list of one value is a label, unless another list has
    several (nnU-Net's rule).
    """
    labels = dict(dataset.get("labels") or {})
    lists = {name: value for name, value in labels.items() if isinstance(value, list)}
    order: list[int] = []
    if any(len(values) != 1 for values in lists.values()):
        order = dataset.get("regions_class_order") or []
    else:
        labels |= {name: values[0] for name, values in lists.items()}
    return parse_labels(labels, where=folder / "dataset.json", order=order)


def _normalisations(
    plans: dict[str, Any], configuration: _Configuration, file: Path
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


def _ct_values(plans: dict[str, Any], channel: int, file: Path) -> dict[str, float]:
    """What CT normalisation of a channel needs."""
    channels = plans.get("foreground_intensity_properties_per_channel") or {}
    measured = channels.get(str(channel)) or {}
    if not measured.keys() >= set(CT_VALUES.values()):
        raise BundleError(
            f"{file}: no intensities of channel {channel}, which CT normalisation needs"
        )
    values = {name: float(measured[nnunet]) for name, nnunet in CT_VALUES.items()}
    values["std"] = max(values["std"], 1e-8)
    return values


def _checked(model: type[Model], content: object, where: str) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as invalid:
        wrong = invalid.errors()[0]["input"]
        raise BundleError(
            f"{where}: {first_complaint(invalid)} (found {wrong!r:.40}); {SUPPORTED}"
        ) from invalid
