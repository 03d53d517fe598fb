"""The figures of `trivox explain`: feature maps, attention and saliency of one case."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.evaluation.report.explain_figures import (
    HeatMap,
    Scene,
    StageMaps,
    feature_figure,
    heat_figure,
)
from trivox.inference.explain import attention_maps as attention
from trivox.inference.explain.attention_maps import SeenBlock
from trivox.inference.explain.numbers import CHANNELS_SHOWN
from trivox.inference.explain.subject import Subject
from trivox.inference.explain.window import (
    mean_distance,
    measure_features,
    saliency,
    smoothed,
)
from trivox.volumes.volume import Array, Shape

MAPS_A_STAGE = 4
"""A stage with more transformer blocks than this shows its rollout alone."""


@dataclass(frozen=True, eq=False)
class Page:
    """What all figures of a case share."""

    subject: Subject
    scene: Scene
    title: str


def scene_of(subject: Subject, shape: Shape) -> Scene:
    """The window as it is drawn; what lies outside of the image of `shape` voxels stays
    black.
    """
    scheme: LabelScheme = subject.plan.labels
    masks = subject.masks.cpu().numpy()
    labels = scheme.decide(masks)
    inside = tuple(
        slice(max(0, -start), size - start)
        for start, size in zip(subject.window.start, shape, strict=True)
    )
    image = np.full(subject.plan.patch_size, np.nan, np.float32)
    image[inside] = subject.window.image[0].cpu().numpy()[inside]
    names = sorted(scheme.labels, key=lambda name: scheme.labels[name])
    return Scene(
        image=subject.canonical(image),
        labels=subject.canonical(labels),
        point=subject.ordered(subject.window.point),
        spacing=subject.ordered(subject.plan.spacing),
        names=names,
    )


def draw_features(page: Page, maps: Sequence[Tensor], stages: Sequence[int]) -> bytes:
    """The strongest channels of each stage over the image."""
    rows = [_stage_maps(page.subject, stage, maps[stage]) for stage in stages]
    note = (
        "the channels of each stage that vary most, over the image; ch: channel and "
        "range of its colours, without unit (1st to 99th percentile)"
    )
    return feature_figure(
        page.scene, rows, title=f"Feature maps: {page.title}", note=note
    )


def _stage_maps(subject: Subject, stage: int, features: Tensor) -> StageMaps:
    mm = subject.ordered(subject.voxel_mm(stage))
    size = subject.ordered(features.shape[1:])
    title = (
        f"stage {stage} · {len(features)} channels of {_sized(size)} voxels of "
        f"{_sized(mm, '.3g')} mm (z y x)"
    )
    strongest = measure_features(features).strongest(CHANNELS_SHOWN)
    drawn = {
        channel: subject.canonical(features[channel].cpu().numpy())
        for channel in strongest
    }
    return StageMaps(title, drawn, mm)


def draw_attention(page: Page, blocks: Sequence[SeenBlock]) -> bytes:
    """Where the network looks for the voxel: each stage's rollout and its blocks."""
    rows: list[HeatMap] = []
    for stage in sorted({block.stage for block in blocks}, reverse=True):
        of_stage = [block for block in blocks if block.stage == stage]
        if len(of_stage) > 1:
            rows.append(_rollout_map(page.subject, of_stage))
        if len(of_stage) <= MAPS_A_STAGE:
            for number, block in enumerate(of_stage):
                rows.append(_block_map(page.subject, block, number))
    note = (
        "where the network looks for the voxel at the cross: share of its attention on "
        "each token, heads averaged"
    )
    return heat_figure(page.scene, rows, title=f"Attention: {page.title}", note=note)


def _start(subject: Subject, block: SeenBlock) -> tuple[int, Tensor]:
    token = attention.token_at(
        subject.window.point, subject.reduction(block.stage), block.grid
    )
    return token, attention.one_hot(token, block.grid, block.features.device)


