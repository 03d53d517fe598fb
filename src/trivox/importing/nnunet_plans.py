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

SCHEMES: dict[str, Scheme] = {
    "ZScoreNormalization": "z-score",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale-0-1",
    "RGBTo01Normalization": "rgb-0-1",
}
SUPPORTED = "trivox imports nnU-Net's plain and residual-encoder U-Nets as its planners write them"

Model = TypeVar("Model", bound=BaseModel)


class _Network(BaseModel):
    """nnU-Net's `arch_kwargs`; a value that trivox's networks do not have is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    def _as_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
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
        if {len(row) for row in rows} != {self.n_stages} or len(
            self.n_conv_per_stage_decoder
        ) != self.n_stages - 1:
            raise ValueError("its lists do not have one entry a stage")
        if set(self.strides[0]) != {1}:
            raise ValueError("the first stage must work at full resolution")
        return self

    def topology(self, *, residual: bool) -> Topology:
        """As a topology of three axes; nnU-Net counts decoder stages from the coarsest."""
        flat = len(self.strides[0]) == 2
        return Topology(
            kernels=tuple(
                (1, *kernel) if flat else kernel for kernel in self.kernel_sizes
            ),
            strides=tuple((1, *stride) if flat else stride for stride in self.strides),
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
    plans, dataset = read_object(file), read_object(folder / "dataset.json")
    content = _with_parents(plans.get("configurations") or {}, name, file)
    configuration = _checked(_Configuration, content, f"{file}: configuration {name}")
    if configuration.previous_stage or "cascade" in name:
        raise BundleError(
            f"{file}: {name} needs the output of another model; import its 3d_fullres or 3d_lowres"
        )
    residual, arguments = _architecture(content, file)
    network = _checked(_Network, arguments, f"{file}: network of {name}")
    try:
        facts = _data_facts(plans, dataset, configuration, folder) | _network_facts(
            network, configuration, residual
        )
        topology, labels = facts["topology"], facts["labels"]
        memory = forecast_memory(
            topology,
            facts["patch_size"],
            batch=configuration.batch_size,
            channels=len(facts["channels"]),
            outputs=labels.output_channels,
        )
        return Plan.model_validate(
            {**facts, "memory": memory, "reasons": {"patch_size": f"nnU-Net's, {name}"}}
        )
    except (
        ValueError,
        IndexError,
        TypeError,
    ) as error:  # pydantic's errors are ValueErrors
        reason = (
            error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        )
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
    flat = len(configuration.patch_size) == 2
    size, spacing = (
        tuple(plans.get(f"original_median_{kind}_after_transp", [1])[:flat])
        for kind in ("shape", "spacing")
    )
    return {
        "dataset": str(plans.get("dataset_name", folder.parent.name)),
        "task": "segmentation",
        "labels": _labels(dataset, folder),
        "channels": numbered_names(
            dataset.get("channel_names") or {},
            where=folder / "dataset.json",
            key="channel_names",
        ),
        "normalisations": _normalisations(plans, configuration, folder / "plans.json"),
        "axis_order": plans.get("transpose_forward", (0, 1, 2)),
        "spacing": (*spacing, *configuration.spacing),
        "median_shape": [
            max(1, round(n))
            for n in (*size, *configuration.median_image_size_in_voxels)
        ],
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
            f"{file}: has no configuration '{name}', which the checkpoints are of; copy the plans again"
        )
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    others = {
        key: value for key, value in configurations.items() if key != name
    }  # a circle ends in the error above
    return {**_with_parents(others, parent, file), **own} if parent else own


def _architecture(content: dict[str, Any], file: Path) -> tuple[bool, dict[str, Any]]:
    """Whether the encoder is residual, and the arguments of the network; plans before
    nnU-Net 2.5 are translated.
    """
    given = content.get("architecture")
    if given is None:
        name, arguments = str(content.get("UNet_class_name")), _old_arguments(content)
    else:
        name, arguments = (
            str(given.get("network_class_name")),
            dict(given.get("arch_kwargs") or {}),
        )
    kind = name.rpartition(".")[2]
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise BundleError(f"{file}: network '{kind}' is not supported; {SUPPORTED}")
    return kind == "ResidualEncoderUNet", arguments


def _old_arguments(content: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the network as nnU-Net before 2.5 wrote them (and as 2.5 itself
    translates them).
    """
    strides = content.get("pool_op_kernel_sizes") or []
    base, most = (
        content.get("UNet_base_num_features", 32),
        content.get("unet_max_num_features", 320),
    )
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
    if all(len(value) == 1 for value in labels.values() if isinstance(value, list)):
        labels = {
            name: value[0] if isinstance(value, list) else value
            for name, value in labels.items()
        }
    order = (
        dataset.get("regions_class_order")
        if any(isinstance(value, list) for value in labels.values())
        else ()
    )
    return parse_labels(labels, where=folder / "dataset.json", order=order or ())


def _normalisations(
    plans: dict[str, Any], configuration: _Configuration, file: Path
) -> list[Normalisation]:
    result = []
    measured = plans.get("foreground_intensity_properties_per_channel") or {}
    for index, (name, masked) in enumerate(
        zip(
            configuration.normalization_schemes,
            configuration.use_mask_for_norm,
            strict=True,
        )
    ):
        if name not in SCHEMES:
            raise BundleError(
                f"{file}: normalisation '{name}' is not supported; known: {', '.join(SCHEMES)}"
            )
        values: dict[str, float] = {}
        if SCHEMES[name] == "ct":
            found = measured.get(str(index)) or {}
            keys = {
                "mean": "mean",
                "std": "std",
                "low": "percentile_00_5",
                "high": "percentile_99_5",
            }
            if not found.keys() >= set(keys.values()):
                raise BundleError(
                    f"{file}: no intensities of channel {index}, which CT normalisation needs"
                )
            values = {ours: float(found[theirs]) for ours, theirs in keys.items()}
            values["std"] = max(values["std"], 1e-8)
        result.append(
            Normalisation(
                scheme=SCHEMES[name],
                masked=masked and name.startswith("ZScore"),
                **values,
            )
        )
    return result


def _checked(model: type[Model], content: object, where: str) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{where}: {place}: {first['msg']} (found {first['input']!r:.40}); {SUPPORTED}"
        ) from error
