"""The settings of a training, read from presets, files and the command line."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from trivox.config.choices import SplitRule
from trivox.config.options import (
    WEIGHTED_LOSSES,
    Augmentation,
    ClassificationOptions,
    Count,
    DistillationOptions,
    LossName,
    LossOptions,
    Positive,
    Probability,
)
from trivox.config.presets import NAMED_RECIPES, PRESETS, network_settings
from trivox.config.volumes import ReconstructionOptions
from trivox.errors import RecipeError
from trivox.schema import Frozen, beyond_64_bits, first_complaint, unstamped


class Recipe(Frozen):
    """How to train. The defaults are nnU-Net's recipe (Isensee et al. 2021) unless a
    preset changes them.
    """

    preset: str = Field(
        "production", description="the preset these settings started from"
    )
    network: str = Field(
        "resenc-m", description="network family, see 'trivox info --help'"
    )
    network_options: dict[str, bool | int | float | str] = Field(
        {},
        description="options of the network, "
        "for example attention=none, drop_path=0.2, dropout=0.1",
    )
    pretrained: str | None = Field(
        None,
        description="bundle, run or safetensors file whose weights "
        "training starts from",
    )
    freeze_encoder: Probability = Field(
        0.0,
        description="share of training during which the encoder keeps its "
        "pretrained weights; 1: throughout",
    )
    unfreezing: Literal["at_once", "staged"] = Field(
        "at_once",
        description="staged: one encoder stage after the other, deepest first",
    )
    memory_gb: Positive | None = Field(
        None,
        le=1e5,
        description="memory to plan for; None: the network family's own target",
    )
    patch_size: tuple[Count, ...] | None = Field(
        None, description="voxels (z, y, x); None: planned"
    )
    batch_size: Count | None = Field(
        None, description="samples a step over all ranks; None: planned"
    )
    micro_batch: Count | Literal["auto"] | None = Field(
        None,
        description="samples a forward pass; auto: what the forecast says fits; "
        "None: the whole batch at once",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass to save memory"
    )
    compile: bool = Field(
        False, description="compile the network with torch.compile; pays in long runs"
    )
    cuda_graph: bool = Field(
        False,
        description="on a GPU: record the kernels of a step once and let the device "
        "start them by itself; where a step changes on the way, it is computed as usual",
    )

    mask_channel: bool = Field(
        False,
        description="one more input: where any channel of the image is not zero, "
        "with holes filled",
    )
    masked_normalisation: bool | None = Field(
        None, description="z-score over the voxels of that mask only; None: planned"
    )

    epochs: Count = Field(1000, description="length of training, unless minutes is set")
    minutes: Positive | None = Field(
        None, description="training time; the schedule follows it instead of the epochs"
    )
    iterations_per_epoch: Count = Field(
        250, description="steps between two validations"
    )
    validation_iterations: Count = Field(
        50, description="batches of validation patches an epoch"
    )

    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="SGD with Nesterov momentum, or AdamW"
    )
    learning_rate: Positive = Field(1e-2, description="peak rate")
    weight_decay: float = Field(
        3e-5, ge=0, description="under AdamW not on norms and biases"
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="of SGD")
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    schedule: Literal["poly", "cosine", "constant"] = Field(
        "poly", description="course of the rate; poly has power 0.9"
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the schedule spent on a linear warm-up"
    )
    gradient_clip: Positive = Field(
        12.0, description="largest norm of all gradients together"
    )

    weights_ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights that is validated "
        "and kept; 0: none",
    )

    loss: dict[LossName, Annotated[float, Field(ge=0)]] = Field(
        {"dice": 1.0, "cross_entropy": 1.0},
        description="terms and their weights; also written dice+0.5*focal",
    )
    loss_options: LossOptions = Field(
        LossOptions(), description="constants of the losses"
    )
    classification: ClassificationOptions = Field(
        ClassificationOptions(),
        description="learning the class of a case (task multitask)",
    )
    reconstruction: ReconstructionOptions = Field(
        ReconstructionOptions(),
        description="learning a volume from X-rays (task reconstruction)",
    )
    distillation: DistillationOptions = Field(
        DistillationOptions(),
        description="learning from the answers of other models (trivox distill)",
    )
    batch_dice: bool | None = Field(
        None, description="Dice over the whole batch; None: planned"
    )
    deep_supervision: bool = Field(
        True, description="a loss at every decoder resolution"
    )
    foreground_fraction: Probability = Field(
        0.33, description="share of each batch centred on a labelled voxel"
    )
    augmentation: Augmentation = Field(
        Augmentation(), description="random changes of the patches"
    )

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: the fastest in hardware"
    )
    validation_smoothing: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="weight of the past in the smoothed validation Dice",
    )
    early_stopping: Count | None = Field(
        None, description="epochs without a better smoothed Dice; None: never"
    )
    checkpoint_minutes: Positive = Field(
        10.0, description="between saves of checkpoints/latest, at epoch ends"
    )
    overlap: float = Field(
        0.5, ge=0, lt=1, description="of neighbouring windows at inference"
    )
    mirrored_inference: bool = Field(
        False, description="average over all mirrored copies in the final validation"
    )
    keep_best: Count = Field(1, description="best checkpoints to keep")
    final_weights: Literal["latest", "best", "average"] = Field(
        "latest",
        description="what becomes the model; average: the mean of the best checkpoints",
    )
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="also log to these; needs trivox[track]"
    )
    project: str = Field(
        "trivox",
        description="name of the project under which wandb and mlflow file the run",
    )
    deterministic: bool = Field(
        False, description="on GPUs: only algorithms that repeat exactly; slower"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="threads that read patches ahead of the training step; "
        "auto: 2 on a CPU, for a GPU as many as its share of the cores, at most 12",
    )
    patch_cache: Literal["auto", "on", "off"] = Field(
        "auto",
        description="prepared cases stay in a GPU's memory and patches are cut there; "
        "auto: where they fit into it, or into the host's memory; without effect on a "
        "CPU",
    )
    seed: int = Field(12345, ge=0, description="of weights, patches and augmentation")
    split_by: SplitRule = Field(
        "patient",
        description="how folds are dealt: at random by patient, or each holds out "
        "patients whose images look alike (intensity)",
    )

    @property
    def cases_at_a_time(self) -> int:
        """Cases that are prepared together: each takes memory of its own."""
        return 2 if self.workers == "auto" else max(1, self.workers)

    @property
    def mirrored_axes(self) -> tuple[Literal["z", "y", "x"], ...]:
        """Axes along which training mirrors, and predictions may: what was never seen
        mirrored is not known mirrored.
        """
        return self.augmentation.mirror_axes if self.augmentation.mirror else ()

    @property
    def inference_axes(self) -> tuple[Literal["z", "y", "x"], ...]:
        """Axes of the mirrored copies that a prediction is averaged over."""
        return self.mirrored_axes if self.mirrored_inference else ()

    @field_validator("loss", mode="before")
    @classmethod
    def _terms(cls, value: Any) -> Any:
        """`"dice+0.5*focal"` to `{"dice": 1.0, "focal": 0.5}`."""
        if not isinstance(value, str):
            return value
        weights: dict[str, float | str] = {}
        for term in value.replace(" ", "").split("+"):
            weight, _, name = term.rpartition("*")
            weights[name] = weight or 1.0
        return weights

    @model_validator(mode="before")
    @classmethod
    def _measurable(cls, content: Any) -> Any:
        place = beyond_64_bits(content, float)  # arrays of float32 overflow
        if place is not None:
            raise ValueError(f"{place} is a number beyond all measure")
        return content

    @model_validator(mode="after")
    def _coherent(self) -> "Recipe":
        self._require_losses_that_combine()
        self._require_weights_that_exist()
        if self.patch_size is not None and len(self.patch_size) not in (2, 3):
            raise ValueError(
                f"patch_size needs two or three sizes, got {self.patch_size}"
            )
        return self

    def _require_losses_that_combine(self) -> None:
        if not sum(self.loss.values()):
            raise ValueError("loss needs at least one term with a weight above 0")
        used = {name for name, weight in self.loss.items() if weight}
        if used == {"boundary"}:
            raise ValueError(
                "boundary is a term beside others, write dice+0.01*boundary"
            )
        if "boundary" in used and self.loss_options.adaptive != "none":
            raise ValueError(
                "boundary falls below 0, so its weight cannot be learnt; "
                "set loss_options.adaptive=none"
            )
        unweighted = used - WEIGHTED_LOSSES
        if self.loss_options.target_weights and unweighted:
            raise ValueError(
                f"target_weights do not reach {', '.join(sorted(unweighted))}; "
                "take these terms out"
            )

    def _require_weights_that_exist(self) -> None:
        if self.final_weights == "average" and self.keep_best < 2:
            raise ValueError(
                "an average needs several checkpoints; set keep_best to 2 or more"
            )
        if self.reconstruction.adversarial > 0 and self.final_weights != "latest":
            raise ValueError(
                "the best checkpoints by PSNR come before the adversarial part; "
                "set final_weights=latest"
            )


_DEFAULT_NETWORK = Recipe.model_fields["network"].default


def make_recipe(
    preset: str = "production",
    overrides: Mapping[str, Any] | None = None,
    *,
    named: str | None = None,
) -> Recipe:
    """The preset, the `named` recipe on top, then `overrides` (nested dicts allowed).

    Raises `RecipeError` naming the wrong preset, recipe or setting.
    """
    if preset not in PRESETS:
        raise RecipeError(
            f"preset '{preset}' does not exist; choose one of {', '.join(PRESETS)}"
        )
    if named is not None and named not in NAMED_RECIPES:
        raise RecipeError(
            f"recipe '{named}' does not exist; "
            f"give a recipe.json or one of {', '.join(NAMED_RECIPES)}"
        )
    special = NAMED_RECIPES[named] if named else {}
    settings = merged({"preset": preset}, PRESETS[preset])
    settings = merged(settings, special.get("", {}))
    settings = merged(settings, special.get(preset, {}))
    given = overrides or {}
    network = merged(settings, given).get("network", _DEFAULT_NETWORK)
    settings = merged(settings, network_settings(str(network)).get(preset, {}))
    return read_recipe(merged(settings, given))


def read_recipe(content: Mapping[str, Any]) -> Recipe:
    """Validate settings read from JSON; raises `RecipeError` with one line for the
    first wrong one.
    """
    try:
        settings = unstamped(content)
    except ValueError as error:
        raise RecipeError(f"recipe: {error}") from error
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        name, _, complaint = first_complaint(error, whole="recipe").partition(": ")
        given = error.errors()[0]["input"]
        raise RecipeError(
            f"recipe setting '{name}': {complaint} (got {given!r:.60}); "
            "see 'trivox train --help' or docs/reference/recipe.md"
        ) from error


def parse_settings(settings: Iterable[str]) -> dict[str, object]:
    """`["a.b=1", "c=x"]` to `{"a": {"b": 1}, "c": "x"}`; values are JSON where they
    parse, otherwise text.
    """
    result: dict[str, object] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise RecipeError(
                f"--set {setting}: write it as key=value, "
                "for example --set learning_rate=0.001"
            )
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # also a number of 5,000 digits
            value = text
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, object]:
    """Settings of `top` over those of `base`, branch by branch."""
    result = dict(base)
    for key, value in top.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result
