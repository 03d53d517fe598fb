"""The recipe: how to train. Typed, frozen settings; presets are values of it, never subclasses.

A plan is about the data, a recipe about learning. Every field can be set from the command line:
`--set learning_rate=0.001 --set augmentation.rotation=0.5`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trivox.errors import RecipeError

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Augmentation(BaseModel):
    """Probabilities (a sample) and ranges of each random change; the defaults are nnU-Net's, geometry in mm.

    Fields named like the change hold its probability. `per_channel` is the chance that a channel takes part in blur and
    low resolution once the sample was chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation: Probability = 0.2
    rotation_degrees: float = Field(30.0, ge=0, le=180)
    scaling: Probability = 0.2
    scaling_range: Range = (0.7, 1.4)
    elastic: Probability = 0.0
    elastic_mm: float = Field(4.0, ge=0, description="standard deviation of the control points' displacement")
    noise: Probability = 0.1
    noise_sigma: Range = (0.0, 0.1)
    blur: Probability = 0.2
    blur_sigma: Range = (0.5, 1.0)
    brightness: Probability = 0.15
    brightness_range: Range = (0.75, 1.25)
    contrast: Probability = 0.15
    contrast_range: Range = (0.75, 1.25)
    low_resolution: Probability = 0.25
    low_resolution_zoom: Range = (0.5, 1.0)
    gamma_inverted: Probability = 0.1
    gamma: Probability = 0.3
    gamma_range: Range = (0.7, 1.5)
    mirror: Probability = 0.5
    mirror_axes: tuple[Literal["z", "y", "x"], ...] = ("z", "y", "x")
    drop_channel: Probability = Field(0.0, description="zero one random channel, so that a model copes without it")
    per_channel: Probability = 0.5


LossName = Literal[
    "dice", "generalised_dice", "cross_entropy", "top_k_cross_entropy", "focal", "tversky", "focal_tversky", "lovasz",
    "cl_dice", "boundary", "hausdorff",
]  # fmt: skip


WEIGHTED_LOSSES = {"dice", "tversky", "focal_tversky", "cross_entropy", "top_k_cross_entropy", "focal"}
"""Losses that heed `target_weights`."""


class LossOptions(BaseModel):
    """Constants of the losses; see `trivox.learning.losses` for formulas and sources."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread evenly over all classes")
    class_weights: Literal["none", "inverse_frequency", "effective_number"] = Field(
        "none", description="weights of the classes in cross-entropy and focal loss, from voxel counts"
    )
    effective_number_beta: float = Field(
        0.99999, ge=0, lt=1, description="of class weights: above 1 / (1 - beta) voxels a case, sizes count the same"
    )
    focal_gamma: float = Field(2.0, ge=0, description="how much easy voxels lose weight")
    tversky_alpha: float = Field(0.3, ge=0, description="weight of false positives")
    tversky_beta: float = Field(0.7, ge=0, description="weight of false negatives")
    focal_tversky_gamma: Positive = Field(4 / 3, description="the loss is (1 - Tversky index) to the power 1 / gamma")
    top_k: float = Field(0.1, gt=0, le=1, description="share of the hardest voxels in top_k_cross_entropy")
    cl_dice_iterations: Count = Field(
        10, description="of the soft skeleton: the radius of the thickest tube, in voxels"
    )
    target_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="weight of labels or regions by name in Dice, Tversky, cross-entropy and focal losses; others: 1",
    )
    hausdorff_power: Positive = Field(2.0, description="of the distances in the Hausdorff loss")
    adaptive: Literal["none", "uncertainty", "balancing"] = Field(
        "none", description="learnt weights of the loss terms: by uncertainty, or by balancing their speed"
    )


class ClassificationOptions(BaseModel):
    """How the class of a case is learnt beside its segmentation; without effect where cases have no classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["joint", "staged", "frozen"] = Field(
        "frozen",
        description="frozen: the encoder does not learn from the class; joint: from the first step; staged: after `start`",
    )
    start: Probability = Field(0.3, description="share of training before the class is learnt, in staged mode")
    lesion: tuple[str, ...] = Field(
        (), description="labels or regions that the class is decided by; none: by their names"
    )
    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="of the class")
    focal_gamma: float = Field(2.0, ge=0, description="how much easy cases lose weight in focal loss")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the class evenly spread over all classes")
    imbalance: Literal["none", "balanced_sampler", "logit_adjustment"] = Field(
        "balanced_sampler", description="against answering with the most frequent class; one remedy, not both"
    )
    class_weights: Literal["none", "inverse_frequency", "effective_number"] = Field(
        "none", description="weights of the classes in the loss, from counts of training cases"
    )
    effective_number_beta: float = Field(0.99, ge=0, lt=1, description="of class weights, for counts of cases")
    weight: float = Field(1.0, ge=0, description="of the class loss beside the segmentation loss")
    boost: float = Field(1.0, ge=0, description="factor on the weight that is reached after boost_epochs")
    boost_epochs: Count = Field(15, description="epochs in which the weight grows from 1 to boost times its value")
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="of the two losses: fixed, or learnt by uncertainty (Kendall et al. 2018)"
    )
    encoder_gradient: Probability = Field(
        0.1, description="share of the class loss's gradient that the encoder receives"
    )
    learning_rate_factor: Positive = Field(4.0, description="rate of the head as a multiple of the network's")
    lesion_fraction: Probability = Field(0.5, description="share of each batch centred on the lesion, for the class")
    width: Count = Field(64, description="features of the head")
    dropout: float = Field(0.2, ge=0, lt=1, description="in the head")
    classifier: Literal["auto", "head", "lda", "logreg", "mlp"] = Field(
        "auto",
        description="what answers: the trained head, or a classifier on pooled features; auto: by cross-validation",
    )


