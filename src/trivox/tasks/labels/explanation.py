"""What a model makes of one case, as figures and as numbers that can be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_inputs
from trivox.datasets.reading import read_channels
from trivox.errors import DataError, RecipeError
from trivox.files import read_json, write_bytes, write_json
from trivox.inference.explain import attention_maps as attention
from trivox.inference.explain.attention_maps import SeenBlock
from trivox.inference.explain.numbers import (
    CONVENTION,
    AttentionFacts,
    StageFacts,
    WindowFacts,
    attention_facts,
    stage_facts,
    window_facts,
)
from trivox.inference.explain.subject import choose_subject
from trivox.inference.explain.window import feature_maps, source_voxel
from trivox.inference.predictor import Predictor
from trivox.inference.prepare import prepare_image
from trivox.outputs import Contents, Kind, object_with, require_folder
from trivox.planning.plan import Plan
from trivox.schema import FORMAT_VERSION
from trivox.tasks.console import Console, Quiet
from trivox.tasks.labels.explanation_figures import (
    Page,
    draw_attention,
    draw_features,
    draw_saliency,
    scene_of,
)
from trivox.version import NOTICE, __version__
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.volume import Shape

FEATURES = "feature_maps.png"
ROLLOUT = "attention_rollout.png"
SALIENCY = "saliency.png"
NUMBERS = "explain.json"
NAMES_SHOWN = 5
EXPLANATION = Kind("explanation", object_with("trivox", "files"))


class PointFacts(TypedDict):
    """The voxel `(z, y, x)` that is explained, how it was chosen, and what is predicted
    there.
    """

    source_voxel: Sequence[int]
    chosen: str
    label: str


class ExplainFile(TypedDict):
    """What explain.json says; attention: None for networks without; files: those of the
    explanation.
    """

    task: str
    format_version: int
    trivox: str
    notice: str
    model: str
    identity: str
    network: str
    case: str
    fold: str
    point: PointFacts
    window: WindowFacts
    stages: Sequence[StageFacts]
    attention: AttentionFacts | None
    saliency: Mapping[str, Any]
    notes: Sequence[str]
    convention: Mapping[str, str]
    files: Sequence[str]


def explain_case(
    model: Path,
    source: Path,
    out: Path,
    *,
    case: str | None = None,
    point: Shape | None = None,
    layers: Sequence[int] | None = None,
    device: str = "auto",
    choice: SeriesChoice = NO_CHOICE,
    console: Console | None = None,
) -> ExplainFile:
    """Write feature maps, attention rollout, saliency and `explain.json` for one case
    into `out`; returns the numbers.

    case: its name, needed where `source` holds several; point: source voxel `(z, y, x)`
    to explain, default: the middle of what is predicted; layers: encoder stages to
    draw, default all; choice: how DICOM images are read.
    """
    _require_own(out)
    console = console or Quiet()
    predictor = Predictor.load(model, device=device, precision="fp32")
    plan = predictor.members[0].plan
    cases = load_inputs(source, channels=predictor.channels)
    chosen = _case(cases, case, source).read_by(choice)
    volume = read_channels(chosen, channels=len(predictor.channels))
    (prepared_case, *_) = prepare_image(volume, predictor.members, where=chosen.name)
    subject = choose_subject(predictor, prepared_case, point, where=chosen.name)
    stages = _stages(plan, layers)
    at = point
    if at is None:
        at = source_voxel(prepared_case.record, subject.window.voxel)
    title = f"{chosen.name} · {plan.network} · {subject.label} · voxel {at} (z y x)"
    page = Page(subject, scene_of(subject, prepared_case.record.shape), title)
    console.say(
        f"{chosen.name}: voxel {at} (z y x), {subject.chosen}; predicted there: "
        f"{subject.label}"
    )
    maps = feature_maps(subject.network, subject.window)
    blocks = attention.seen_blocks(subject.network, subject.window)
    notes = _notes(plan, maps, blocks)
    gradient, drawn = draw_saliency(page)
    figures = {
        FEATURES: draw_features(page, maps, stages) if maps else None,
        ROLLOUT: draw_attention(page, blocks) if blocks else None,
        SALIENCY: drawn,
    }
    written = [name for name, figure in figures.items() if figure is not None]
    facts: ExplainFile = {
        "task": plan.task,
        "format_version": FORMAT_VERSION,
        "trivox": __version__,
        "notice": NOTICE,
        "model": str(model),
        "identity": predictor.identity,
        "network": plan.network,
        "case": chosen.name,
        "fold": predictor.descriptions[0].weights[0].fold,
        "point": {"source_voxel": at, "chosen": subject.chosen, "label": subject.label},
        "window": window_facts(subject),
        "stages": [stage_facts(subject, stage, m) for stage, m in enumerate(maps)],
        "attention": attention_facts(subject, blocks) if blocks else None,
        "saliency": gradient,
        "notes": notes,
        "convention": CONVENTION,
        "files": [*written, NUMBERS],
    }
    _write(out, figures, facts)
    for note in notes:
        console.say(f"note: {note}")
    return facts


def _write(
    out: Path, figures: Mapping[str, bytes | None], facts: Mapping[str, Any]
) -> None:
    """Write the files; what an earlier call left and this one does not have is removed.

    The numbers say first whose the figures are, so that a killed process leaves no
    figure of which nobody knows.
    """
    write_json(out / NUMBERS, {**facts, "files": [*figures, NUMBERS]})
    for name, figure in figures.items():
        if figure is None:
            (out / name).unlink(missing_ok=True)
        else:
            write_bytes(out / name, figure)
    write_json(out / NUMBERS, facts)


def _require_own(out: Path) -> None:
    """Raise unless what has the name of a file here was written by an explanation."""
    numbers = out / NUMBERS
    listed: list[str] = []
    if numbers.is_file() and EXPLANATION.wrote(numbers):
        listed = read_json(numbers)["files"]
    names = (FEATURES, ROLLOUT, SALIENCY)
    others = tuple(name for name in names if name not in listed)
    kinds = {NUMBERS: EXPLANATION}
    require_folder(out, Contents("explanation", kinds, others=others))


def _case(cases: Sequence[Case], name: str | None, source: Path) -> Case:
    known = ", ".join(case.name for case in cases[:NAMES_SHOWN])
    if len(cases) > NAMES_SHOWN:
        known += " ..."
    if name is None and len(cases) > 1:
        raise DataError(
            f"{source}: holds {len(cases)} cases; choose one with --case NAME ({known})"
        )
    if name is None:
        return cases[0]
    chosen = next((case for case in cases if case.name == name), None)
    if chosen is None:
        raise DataError(f"{source}: has no case '{name}'; its cases: {known}")
    return chosen


def _stages(plan: Plan, layers: Sequence[int] | None) -> list[int]:
    known = range(plan.topology.stages)
    wrong = [layer for layer in layers or () if layer not in known]
    if wrong:
        raise RecipeError(
            f"layer {wrong[0]} does not exist; {plan.network} has stages 0 to "
            f"{known[-1]}, 0 the finest"
        )
    return sorted(set(layers)) if layers else [*known]


def _notes(
    plan: Plan, maps: Sequence[Tensor], blocks: Sequence[SeenBlock]
) -> list[str]:
    notes = []
    if not maps:
        notes.append(f"no {FEATURES}: {plan.network} does not show its stages")
    if not blocks:
        notes.append(f"no {ROLLOUT}: {plan.network} has no attention")
    return notes
