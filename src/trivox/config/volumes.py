"""Parts of a recipe that reconstructs volumes from X-rays."""

from typing import Annotated, Literal

from pydantic import Field

from trivox.config.options import Count, Positive, Probability, Range
from trivox.schema import Frozen


class ReconstructionLoss(Frozen):
    """Weights of the parts of the reconstruction loss, each scaled to O(1); 0 leaves a
    part out.

    See `trivox.learning.losses.volumes` for formulas and sources.
    """

    l1: float = Field(0.3, ge=0, description="absolute difference in the HU window")
    l2: float = Field(
        1.0,
        ge=0,
        description="squared difference: the mean of what is possible rather than "
        "the median, which PSNR rewards",
    )
    ssim: float = Field(0.3, ge=0, description="1 - 3-D structural similarity")
    perceptual: float = Field(
        0.1,
        ge=0,
        description="features of a small encoder trained on phantoms, shipped",
    )
    edge: float = Field(0.2, ge=0, description="magnitude of the 3-D Sobel gradient")
    deep_supervision: float = Field(
        0.2, ge=0, description="absolute difference at the coarser decoder scales"
    )
    frequency: float = Field(
        0.1, ge=0, description="spectrum, high frequencies weighted up"
    )
    reprojection: float = Field(
        0.1, ge=0, description="absolute difference of line integrals along the views"
    )


class ReconstructionOptions(Frozen):
    """How a volume is learnt from X-rays (task reconstruction); without effect
    elsewhere. The grid is `patch_size`.
    """

    spacing_mm: Positive | None = Field(
        None, description="of the grid; None: the largest field of view fits"
    )
    window: Range = Field(
        (-1024.0, 1476.0),
        description="HU that the network sees as 0 to 1; errors are measured in it",
    )
    detector: Count | None = Field(
        None, description="pixels along an edge of an X-ray; None: twice the grid"
    )
    views: Literal["random", "stored"] = Field(
        "random",
        description="random: X-rays rendered anew from the CT in each step; "
        "stored: those in the dataset",
    )
    render_factor: Count = Field(
        2, description="voxels along an edge of the rendered CT for one of the grid"
    )
    view_counts: tuple[Annotated[int, Field(ge=0, le=8)], ...] = Field(
        (1, 2, 4, 8),
        min_length=1,
        description="numbers of views that a step draws from",
    )
    angle_jitter: float = Field(
        5.0, ge=0, le=90, description="degrees about the even spacing over 180"
    )
    distance_jitter: float = Field(
        0.03, ge=0, lt=0.2, description="share of the distances to source and detector"
    )
    drop_view: Probability = Field(0.1, description="that a single view is missing")
    no_views: Probability = Field(
        0.03,
        description="that an exam has none: the model learns what it believes then",
    )
    photons: tuple[float, float] | None = Field(
        (1e4, 1e5),
        description="unattenuated photons a pixel, log-uniform; Poisson noise. "
        "None: no noise",
    )
    gain_jitter: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random factor on the views, for uncalibrated X-rays",
    )
    prior: Literal["sirt", "none"] = Field(
        "sirt", description="algebraic reconstruction that the network corrects"
    )
    prior_iterations: Count = Field(10, description="of the prior")
    consistency_steps: int = Field(
        1, ge=0, description="steps towards the measured X-rays at the network's end"
    )
    final_steps: int = Field(
        4,
        ge=0,
        description="more such steps at prediction, where the network has some; "
        "0 for views that do not fit a volume",
    )
    growth: tuple[Count, ...] = Field(
        (), description="coarser grids to train first, for example 32, 64 before 128"
    )
    growth_share: Probability = Field(
        0.5, description="share of training spent on the coarser grids"
    )
    loss: ReconstructionLoss = Field(
        ReconstructionLoss(), description="weights of the parts of the loss"
    )
    adversarial: float = Field(
        0.0,
        ge=0,
        description="weight of the adversarial loss in the last part of training",
    )
    adversarial_share: Probability = Field(
        0.2, description="share of training at its end with the adversarial loss"
    )
    psnr_budget: float = Field(
        0.5,
        ge=0,
        description="dB of validation PSNR that the adversarial part may cost",
    )