class ReconstructionLoss(BaseModel):
    """Weights of the parts of the reconstruction loss, each scaled to O(1); 0 leaves a part out.

    See `trivox.learning.losses.reconstruction` for formulas and sources.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    l1: float = Field(1.0, ge=0, description="absolute difference in the HU window")
    ssim: float = Field(0.3, ge=0, description="1 - 3-D structural similarity")
    perceptual: float = Field(0.1, ge=0, description="features of a small encoder trained on phantoms, shipped")
    edge: float = Field(0.2, ge=0, description="magnitude of the 3-D Sobel gradient")
    deep_supervision: float = Field(0.2, ge=0, description="absolute difference at the coarser decoder scales")
    frequency: float = Field(0.1, ge=0, description="spectrum, high frequencies weighted up")
    reprojection: float = Field(0.1, ge=0, description="absolute difference of line integrals along the views")


class ReconstructionOptions(BaseModel):
    """How a volume is learnt from X-rays (task reconstruction); without effect elsewhere. The grid is `patch_size`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: Positive | None = Field(None, description="of the grid; None: the largest field of view fits")
    window: Range = Field(
        (-1024.0, 1476.0), description="HU that the network sees as 0 to 1; errors are measured in it"
    )
    detector: Count | None = Field(None, description="pixels along an edge of an X-ray; None: twice the grid")
    views: Literal["random", "stored"] = Field(
        "random", description="random: X-rays rendered anew from the CT in each step; stored: those in the dataset"
    )
    render_factor: Count = Field(2, description="voxels along an edge of the rendered CT for one of the grid")
    view_counts: tuple[Annotated[int, Field(ge=0, le=8)], ...] = Field(
        (1, 2, 4, 8), min_length=1, description="numbers of views that a step draws from"
    )
    angle_jitter: float = Field(5.0, ge=0, le=90, description="degrees about the even spacing over 180")
    distance_jitter: float = Field(0.03, ge=0, lt=0.2, description="share of the distances to source and detector")
    drop_view: Probability = Field(0.1, description="that a single view is missing")
    no_views: Probability = Field(0.03, description="that an exam has none: the model learns what it believes then")
    photons: tuple[float, float] | None = Field(
        (1e4, 1e5), description="unattenuated photons a pixel, log-uniform; Poisson noise. None: no noise"
    )
    gain_jitter: float = Field(0.0, ge=0, lt=1, description="random factor on the views, for uncalibrated X-rays")
    prior: Literal["sirt", "none"] = Field("sirt", description="algebraic reconstruction that the network corrects")
    prior_iterations: Count = Field(10, description="of the prior")
    consistency_steps: int = Field(1, ge=0, description="steps towards the measured X-rays at the network's end")
    growth: tuple[Count, ...] = Field((), description="coarser grids to train first, for example 32, 64 before 128")
    growth_share: Probability = Field(0.5, description="share of training spent on the coarser grids")
    loss: ReconstructionLoss = Field(ReconstructionLoss(), description="weights of the parts of the loss")
    adversarial: float = Field(0.0, ge=0, description="weight of the adversarial loss in the last part of training")
    adversarial_share: Probability = Field(0.2, description="share of training at its end with the adversarial loss")
    psnr_budget: float = Field(0.5, ge=0, description="dB of validation PSNR that the adversarial part may cost")


