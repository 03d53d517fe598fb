"""`trivox explain`: what a model makes of one case, as figures and as numbers that can
be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_inputs
from trivox.datasets.reading import crop_volume, read_channels
from trivox.errors import DataError, RecipeError
from trivox.evaluation.report.explain_figures import (
    HeatMap,
    Scene,
    StageMaps,
    feature_figure,
    heat_figure,
)
from trivox.files import write_bytes, write_json
from trivox.inference.explain import attention_maps as attention
from trivox.inference.explain.attention_maps import SeenBlock
from trivox.inference.explain.numbers import (
    CHANNELS_SHOWN,
    CONVENTION,
    attention_facts,
    stage_facts,
    window_facts,
)
from trivox.inference.explain.subject import Subject, choose_subject
from trivox.inference.explain.window import (
    feature_maps,
    mean_distance,
    measure_features,
    saliency,
    smoothed,
    source_voxel,
)
from trivox.inference.predictor import Predictor
from trivox.planning.plan import Plan
from trivox.preparation.grid import prepare
from trivox.tasks.console import Console, Quiet
from trivox.version import __version__
from trivox.volumes.volume import Array, Shape

FEATURES, ROLLOUT, SALIENCY, NUMBERS = (
    "feature_maps.png",
    "attention_rollout.png",
    "saliency.png",
    "explain.json",
)
MAPS_A_STAGE = 4
"""A stage with more transformer blocks than this shows its rollout alone."""


@dataclass(frozen=True, eq=False)
class Page:
    """What all figures of a case share."""

    subject: Subject
    scene: Scene
    title: str


def explain(
    model: Path,
    source: Path,
    out: Path,
    *,
    case: str | None = None,
    point: Shape | None = None,
    layers: Sequence[int] | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Write feature maps, attention rollout, saliency and `explain.json` for one case
    into `out`; returns the numbers.

    case: its name, needed where `source` holds several; point: source voxel `(z, y, x)`
    to explain, default: the middle of what is predicted; layers: encoder stages to
    draw, default all.
    """
    console = console or Quiet()
    predictor = Predictor.load(model, device=device, precision="fp32")
    chosen = _case(load_inputs(source, channels=predictor.channels), case, source)
    volume = read_channels(chosen, channels=len(predictor.channels))
    plan = predictor.members[0].plan
    prepared = prepare(crop_volume(volume, None, where=chosen.name), plan)
    subject = choose_subject(predictor, prepared, point, where=chosen.name)
    stages = _stages(plan, layers)
    at = source_voxel(prepared.record, subject.window.voxel) if point is None else point
    title = f"{chosen.name} · {plan.network} · {subject.label} · voxel {at} (z y x)"
    page = Page(subject, _scene(subject, prepared.record.shape), title)
    console.say(
        f"{chosen.name}: voxel {at} (z y x), {subject.chosen}; predicted there: {subject.label}"
    )
    maps = feature_maps(subject.network, subject.window)
    blocks = attention.seen_blocks(subject.network, subject.window)
    notes = _notes(plan, maps, blocks)
    figures = {
        FEATURES: _feature_figure(page, maps, stages) if maps else None,
        ROLLOUT: _attention_figure(page, blocks) if blocks else None,
    }
    gradient, figures[SALIENCY] = _saliency(page)
    found = {
        "trivox": __version__,
        "notice": "Research use only, not a medical device.",
        "model": str(model),
        "identity": predictor.identity,
        "network": plan.network,
        "case": chosen.name,
        "fold": predictor.descriptions[0].weights[0].fold,
        "point": {"source_voxel": at, "chosen": subject.chosen, "label": subject.label},
        "window": window_facts(subject),
        "stages": [
            stage_facts(subject, stage, each) for stage, each in enumerate(maps)
        ],
        "attention": attention_facts(subject, blocks) if blocks else None,
        "saliency": gradient,
        "notes": notes,
        "convention": CONVENTION,
        "files": [
            *(name for name, figure in figures.items() if figure is not None),
            NUMBERS,
        ],
    }
    _write(out, figures, found)
    for note in notes:
        console.say(f"note: {note}")
    return found


def _write(
    out: Path, figures: Mapping[str, bytes | None], found: Mapping[str, Any]
) -> None:
    """Write the files; what an earlier call left and this one does not have is removed."""
    for name, figure in figures.items():
        if figure is None:
            (out / name).unlink(missing_ok=True)
        else:
            write_bytes(out / name, figure)
    write_json(out / NUMBERS, found)


def _case(cases: Sequence[Case], name: str | None, source: Path) -> Case:
    known = ", ".join(case.name for case in cases[:5]) + (
        " ..." if len(cases) > 5 else ""
    )
    if name is None:
        if len(cases) > 1:
            raise DataError(
                f"{source}: holds {len(cases)} cases; choose one with --case NAME ({known})"
            )
        return cases[0]
    found = next((case for case in cases if case.name == name), None)
    if found is None:
        raise DataError(f"{source}: has no case '{name}'; its cases: {known}")
    return found


