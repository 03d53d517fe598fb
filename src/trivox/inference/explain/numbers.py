"""What `explain.json` says about a network and a window, in numbers that can be
compared between models.
"""

from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor
from typing_extensions import TypedDict

from trivox.inference.doubt.uncertainty import probabilities_of
from trivox.inference.explain.attention_maps import (
    SeenBlock,
    measure_attention,
    without_attention,
)
from trivox.inference.explain.subject import Subject
from trivox.inference.explain.window import (
    label_masks,
    measure_features,
    window_logits,
)
from trivox.volumes.volume import Shape, Spacing

CHANNELS_SHOWN = 4

CONVENTION = {
    "positions": (
        "(z, y, x) from 0; source_voxel is the array index in the image file, "
        "everything else lies on canonical axes (RAS) in the window that the network "
        "saw"
    ),
    "network": (
        "one network of the model (see fold), one window, fp32, without mirrored "
        "copies or overlapping windows"
    ),
    "stages": (
        "statistics over the window; dead_channels: share of channels whose standard "
        "deviation is at most 1 % of that of the whole stage"
    ),
    "attention": (
        "means over tokens of the head-averaged weights; relative_entropy 1: looks "
        "everywhere alike; distance_mm: how far a token looks, beside how far it would "
        "if it looked at all its keys alike"
    ),
    "rollout": (
        "product over the blocks of a stage of 0.5 A + 0.5 I (Abnar & Zuidema 2020); "
        "layer scale and feed-forward layers do not enter"
    ),
    "without_attention": (
        "identity ablation at inference: every transformer block passes its input on; "
        "the network was not trained for that, so it shows what it relies on, not what "
        "a network trained without attention would reach; means over the voxels "
        "predicted as foreground with attention; dice: between both predictions, "
        "labels pooled"
    ),
    "saliency": (
        "absolute gradient of the summed logit with respect to the normalised input "
        "(Simonyan et al. 2014); share_by_channel and distance_mm (mean distance from "
        "the voxel) before smoothing"
    ),
}


class WindowFacts(TypedDict):
    """Where the window lies, `(z, y, x)`, and the voxels predicted of each target."""

    size: Shape
    spacing_mm: Spacing
    point: Shape
    predicted_voxels: dict[str, int]


class ChannelFacts(TypedDict):
    """A channel of a feature map."""

    channel: int
    mean: float
    std: float


class StageFacts(TypedDict):
    """The feature map of a stage, `(z, y, x)`; strongest: some channels."""

    stage: int
    channels: int
    size: Shape
    voxel_mm: Spacing
    mean: float
    std: float
    dead_channels: float | None
    strongest: list[ChannelFacts]


Compared = TypedDict("Compared", {"with": float, "without": float, "change": float})
"""A number with and without attention; by functional syntax, `with` is a keyword."""


class Ablation(TypedDict):
    """What the predicted foreground loses without attention; None where there is no
    foreground.
    """

    mean_foreground_logit: Compared | None
    mean_foreground_probability: Compared | None
    dice: float | None


class AttentionFacts(TypedDict):
    """Each transformer block in numbers, and what the network does without all."""

    blocks: list[dict[str, object]]
    without_attention: Ablation


def window_facts(subject: Subject) -> WindowFacts:
    """Where the window lies and what is predicted in it."""
    targets = subject.plan.labels.targets
    masks = subject.masks[-len(targets) :]
    voxels = {name: int(mask.sum()) for name, mask in zip(targets, masks, strict=True)}
    return {
        "size": subject.ordered(subject.plan.patch_size),
        "spacing_mm": subject.ordered(subject.plan.spacing),
        "point": subject.ordered(subject.window.point),
        "predicted_voxels": voxels,
    }


def stage_facts(subject: Subject, stage: int, features: Tensor) -> StageFacts:
    """Statistics of the feature map `(c, z, y, x)` of a stage."""
    measured = measure_features(features)
    return {
        "stage": stage,
        "channels": len(features),
        "size": subject.ordered(features.shape[1:]),
        "voxel_mm": subject.ordered(subject.voxel_mm(stage)),
        "mean": float(features.mean()),
        "std": float(features.std(correction=0)),
        "dead_channels": measured.dead,
        "strongest": [
            {"channel": c, "mean": measured.mean[c], "std": measured.std[c]}
            for c in measured.strongest(CHANNELS_SHOWN)
        ],
    }


def attention_facts(subject: Subject, blocks: Sequence[SeenBlock]) -> AttentionFacts:
    """Entropy and reach of each transformer block, and what the prediction loses
    without all of them.
    """
    facts: list[dict[str, object]] = []
    for index, block in enumerate(blocks):
        numbers = measure_attention(block, subject.voxel_mm(block.stage))
        before = sum(other.stage == block.stage for other in blocks[:index])
        facts.append(
            {
                "stage": block.stage,
                "block": before,
                "kind": block.kind,
                "tokens": subject.ordered(block.grid),
                **asdict(numbers),
            }
        )
    return {"blocks": facts, "without_attention": _ablation(subject)}


def _ablation(subject: Subject) -> Ablation:
    """What the predicted foreground loses when all transformer blocks are skipped."""
    exclusive = subject.plan.labels.exclusive
    masks = subject.masks.clone()
    with without_attention(subject.network):
        without = window_logits(subject.network, subject.window)
    other = label_masks(without, exclusive=exclusive)
    if exclusive:
        masks[0] = False
        other[0] = False
    if not masks.any():
        return {
            "mean_foreground_logit": None,
            "mean_foreground_probability": None,
            "dice": None,
        }
    chance = probabilities_of(subject.logits, exclusive=exclusive)
    chance_without = probabilities_of(without, exclusive=exclusive)
    return {
        "mean_foreground_logit": _compared(subject.logits[masks], without[masks]),
        "mean_foreground_probability": _compared(chance[masks], chance_without[masks]),
        "dice": 2 * int((masks & other).sum()) / int(masks.sum() + other.sum()),
    }


def _compared(whole: Tensor, without: Tensor) -> Compared:
    before = float(whole.mean())
    after = float(without.mean())
    return {"with": before, "without": after, "change": after - before}