class Recipe(BaseModel):
    """How to train. The defaults are nnU-Net's recipe (Isensee et al. 2021) unless a preset changes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field("production", description="the preset these settings started from")
    network: str = Field("resenc-m", description="network family, see 'trivox info --help'")
    network_options: dict[str, bool | int | float | str] = Field(
        {}, description="options of the network, for example attention=none, drop_path=0.2, dropout=0.1"
    )
    pretrained: str | None = Field(
        None, description="bundle, run or safetensors file whose weights training starts from"
    )
    freeze_encoder: Probability = Field(
        0.0, description="share of training during which the encoder keeps its pretrained weights; 1: throughout"
    )
    unfreezing: Literal["at_once", "staged"] = Field(
        "at_once", description="staged: one encoder stage after the other, deepest first"
    )
    memory_gb: Positive | None = Field(None, description="memory to plan for; None: the network family's own target")
    patch_size: tuple[int, ...] | None = Field(None, description="voxels (z, y, x); None: planned")
    batch_size: Count | None = Field(None, description="samples a step over all ranks; None: planned")
    micro_batch: Count | Literal["auto"] | None = Field(
        None, description="samples a forward pass; auto: what the forecast says fits; None: the whole batch at once"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    compile: bool = Field(False, description="compile the network with torch.compile; pays in long runs")

    mask_channel: bool = Field(
        False, description="one more input: where any channel of the image is not zero, with holes filled"
    )
    masked_normalisation: bool | None = Field(
        None, description="z-score over the voxels of that mask only; None: planned"
    )

    epochs: Count = Field(1000, description="length of training, unless minutes is set")
    minutes: Positive | None = Field(None, description="training time; the schedule follows it instead of the epochs")
    iterations_per_epoch: Count = Field(250, description="steps between two validations")
    validation_iterations: Count = Field(50, description="batches of validation patches an epoch")

    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum, or AdamW")
    learning_rate: Positive = Field(1e-2, description="peak rate")
    weight_decay: float = Field(3e-5, ge=0, description="under AdamW not on norms and biases")
    momentum: float = Field(0.99, ge=0, lt=1, description="of SGD")
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    schedule: Literal["poly", "cosine", "constant"] = Field(
        "poly", description="course of the rate; poly has power 0.9"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the schedule spent on a linear warm-up")
    gradient_clip: Positive = Field(12.0, description="largest norm of all gradients together")

    weights_ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights that is validated and kept; 0: none"
    )

    loss: dict[LossName, Annotated[float, Field(ge=0)]] = Field(
        {"dice": 1.0, "cross_entropy": 1.0}, description="terms and their weights; also written dice+0.5*focal"
    )
    loss_options: LossOptions = Field(LossOptions(), description="constants of the losses")
    classification: ClassificationOptions = Field(
        ClassificationOptions(), description="learning the class of a case (task multitask)"
    )
    reconstruction: ReconstructionOptions = Field(
        ReconstructionOptions(), description="learning a volume from X-rays (task reconstruction)"
    )
    batch_dice: bool | None = Field(None, description="Dice over the whole batch; None: planned")
    deep_supervision: bool = Field(True, description="a loss at every decoder resolution")
    foreground_fraction: Probability = Field(0.33, description="share of each batch centred on a labelled voxel")
    augmentation: Augmentation = Field(Augmentation(), description="random changes of the patches")

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: the fastest in hardware")
    validation_smoothing: float = Field(
        0.9, ge=0, lt=1, description="weight of the past in the smoothed validation Dice"
    )
    early_stopping: Count | None = Field(None, description="epochs without a better smoothed Dice; None: never")
    checkpoint_minutes: Positive = Field(10.0, description="between saves of checkpoints/latest, at epoch ends")
    overlap: float = Field(0.5, ge=0, lt=1, description="of neighbouring windows at inference")
    mirrored_inference: bool = Field(False, description="average over all mirrored copies in the final validation")
    keep_best: Count = Field(1, description="best checkpoints to keep")
    final_weights: Literal["latest", "best", "average"] = Field(
        "latest", description="what becomes the model; average: the mean of the best checkpoints"
    )
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="also log to these; needs trivox[track]"
    )
    project: str = Field("trivox", description="name of the project under which wandb and mlflow file the run")
    deterministic: bool = Field(False, description="on GPUs: only algorithms that repeat exactly; slower")
    workers: int = Field(2, ge=0, description="threads that read patches ahead of the training step")
    seed: int = Field(12345, ge=0, description="of weights, patches and augmentation")

    @field_validator("loss", mode="before")
    @classmethod
    def _terms(cls, value: Any) -> Any:
        """`"dice+0.5*focal"` to `{"dice": 1.0, "focal": 0.5}`."""
        if not isinstance(value, str):
            return value
        terms = [term.rpartition("*") for term in value.replace(" ", "").split("+")]
        return {name: weight or 1.0 for weight, _, name in terms}

    @model_validator(mode="after")
    def _coherent(self) -> "Recipe":
        if not sum(self.loss.values()):
            raise ValueError("loss needs at least one term with a weight above 0")
        used = {name for name, weight in self.loss.items() if weight}
        if used == {"boundary"}:
            raise ValueError("boundary is a term beside others, write dice+0.01*boundary")
        if "boundary" in used and self.loss_options.adaptive != "none":
            raise ValueError("boundary falls below 0, so its weight cannot be learnt; set loss_options.adaptive=none")
        unweighted = used - WEIGHTED_LOSSES
        if self.loss_options.target_weights and unweighted:
            raise ValueError(f"target_weights do not reach {', '.join(sorted(unweighted))}; take these terms out")
        if self.final_weights == "average" and self.keep_best < 2:
            raise ValueError("an average needs several checkpoints; set keep_best to 2 or more")
        if self.reconstruction.adversarial > 0 and self.final_weights != "latest":
            raise ValueError("the best checkpoints by PSNR come before the adversarial part; set final_weights=latest")
        if self.patch_size is not None and (len(self.patch_size) not in (2, 3) or min(self.patch_size) < 1):
            raise ValueError(f"patch_size needs two or three positive sizes, got {self.patch_size}")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    # Minutes on a CPU: a lean network, few iterations an epoch, AdamW (SGD with momentum 0.99 needs ten times the steps).
    "quick_test": {
        "network": "unet-small", "memory_gb": 1.0, "epochs": 20, "iterations_per_epoch": 40, "validation_iterations": 8,
        "optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2, "warmup": 0.05, "schedule": "cosine",
        "gradient_clip": 2.0, "batch_size": 4, "checkpoint_minutes": 2.0, "validation_smoothing": 0.5,
        "augmentation": {"blur": 0.1, "low_resolution": 0.1, "gamma": 0.15},
    },
    "production": {},
    # Start from --pretrained weights: a tenth of the learning rate, a tenth of the time.
    "fine_tuning": {"learning_rate": 1e-3, "epochs": 100, "warmup": 0.05},
    # The largest hybrid; its depth asks for a moving average of the weights.
    "large": {"network": "hybrid-large", "weights_ema": 0.999},
}  # fmt: skip

_ADAMW: dict[str, Any] = {
    "optimizer": "adamw", "learning_rate": 3e-4, "weight_decay": 5e-2, "warmup": 0.05, "schedule": "cosine",
    "gradient_clip": 1.0,
}  # fmt: skip
_TRANSFORMER: dict[str, dict[str, Any]] = {
    "quick_test": {"learning_rate": 3e-3, "gradient_clip": 1.0},
    "production": _ADAMW,
    "fine_tuning": {**_ADAMW, "learning_rate": 3e-5},
    "large": _ADAMW,
}
NETWORK_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "hybrid": _TRANSFORMER, "swin": _TRANSFORMER, "mednext": _TRANSFORMER, "segresnet": _TRANSFORMER,
}  # fmt: skip
"""What networks whose names begin so change in each preset: nnU-Net's SGD does not train transformers."""