def _rollout_map(subject: Subject, blocks: Sequence[SeenBlock]) -> HeatMap:
    last = blocks[-1]
    token, start = _start(subject, last)
    weights = attention.rollout(start, blocks)[0]
    others = weights.clone()
    # the skip connections keep much on the token itself, which would hide all others
    others[token] = 0
    what = (
        f"rollout over {len(blocks)} blocks, {weights[token]:.0%} stay on the token "
        "itself"
    )
    return _token_map(subject, last, weights, what, top=100 * float(others.max()))


def _block_map(subject: Subject, block: SeenBlock, number: int) -> HeatMap:
    token, start = _start(subject, block)
    weights = attention.look(start, block)[0]
    title = f"block {number} ({block.kind})"
    dots = None
    if block.points is not None:
        dots = _dots(subject, block, token)
        title += ", dots: its sampling points near the slice"
    top = 100 * float(weights.max())
    return _token_map(subject, block, weights, title, top=top, dots=dots)


def _token_map(
    subject: Subject,
    block: SeenBlock,
    weights: Tensor,
    what: str,
    *,
    top: float,
    dots: Array | None = None,
) -> HeatMap:
    mm = subject.ordered(subject.voxel_mm(block.stage))
    percent = 100 * weights.reshape(block.grid).cpu().numpy()
    title = f"stage {block.stage} · {what} · tokens of {_sized(mm, '.3g')} mm (z y x)"
    return HeatMap(title, subject.canonical(percent), mm, "% a token", top, dots)


def _dots(subject: Subject, block: SeenBlock, token: int) -> Array:
    """Sampling points in voxels of the window, canonical order, and their weights for a
    token: `(k, 4)`.
    """
    places, weights = attention.row_of(block, token)
    reduction = torch.tensor(subject.reduction(block.stage), device=places.device)
    voxels = ((places + 0.5) * reduction - 0.5).cpu().numpy()
    canonical = voxels[:, np.argsort(subject.plan.axis_order)]
    return np.concatenate([canonical, weights.cpu().numpy()[:, None]], axis=1)


def draw_saliency(page: Page) -> tuple[dict[str, object], bytes]:
    """How much the prediction changes with each voxel, as numbers and as a figure."""
    subject = page.subject
    gradient = saliency(subject.network, subject.window.image, subject.target)
    by_channel = gradient.cpu().numpy()
    total = by_channel.sum(0)
    voxels = int(subject.target.sum())
    facts = {
        "label": subject.label,
        "over": subject.over,
        "voxels": voxels,
        "maximum": float(total.max()),
        "distance_mm": mean_distance(total, subject.window.point, subject.plan.spacing),
        "share_by_channel": _shares(subject.plan.inputs, by_channel),
    }
    where = f"summed over the {voxels} voxels predicted so"
    if subject.over == "voxel":
        where = "at the voxel"
    shown = subject.canonical(smoothed(total))
    heat = HeatMap(
        f"|gradient| of the logit of {subject.label}, {where}",
        shown,
        page.scene.spacing,
        "logit a unit",
        float(np.percentile(shown, 99.9)) or float(shown.max()),
    )
    note = (
        "how much the prediction changes with each voxel: absolute gradient by "
        "normalised intensity, smoothed by 1 voxel"
    )
    figure = heat_figure(page.scene, [heat], title=f"Saliency: {page.title}", note=note)
    return facts, figure


def _shares(names: Sequence[str], by_channel: Array) -> dict[str, float | None]:
    """What part of all change each channel has; None where nothing changes."""
    everything = float(by_channel.sum(0).sum())
    shares: dict[str, float | None] = {}
    for name, part in zip(names, by_channel, strict=True):
        shares[name] = float(part.sum()) / everything if everything else None
    return shares


def _sized(values: Sequence[float], digits: str = "") -> str:
    return " x ".join(f"{value:{digits}}" for value in values)