def _stages(plan: Plan, layers: Sequence[int] | None) -> list[int]:
    known = range(plan.topology.stages)
    wrong = [layer for layer in layers or () if layer not in known]
    if wrong:
        raise RecipeError(
            f"layer {wrong[0]} does not exist; {plan.network} has stages 0 to {known[-1]}, 0 the finest"
        )
    return sorted(set(layers)) if layers else [*known]


def _scene(subject: Subject, shape: Shape) -> Scene:
    """The window as it is drawn; what lies outside of the image of `shape` voxels stays
    black.
    """
    scheme: LabelScheme = subject.plan.labels
    masks = subject.masks.cpu().numpy()
    labels = scheme.decide(masks)
    inside = tuple(
        slice(max(0, -s), n - s)
        for s, n in zip(subject.window.start, shape, strict=True)
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


def _notes(
    plan: Plan, maps: Sequence[Tensor], blocks: Sequence[SeenBlock]
) -> list[str]:
    notes = [] if maps else [f"no {FEATURES}: {plan.network} does not show its stages"]
    return (
        notes if blocks else [*notes, f"no {ROLLOUT}: {plan.network} has no attention"]
    )


def _sized(values: Sequence[float], digits: str = "") -> str:
    return " x ".join(f"{value:{digits}}" for value in values)


def _feature_figure(page: Page, maps: Sequence[Tensor], stages: Sequence[int]) -> bytes:
    subject, rows = page.subject, []
    for stage in stages:
        features, mm = maps[stage], subject.ordered(subject.voxel_mm(stage))
        size = subject.ordered(features.shape[1:])
        title = f"stage {stage} · {len(features)} channels of {_sized(size)} voxels of {_sized(mm, '.3g')} mm (z y x)"
        strongest = measure_features(features).strongest(CHANNELS_SHOWN)
        drawn = {
            channel: subject.canonical(features[channel].cpu().numpy())
            for channel in strongest
        }
        rows.append(StageMaps(title, drawn, mm))
    note = (
        "the channels of each stage that vary most, over the image; ch: channel and range of its colours, without unit "
        "(1st to 99th percentile)"
    )
    return feature_figure(
        page.scene, rows, title=f"Feature maps: {page.title}", note=note
    )


def _attention_figure(page: Page, blocks: Sequence[SeenBlock]) -> bytes:
    rows: list[HeatMap] = []
    for stage in sorted({block.stage for block in blocks}, reverse=True):
        own = [block for block in blocks if block.stage == stage]
        if len(own) > 1:
            rows.append(_rollout_map(page.subject, own))
        if len(own) <= MAPS_A_STAGE:
            rows += [
                _block_map(page.subject, block, number)
                for number, block in enumerate(own)
            ]
    note = "where the network looks for the voxel at the cross: share of its attention on each token, heads averaged"
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
    others[token] = (
        # the skip connections keep much on the token itself, which would hide all
        # others
        0
    )
    what = f"rollout over {len(blocks)} blocks, {weights[token]:.0%} stay on the token itself"
    return _token_map(subject, last, weights, what, top=100 * float(others.max()))


def _block_map(subject: Subject, block: SeenBlock, number: int) -> HeatMap:
    token, start = _start(subject, block)
    weights, dots = attention.look(start, block)[0], None
    title = f"block {number} ({block.kind})"
    if block.points is not None:
        dots, title = (
            _dots(subject, block, token),
            title + ", dots: its sampling points near the slice",
        )
    return _token_map(
        subject, block, weights, title, top=100 * float(weights.max()), dots=dots
    )


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
    voxels = (
        ((places + 0.5) * reduction - 0.5)
        .cpu()
        .numpy()[:, np.argsort(subject.plan.axis_order)]
    )
    return np.concatenate([voxels, weights.cpu().numpy()[:, None]], axis=1)


def _saliency(page: Page) -> tuple[dict[str, Any], bytes]:
    subject = page.subject
    target = subject.target
    gradient = saliency(subject.network, subject.window.image, target).cpu().numpy()
    total = gradient.sum(0)
    shown = subject.canonical(smoothed(total))
    voxels = int(target.sum())
    where = (
        "at the voxel"
        if subject.over == "voxel"
        else f"summed over the {voxels} voxels predicted so"
    )
    everything = float(total.sum())
    facts = {
        "label": subject.label,
        "over": subject.over,
        "voxels": voxels,
        "maximum": float(total.max()),
        "distance_mm": mean_distance(total, subject.window.point, subject.plan.spacing),
        "share_by_channel": {
            name: float(part.sum()) / everything if everything else None
            for name, part in zip(subject.plan.inputs, gradient, strict=True)
        },
    }
    heat = HeatMap(
        f"|gradient| of the logit of {subject.label}, {where}",
        shown,
        page.scene.spacing,
        "logit a unit",
        float(np.percentile(shown, 99.9)) or float(shown.max()),
    )
    note = "how much the prediction changes with each voxel: absolute gradient by normalised intensity, smoothed by 1 voxel"
    return facts, heat_figure(
        page.scene, [heat], title=f"Saliency: {page.title}", note=note
    )
