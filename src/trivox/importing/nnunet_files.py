"""nnU-Net's `plans.json` and `dataset.json`: what is read of them, as frozen models."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from trivox.errors import BundleError
from trivox.files import read_json
from trivox.planning.topology import Sizes, Topology
from trivox.schema import Frozen, JsonObject, first_complaint

SUPPORTED = "trivox imports nnU-Net's plain and residual-encoder U-Nets as its planners write them"

SPLINES = "resample_data_or_seg_to_shape"
BY_SHAPE: JsonObject = {"order_z": 0, "force_separate_z": None}
"""nnU-Net's default function of resampling and what all its uses have in common."""

Model = TypeVar("Model", bound=BaseModel)


class Lenient(BaseModel):
    """A part of a file of which no more than the fields here is needed."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PlansFile(Lenient):
    """`plans.json`; sizes and spacings along the axes of the network.

    configurations: as written, since one may inherit from another;
    foreground_intensity_properties_per_channel: statistics by channel number.
    """

    dataset_name: str | None = None
    plans_name: str = ""
    image_reader_writer: str = "SimpleITKIO"
    label_manager: Literal["LabelManager"] = "LabelManager"
    transpose_forward: tuple[int, ...] = (0, 1, 2)
    original_median_shape_after_transp: tuple[float, ...] = (1.0,)
    original_median_spacing_after_transp: tuple[float, ...] = (1.0,)
    configurations: dict[str, JsonValue] = Field(default_factory=dict)
    foreground_intensity_properties_per_channel: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        validation_alias=AliasChoices(
            "foreground_intensity_properties_per_channel",
            "foreground_intensity_properties_by_modality",
        ),
    )


class DatasetFile(Lenient):
    """`dataset.json`; labels: a value, or the values of a region, by name."""

    channel_names: JsonValue = Field(
        None, validation_alias=AliasChoices("modality", "channel_names")
    )
    labels: dict[str, JsonValue] = Field(default_factory=dict)
    regions_class_order: tuple[int, ...] = ()


class Architecture(Lenient):
    """The network of a configuration, since nnU-Net 2.5."""

    network_class_name: str | None = None
    arch_kwargs: JsonObject = Field(default_factory=dict)


class OldArchitecture(Lenient):
    """The network of a configuration before nnU-Net 2.5."""

    name: str | None = Field(None, alias="UNet_class_name")
    base: int = Field(32, alias="UNet_base_num_features")
    most: int = Field(320, alias="unet_max_num_features")
    strides: tuple[Sizes, ...] = Field((), alias="pool_op_kernel_sizes")
    kernels: tuple[Sizes, ...] = Field((), alias="conv_kernel_sizes")
    encoder: tuple[int, ...] = Field((), alias="n_conv_per_stage_encoder")
    decoder: tuple[int, ...] = Field((), alias="n_conv_per_stage_decoder")
    patch_size: tuple[int, ...]

    @property
    def arguments(self) -> dict[str, object]:
        """As nnU-Net 2.5 itself translates them."""
        dimension = len(self.patch_size)
        stages = range(len(self.strides))
        return {
            "n_stages": len(self.strides),
            "features_per_stage": [
                min(self.base * 2**stage, self.most) for stage in stages
            ],
            "kernel_sizes": self.kernels,
            "strides": self.strides,
            "n_conv_per_stage": self.encoder,
            "n_conv_per_stage_decoder": self.decoder,
            "conv_op": f"Conv{dimension}d",
            "conv_bias": True,
            "norm_op": f"InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "LeakyReLU",
        }


class NetworkArguments(Frozen):
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
    norm_op: str = Field(pattern=r"(Instance|Batch)Norm[23]d$")
    norm_op_kwargs: JsonObject
    nonlin: str = Field(pattern=r"LeakyReLU$")
    nonlin_kwargs: JsonObject | None = None
    nonlin_first: Literal[False] = False
    deep_supervision: bool = True
    dropout_op: str | None = Field(None, pattern=r"Dropout[123]?d?$")
    dropout_op_kwargs: JsonValue = None
    bottleneck_channels: None = None
    stem_channels: None = None

    @field_validator("norm_op_kwargs")
    @classmethod
    def _is_known_norm(cls, value: JsonObject) -> JsonObject:
        usual = (value.get("eps", 1e-5), value.get("affine")) == (1e-5, True)
        if not usual or value.get("track_running_stats"):
            raise ValueError(
                "only norms with scale and shift, eps 1e-5 and no statistics of "
                "their own exist here"
            )
        return value

    @field_validator("nonlin_kwargs")
    @classmethod
    def _same_slope(cls, value: JsonObject | None) -> JsonObject | None:
        if (value or {}).get("negative_slope", 0.01) != 0.01:
            raise ValueError("only the slope 0.01 exists here")
        return value

    @model_validator(mode="after")
    def _coherent(self) -> "NetworkArguments":
        rows = (self.features_per_stage, self.kernel_sizes, self.strides, self.blocks)
        stages = {len(row) for row in rows}
        stages.add(len(self.n_conv_per_stage_decoder) + 1)
        if stages != {self.n_stages}:
            raise ValueError("its lists do not have one entry a stage")
        if set(self.strides[0]) != {1}:
            raise ValueError("the first stage must work at full resolution")
        return self

    def topology(self, *, residual: bool, where: str) -> Topology:
        """As a topology of three axes; nnU-Net counts decoder stages from the coarsest.

        Raises `BundleError` naming `where` for one that no network can have.
        """
        missing = (1,) * (3 - len(self.strides[0]))
        content = {
            "kernels": tuple((*missing, *kernel) for kernel in self.kernel_sizes),
            "strides": tuple((*missing, *stride) for stride in self.strides),
            "features": self.features_per_stage,
            "encoder_blocks": self.blocks,
            "decoder_blocks": self.n_conv_per_stage_decoder[::-1],
            "residual": residual,
        }
        return checked(Topology, content, where)


class Configuration(Lenient):
    """What is needed of one of the plans' configurations; resampling is nnU-Net's
    default where plans say nothing.
    """

    batch_size: int
    batch_dice: bool = False
    patch_size: tuple[int, ...] = Field(min_length=2, max_length=3)
    spacing: tuple[float, ...] = Field(min_length=2, max_length=3)
    median_image_size_in_voxels: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    previous_stage: str | None = None
    architecture: Architecture | None = None
    preprocessor_name: str = "DefaultPreprocessor"
    resampling_fn_data: str = SPLINES
    resampling_fn_data_kwargs: JsonObject = Field(default={"order": 3, **BY_SHAPE})
    resampling_fn_seg: str = SPLINES
    resampling_fn_seg_kwargs: JsonObject = Field(
        default={"order": 1, "is_seg": True, **BY_SHAPE}
    )
    resampling_fn_probabilities: str = SPLINES
    resampling_fn_probabilities_kwargs: JsonObject = Field(
        default={"order": 1, **BY_SHAPE}
    )


def read_plans(folder: Path) -> PlansFile:
    """`plans.json` of a model folder."""
    return _read(PlansFile, folder / "plans.json")


def read_dataset(folder: Path) -> DatasetFile:
    """`dataset.json` of a model folder."""
    return _read(DatasetFile, folder / "dataset.json")


def _read(model: type[Model], file: Path) -> Model:
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
    return checked(model, content, str(file))


def checked(model: type[Model], content: object, where: str) -> Model:
    """`content` as a model; raises `BundleError` in one line that names `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as invalid:
        wrong = invalid.errors()[0]["input"]
        raise BundleError(
            f"{where}: {first_complaint(invalid)} (found {wrong!r:.40}); {SUPPORTED}"
        ) from invalid
