"""The members of an ensemble: the networks of a model at one scale, with their weights,
windows and mirrored copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from trivox.config.choices import EngineName
from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError, UsageError
from trivox.inference.bundle import LabelBundle
from trivox.inference.classes.reader import ClassReader
from trivox.inference.descriptions import AXES, LabelDescription
from trivox.inference.doubt.uncertainty import wake_dropout
from trivox.inference.engines.choice import fastest_engine
from trivox.inference.engines.engine import Engine
from trivox.inference.engines.kept import Source
from trivox.inference.engines.making import made_engines
from trivox.inference.windows import SlidingWindows
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.checkpoints import load_weights
from trivox.learning.runtime import Runtime, make_runtime
from trivox.memory import memory_ran_out, no_memory
from trivox.networks.class_head import LesionMasks, MultitaskNetwork, add_class_head
from trivox.networks.registry import build_network
from trivox.planning.plan import Plan
from trivox.volumes.volume import Spacing

MISFIT = "Error(s) in loading state_dict"
"""How torch begins when names or shapes of weights are not those of a network."""

SCALES = (0.05, 20.0)
"""Sizes at which structures may be looked at; beyond them no network knows them."""


@dataclass(frozen=True, eq=False)
class Member:
    """Networks of one plan at one scale, run together.

    passes: Monte Carlo dropout passes of each; 0: no dropout; readers: of the networks
    that also know the class of a case; previous: finds the labels that these refine.
    """

    plan: Plan
    windows: SlidingWindows
    temperature: float = 1.0
    passes: int = 0
    readers: tuple[ClassReader, ...] = ()
    previous: "Member | None" = None

    def votes(self) -> list[SlidingWindows]:
        """What votes alone: a network with a mirrored copy, as often as there are
        passes.
        """
        return self.windows.votes() * max(1, self.passes)

    def spared(self, lean: bool) -> "Member":
        """The same; lean: that leaves a GPU to the networks, see `SlidingWindows`."""
        return replace(self, windows=replace(self.windows, lean=lean))


@dataclass(frozen=True)
class WindowOptions:
    """How the windows of a member look at an image.

    mirror: average over mirrored copies; overlap: of windows; None: as the description
    says. passes: with random dropout; engine: what computes the networks.
    """

    mirror: bool | None = None
    overlap: float | None = None
    passes: int = 0
    engine: EngineName = "torch"

    def overlap_of(self, description: LabelDescription) -> float:
        """Overlap of the windows of a model."""
        return description.overlap if self.overlap is None else self.overlap

    def axes_of(self, description: LabelDescription) -> tuple[int, ...]:
        """Axes of the patch along which copies are mirrored."""
        names: Sequence[str] = description.mirror_axes
        if self.mirror is not None:
            names = description.may_mirror if self.mirror else ()
        axes = (AXES.index(name) for name in names)
        return tuple(axis for axis in axes if description.plan.patch_size[axis] > 1)


def fitting_runtime(
    runtime: Runtime, descriptions: Sequence[LabelDescription]
) -> Runtime:
    """The runtime that models are made for: those that sum in half precision are
    nnU-Net's, which computes in fp16 on GPUs and in fp32 elsewhere.
    """
    if all(each.plan.grid.sums == "single" for each in descriptions):
        return runtime
    precision = "fp16" if runtime.device.type == "cuda" else "fp32"
    return replace(runtime, precision=precision)


def load_members(
    bundles: Sequence[LabelBundle],
    runtime: Runtime,
    options: WindowOptions,
    scales: Sequence[float],
) -> tuple[Member, ...]:
    """The members of each bundle at each scale."""
    members: list[Member] = []
    for bundle in bundles:
        member = _load_member_of(bundle, bundle.description, runtime, options)
        members += [scaled_member(member, scale) for scale in scales]
    return tuple(members)


def _load_member_of(
    bundle: LabelBundle,
    description: LabelDescription,
    runtime: Runtime,
    options: WindowOptions,
) -> Member:
    """A model whose files lie in a bundle, with the one that it refines, which has
    neither dropout nor classes.
    """
    weights = bundle.checked(description.weights)
    classifiers = bundle.checked(description.classifiers)
    member = load_member(description, weights, classifiers, runtime, options)
    if description.previous is None:
        return member
    certain = replace(options, passes=0)
    previous = _load_member_of(bundle, description.previous, runtime, certain)
    return replace(member, previous=previous)


def load_member(
    description: LabelDescription,
    weights: Sequence[Path],
    classifiers: Sequence[Path],
    runtime: Runtime,
    options: WindowOptions,
) -> Member:
    """The networks of a model on the runtime's device.

    classifiers: one for each weights file, or none.
    """
    plan = description.plan
    if options.passes and options.engine != "torch":
        raise UsageError(
            f"--engine {options.engine} has no dropout for --mc-samples; use --engine "
            "torch"
        )
    networks = [
        load_network(description, file).to(runtime.device).eval() for file in weights
    ]
    segmenters = [segmenter_of(network) for network in networks]
    if options.passes:
        for segmenter in segmenters:
            wake_dropout(segmenter)
    axes = options.axes_of(description)
    half = plan.grid.sums == "half"
    # a batch rounds otherwise than its samples alone, and nnU-Net computes these
    alone = half and runtime.device.type == "cpu"
    sources = [
        Source(network, file, plan)
        for network, file in zip(segmenters, weights, strict=True)
    ]
    windows = SlidingWindows(
        made_engines(options.engine, sources, runtime),
        plan.patch_size,
        plan.labels.output_channels,
        overlap=options.overlap_of(description),
        mirror_axes=axes,
        voxels_a_batch=1 if alone else None,
        half=half,
    )
    readers = _readers(description, networks, classifiers, runtime, axes)
    return Member(plan, windows, description.temperature, options.passes, readers)


def computing(engine: Engine) -> dict[str, object]:
    """What a network was computed in and by what, for the record; torch is not named."""
    others = {} if engine.name == "torch" else {"engine": engine.name}
    return {"precision": engine.precision, **others}


def quickest(
    bundle: LabelBundle, device: str, precision: str, *, passes: int
) -> EngineName:
    """The engine that computes a model fastest here; dropout is torch's alone.

    passes: with random dropout. Raises `BundleError`.
    """
    if passes:
        return "torch"
    runtime = make_runtime(device, precision)
    if precision == "auto":
        fitting = fitting_runtime(runtime, [bundle.description])
        precision = "auto" if fitting == runtime else fitting.precision
        runtime = fitting
    file = bundle.weight_files()[0]
    network = load_network(bundle.description, file).eval()
    source = Source(segmenter_of(network), file, bundle.description.plan)
    return fastest_engine(source, runtime, precision=precision)


def segmenter_of(network: nn.Module) -> nn.Module:
    """The part of a network that finds labels."""
    return network.segmenter if isinstance(network, MultitaskNetwork) else network


def load_network(description: LabelDescription, file: Path) -> nn.Module:
    """A network of a model with its weights; raises `BundleError` for those of another
    one.
    """
    plan = description.plan
    answers = description.classification
    network = build_network(
        plan.network,
        plan.topology,
        channels=len(plan.inputs),
        outputs=plan.labels.output_channels,
        options=plan.network_options,
    )
    if answers is not None:
        network = add_class_head(
            network,
            plan.topology,
            name=plan.network,
            channels=len(plan.inputs),
            classes=len(answers.classes),
            masks=LesionMasks.of(plan.labels, answers.lesion, plan.spacing),
            width=answers.width,
        )
    fill_network(network, file)
    return network


def fill_network(network: nn.Module, file: Path) -> None:
    """Give a network its weights; raises `BundleError` for those of another one."""
    try:
        network.load_state_dict(load_weights(file))
    except RuntimeError as error:
        if memory_ran_out(error):
            raise no_memory(error) from error
        if not str(error).startswith(MISFIT):
            raise
        raise BundleError(
            f"{file}: weights do not fit the plan of the bundle (made by another "
            "version?); train again"
        ) from error


def _readers(
    description: LabelDescription,
    networks: Sequence[nn.Module],
    classifiers: Sequence[Path],
    runtime: Runtime,
    mirror_axes: tuple[int, ...],
) -> tuple[ClassReader, ...]:
    """What reads the class of a case with each network; none for a model without
    classes.
    """
    answers = description.classification
    if answers is None:
        return ()
    answering: list[CaseClassifier | None] = [None] * len(networks)
    if classifiers:
        answering = [CaseClassifier.load(file) for file in classifiers]
    if len(answering) != len(networks):
        raise BundleError(
            f"{classifiers[0].parent}: {len(answering)} classifiers for "
            f"{len(networks)} networks; export it again"
        )
    readers = []
    for network, classifier in zip(networks, answering, strict=True):
        assert isinstance(network, MultitaskNetwork)
        reader = ClassReader.of(
            network,
            description.plan,
            answers.lesion,
            runtime,
            mirror_axes=mirror_axes,
            classifier=classifier,
            temperature=answers.temperature,
            clinical=answers.clinical,
        )
        readers.append(reader)
    return tuple(readers)


def scaled_member(member: Member, scale: float) -> Member:
    """The same networks looking at another spacing; what they read about the class
    holds for their own spacing only.
    """
    if scale == 1:
        return member
    spacing = scaled_spacing(member.plan, scale)
    plan = member.plan.model_copy(update={"spacing": spacing})
    return replace(member, plan=plan, readers=())


def scaled_spacing(plan: Plan, scale: float) -> Spacing:
    """The spacing at which structures look `scale` times as large; axes that the
    network sees in slices keep theirs.
    """
    z, y, x = (
        mm / scale if voxels > 1 else mm
        for mm, voxels in zip(plan.spacing, plan.patch_size, strict=True)
    )
    return z, y, x


def require_alike(bundles: Sequence[LabelBundle]) -> None:
    """Raise `BundleError` where models cannot vote on a case together."""
    first = bundles[0]
    for bundle in bundles[1:]:
        if _meaning(bundle.description) != _meaning(first.description):
            raise BundleError(
                f"{bundle.folder}: labels, channels or classes differ from "
                f"{first.folder}: they cannot vote"
            )
        if bundle.description.plan.grid.axes != first.description.plan.grid.axes:
            raise BundleError(
                f"{bundle.folder}: one of it and {first.folder} reads images as they are "
                "stored, the other turned to RAS: they cannot vote; predict with each alone"
            )


def require_scales(scales: Sequence[float]) -> None:
    """Raise `UsageError` for scales that structures cannot be looked at."""
    low, high = SCALES
    if not scales or not all(low <= scale <= high for scale in scales):
        raise UsageError(
            f"scales {list(scales)} must be numbers from {low:g} to {high:g}"
        )


def settings_of(
    members: Sequence[Member], descriptions: Sequence[LabelDescription]
) -> dict[str, object]:
    """How models look at images and clean what they see, ready for JSON."""
    windows = [member.windows for member in members]
    rules = [each.postprocessing for each in descriptions]
    return {
        "overlap": [each.overlap for each in windows],
        "mirror_axes": [list(each.mirror_axes) for each in windows],
        **computing(windows[0].engines[0]),
        "postprocessing": [rule.model_dump(mode="json") for rule in rules],
        "temperature": [member.temperature for member in members],
    }


def require_scale_one(scales: Sequence[float]) -> None:
    """Raise `UsageError` where a class cannot be read; see `scaled_member`."""
    if 1.0 not in scales:
        raise UsageError(
            f"scales {list(scales)}: the class of a case is read at scale 1; add it to "
            "the scales"
        )


def _meaning(
    description: LabelDescription,
) -> tuple[LabelScheme, tuple[str, ...], tuple[str, ...]]:
    """What goes in and what comes out of a model: labels, channels, classes."""
    answers = description.classification
    classes = () if answers is None else answers.classes
    return description.plan.labels, description.plan.channels, classes