NAMED_RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # Four MRI sequences, nested tumour regions: NVIDIA's recipe (Futrega et al. 2021, arXiv:2110.03352) and what is known to
    # be better since. The mask channel is made before normalisation; small presets keep their own network and rate.
    "brats": {
        "": {
            "mask_channel": True, "masked_normalisation": True, "batch_dice": True, "foreground_fraction": 0.4,
            "loss": {"dice": 1.0, "cross_entropy": 1.0}, "mirrored_inference": True, "overlap": 0.5,
            "augmentation": {
                "rotation": 0.3, "scaling": 0.3, "elastic": 0.1, "noise": 0.15, "blur": 0.15, "brightness": 0.15,
                "contrast": 0.15,
            },
        },
        "production": {
            "network": "nvidia-unet", "batch_size": 2, "optimizer": "adamw", "learning_rate": 3e-4, "weight_decay": 1e-4,
            "schedule": "cosine", "warmup": 0.02, "gradient_clip": 1.0, "epochs": 300,
        },
        "fine_tuning": {"network": "nvidia-unet", "batch_size": 2, "optimizer": "adamw", "learning_rate": 3e-5,
                        "weight_decay": 1e-4, "schedule": "cosine", "gradient_clip": 1.0},
        "large": {},
        "quick_test": {},
    },
    # X-rays to a volume; what the task itself decides (patches, Dice, augmentation) is without effect.
    "xray2ct": {
        "": {
            "optimizer": "adamw", "learning_rate": 1.5e-3, "weight_decay": 1e-2, "warmup": 0.05, "schedule": "cosine",
            "gradient_clip": 1.0, "batch_size": 4, "network": "xray2ct-base", "final_weights": "best",
        },
        "production": {"learning_rate": 3e-4, "epochs": 400},
        "fine_tuning": {"learning_rate": 1e-4, "epochs": 100},
        "large": {"learning_rate": 3e-4, "epochs": 400, "weights_ema": 0.999},
        "quick_test": {"network": "xray2ct-tiny", "iterations_per_epoch": 50, "validation_iterations": 8},
    },
}  # fmt: skip
"""Recipes for a kind of data: what holds under every preset (""), and what a preset changes."""


