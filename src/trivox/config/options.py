"""Parts of a recipe: augmentation, constants of the losses, classes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trivox.schema import Frozen

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]


class Augmentation(Frozen):
    """Probabilities (a sample) and ranges of each random change; the defaults are
    nnU-Net's, geometry in mm.

    Fields named like the change hold its probability. `per_channel` is the chance that
    a channel takes part in blur and low resolution once the sample was chosen.
    """

    rotation: Probability = 0.2
    rotation_degrees: float = Field(30.0, ge=0, le=180)
    scaling: Probability = 0.2
    scaling_range: Range = (0.7, 1.4)
    elastic: Probability = 0.0
    elastic_mm: float = Field(
        4.0, ge=0, description="standard deviation of the control points' displacement"
    )
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
    drop_channel: Probability = Field(
        0.0, description="zero one random channel, so that a model copes without it"
    )
    per_channel: Probability = 0.5


LossName = Literal[
    "dice",
    "generalised_dice",
    "cross_entropy",
    "top_k_cross_entropy",
    "focal",
    "tversky",
    "focal_tversky",
    "lovasz",
    "cl_dice",
    "boundary",
    "hausdorff",
]


WEIGHTED_LOSSES = {
    "dice",
    "tversky",
    "focal_tversky",
    "cross_entropy",
    "top_k_cross_entropy",
    "focal",
}
"""Losses that heed `target_weights`."""


class LossOptions(Frozen):
    """Constants of the losses; see `trivox.learning.losses.choice` for formulas and
    sources.
    """

    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the target spread evenly over all classes",
    )
    class_weights: Literal["none", "inverse_frequency", "effective_number"] = Field(
        "none",
        description="weights of the classes in cross-entropy and focal loss, "
        "from voxel counts",
    )
    effective_number_beta: float = Field(
        0.99999,
        ge=0,
        lt=1,
        description="of class weights: above 1 / (1 - beta) voxels a case, "
        "sizes count the same",
    )
    focal_gamma: float = Field(
        2.0, ge=0, description="how much easy voxels lose weight"
    )
    tversky_alpha: float = Field(0.3, ge=0, description="weight of false positives")
    tversky_beta: float = Field(0.7, ge=0, description="weight of false negatives")
    focal_tversky_gamma: Positive = Field(
        4 / 3, description="the loss is (1 - Tversky index) to the power 1 / gamma"
    )
    top_k: float = Field(
        0.1,
        gt=0,
        le=1,
        description="share of the hardest voxels in top_k_cross_entropy",
    )
    cl_dice_iterations: Count = Field(
        10,
        description="of the soft skeleton: the radius of the thickest tube, in voxels",
    )
    target_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="weight of labels or regions by name in Dice, Tversky, "
        "cross-entropy and focal losses; others: 1",
    )
    hausdorff_power: Positive = Field(
        2.0, description="of the distances in the Hausdorff loss"
    )
    adaptive: Literal["none", "uncertainty", "balancing"] = Field(
        "none",
        description="learnt weights of the loss terms: by uncertainty, "
        "or by balancing their speed",
    )


class DistillationOptions(Frozen):
    """Learning from the answers of trained models beside the labels; without teachers,
    from labels alone.
    """

    teachers: tuple[str, ...] = Field(
        (), description="runs or bundles that answer for every patch"
    )
    identities: tuple[str, ...] = Field(
        (), description="short hashes of the teachers' files; none: whatever lies there"
    )
    networks: Literal["all", "fold"] = Field(
        "all",
        description="which networks of the teachers answer: all, or those that were "
        "trained on the same fold",
    )
    unlabelled: str | None = Field(
        None, description="images without labels that are learnt from as well"
    )
    temperature: float = Field(
        1.0, gt=0, le=1e3, description="that the logits of both are divided by"
    )
    weight: Probability = Field(
        0.5, description="of the teachers' answers; the labels have the rest"
    )

    @model_validator(mode="after")
    def _has_teachers(self) -> Self:
        if self.unlabelled is not None and not self.teachers:
            raise ValueError("images without labels teach nothing without teachers")
        if self.identities and len(self.identities) != len(self.teachers):
            raise ValueError("one identity is needed for each teacher")
        return self


class ClassificationOptions(Frozen):
    """How the class of a case is learnt beside its segmentation; without effect where
    cases have no classes.
    """

    mode: Literal["joint", "staged", "frozen"] = Field(
        "frozen",
        description="frozen: the encoder does not learn from the class; "
        "joint: from the first step; staged: after `start`",
    )
    start: Probability = Field(
        0.3, description="share of training before the class is learnt, in staged mode"
    )
    lesion: tuple[str, ...] = Field(
        (),
        description="labels or regions that the class is decided by; none: by their names",
    )
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="of the class"
    )
    focal_gamma: float = Field(
        2.0, ge=0, description="how much easy cases lose weight in focal loss"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the class evenly spread over all classes"
    )
    imbalance: Literal["none", "balanced_sampler", "logit_adjustment"] = Field(
        "balanced_sampler",
        description="against answering with the most frequent class; "
        "one remedy, not both",
    )
    class_weights: Literal["none", "inverse_frequency", "effective_number"] = Field(
        "none",
        description="weights of the classes in the loss, from counts of training cases",
    )
    effective_number_beta: float = Field(
        0.99, ge=0, lt=1, description="of class weights, for counts of cases"
    )
    weight: float = Field(
        1.0, ge=0, description="of the class loss beside the segmentation loss"
    )
    boost: float = Field(
        1.0, ge=0, description="factor on the weight that is reached after boost_epochs"
    )
    boost_epochs: Count = Field(
        15,
        description="epochs in which the weight grows from 1 to boost times its value",
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed",
        description="of the two losses: fixed, or learnt by uncertainty "
        "(Kendall et al. 2018)",
    )
    encoder_gradient: Probability = Field(
        0.1, description="share of the class loss's gradient that the encoder receives"
    )
    learning_rate_factor: Positive = Field(
        4.0, description="rate of the head as a multiple of the network's"
    )
    lesion_fraction: Probability = Field(
        0.5, description="share of each batch centred on the lesion, for the class"
    )
    width: Count = Field(64, description="features of the head")
    dropout: float = Field(0.2, ge=0, lt=1, description="in the head")
    classifier: Literal["auto", "head", "lda", "logreg", "mlp"] = Field(
        "auto",
        description="what answers: the trained head, or a classifier on pooled "
        "features; auto: by cross-validation",
    )
    clinical: tuple[str, ...] = Field(
        (), description="columns of the table of classes that tell the class too"
    )

    @model_validator(mode="after")
    def _classifier_reads_clinical(self) -> Self:
        if self.clinical and self.classifier == "head":
            raise ValueError(
                "a head reads no clinical columns; leave classifier at auto"
            )
        if len({*self.clinical}) < len(self.clinical):
            raise ValueError("a clinical column is named twice")
        return self