def make_recipe(
    preset: str = "production", overrides: Mapping[str, Any] | None = None, *, named: str | None = None
) -> Recipe:
    """The preset, the `named` recipe on top, then `overrides` (nested dicts allowed).

    Raises `RecipeError` naming the wrong preset, recipe or setting.
    """
    if preset not in PRESETS:
        raise RecipeError(f"preset '{preset}' does not exist; choose one of {', '.join(PRESETS)}")
    if named is not None and named not in NAMED_RECIPES:
        raise RecipeError(f"recipe '{named}' does not exist; give a recipe.json or one of {', '.join(NAMED_RECIPES)}")
    special, given = NAMED_RECIPES[named] if named else {}, overrides or {}
    base = _merge(_merge(PRESETS[preset], special.get("", {})), special.get(preset, {}))
    network = str(given.get("network", base.get("network", Recipe.model_fields["network"].default)))
    changes = NETWORK_SETTINGS.get(network.split("-")[0], {}).get(preset, {})
    return read_recipe(_merge(_merge({"preset": preset, **base}, changes), given))


def read_recipe(content: Mapping[str, Any]) -> Recipe:
    """Validate settings read from JSON; raises `RecipeError` with one line for the first wrong one."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "recipe"
        hint = "see 'trivox train --help' or docs/reference/recipe.md"
        raise RecipeError(f"recipe setting '{name}': {first['msg']} (got {first['input']!r:.60}); {hint}") from error


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` to `{"a": {"b": 1}, "c": "x"}`; values are JSON where they parse, otherwise text."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise RecipeError(f"--set {setting}: write it as key=value, for example --set learning_rate=0.001")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        for part in reversed(key.split(".")[1:]):
            value = {part: value}
        result = _merge(result, {key.split(".")[0]: value})
    return result


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
