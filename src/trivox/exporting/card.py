"""What `export.json` says: the files of an export, and all that a program has to do
around the networks.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field

from trivox.config.choices import ExportTarget
from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError
from trivox.inference.descriptions import AXES, LabelDescription
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.rules.region_rules import fallback_table, outer_first
from trivox.planning.grid_rules import GridRules
from trivox.planning.plan import Normalisation
from trivox.schema import Frozen
from trivox.version import NOTICE, __version__

FORMAT_VERSION = 1
CARD = "export.json"
Runtime = Literal["onnx", "openvino", "tensorrt"]


class RegionStep(Frozen):
    """What is done with the components of one region, in this order: all but the
    largest go, then those below `remove_small` mm3, then all if less than
    `replace_small` mm3 is left.

    indices: of the labels that make up the region; fallback: the index that a voxel of
    each index takes when it leaves the region.
    """

    name: str
    indices: tuple[int, ...]
    largest: bool
    remove_small: float
    replace_small: float
    fallback: tuple[int, ...]


def region_steps(description: LabelDescription) -> tuple[RegionStep, ...]:
    """The rules of regions as steps, outer regions first."""
    labels = description.plan.labels
    rules = description.postprocessing.of_regions()
    fallback = fallback_table(labels)
    names = list(labels.targets)
    steps = []
    for row in outer_first(labels):
        name = names[row]
        if name not in rules:
            continue
        rule = rules[name]
        step = RegionStep(
            name=name,
            indices=labels.targets[name],
            largest=rule.largest,
            remove_small=rule.remove_small,
            replace_small=rule.replace_small,
            fallback=tuple(int(index) for index in fallback[row]),
        )
        steps.append(step)
    return tuple(steps)


class ClassNetwork(Frozen):
    """What one network answers about the class of a case.

    network: file of the graph that reads windows, None: the answer does not need it;
    classifier: file that answers in place of the graph's own logits, which are divided
    by `temperature`.
    """

    network: str | None
    classifier: str | None
    temperature: float


class ClassSteps(Frozen):
    """How the class of a case is read where its lesion is.

    names: of the classes; lesion, others: label indices of the lesion, and of other
    targets by name; rim_mm: thickness of the shell round the lesion; outputs: of the
    networks that make up the lesion; likeliest: voxels that stand for a lesion that was
    not predicted; mirror_axes: along which one copy of a window is mirrored; pooled,
    widths: names of the masks and channels of the stages that features are of.
    """

    names: tuple[str, ...]
    lesion: tuple[int, ...]
    others: dict[str, tuple[int, ...]]
    rim_mm: float
    outputs: tuple[int, ...]
    likeliest: int
    mirror_axes: tuple[int, ...]
    pooled: tuple[str, ...]
    widths: tuple[int, ...]
    networks: tuple[ClassNetwork, ...]


class Pipeline(Frozen):
    """All that a program needs beside the networks, to make of an image what `trivox
    predict` makes of it.

    networks: files; their logits are averaged, and those of mirrored copies along
    `mirror_axes` (0 is z). inputs: what the networks see, the channels first. values,
    names: of each label index, background first; paint: for each region the index that
    it is painted with and the regions that must be there as well; region_steps: the
    rules of `postprocessing` for regions, worked out; classes: how the class of a case
    is read, of models and targets that have one.
    """

    networks: tuple[str, ...] = Field(min_length=1)
    input: str
    output: str
    channels: tuple[str, ...]
    inputs: tuple[str, ...]
    normalisations: tuple[Normalisation, ...]
    mask_channel: bool
    axis_order: tuple[int, int, int]
    spacing: tuple[float, float, float]
    grid: GridRules
    patch_size: tuple[int, int, int]
    overlap: float
    mirror_axes: tuple[int, ...]
    labels: LabelScheme
    values: tuple[int, ...]
    names: tuple[str, ...]
    targets: dict[str, tuple[int, ...]]
    outputs: int
    paint: tuple[tuple[int, tuple[int, ...]], ...]
    postprocessing: Postprocessing
    region_steps: tuple[RegionStep, ...] = ()
    classes: ClassSteps | None = None

    @classmethod
    def of(
        cls,
        description: LabelDescription,
        networks: Sequence[str],
        names: "Ends",
        classes: ClassSteps | None = None,
    ) -> Self:
        """Of a model whose networks lie in files; raises `BundleError` for a model that
        needs another one before it.
        """
        plan = description.plan
        if plan.refines:
            raise BundleError(
                "the model refines the labels of a coarser one, which an export cannot "
                "run; predict with the bundle"
            )
        labels = plan.labels
        by_value = {value: name for name, value in labels.labels.items()}
        painted = zip(labels.region_order, labels.containing, strict=True)
        return cls(
            networks=tuple(networks),
            input=names[0],
            output=names[1],
            channels=plan.channels,
            inputs=plan.inputs,
            normalisations=plan.normalisations,
            mask_channel=plan.mask_channel,
            axis_order=plan.axis_order,
            spacing=plan.spacing,
            grid=plan.grid,
            patch_size=plan.patch_size,
            overlap=description.overlap,
            mirror_axes=_mirrored(description),
            labels=labels,
            values=labels.values,
            names=("background", *(by_value[value] for value in labels.values[1:])),
            targets=labels.targets,
            outputs=labels.output_channels,
            paint=tuple(
                (labels.values.index(value), holders) for value, holders in painted
            ),
            postprocessing=description.postprocessing,
            region_steps=region_steps(description),
            classes=classes,
        )


Ends = tuple[str, str]
"""What the graph calls its input and its output."""


class ExportFile(Frozen):
    """A file of the export."""

    file: str
    sha256: str
    bytes: int


class ExportCard(Frozen):
    """What was exported, from what, with which versions, and what was verified.

    engine: what was asked for; runtime: what computes the networks; batches: fewest,
    usual and most windows at once; served: names of a server's models, by the runtime
    that computes them, `volume`: what makes label maps; left_out: what the model does
    and the export does not.
    """

    task: str
    format_version: Literal[1] = 1
    trivox_version: str = __version__
    notice: str = NOTICE
    engine: ExportTarget
    runtime: Runtime
    opset: int
    precision: str
    model: str
    files: tuple[ExportFile, ...]
    versions: dict[str, str]
    batches: tuple[int, int, int] = (1, 1, 1)
    served: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    pipeline: Pipeline
    verified: dict[str, Any] | None = None


def left_out(
    description: LabelDescription, *, halves: bool, classes: bool
) -> tuple[str, ...]:
    """What a model does and its export does not; halves: whether the export sums in
    half precision where the model does; classes: whether it answers with a class.
    """
    lines = []
    if description.classification is not None and not classes:
        lines.append("the class of the case: the export gives the label map alone")
    if description.plan.grid.sums == "half" and not halves:
        lines.append("sums in half precision, which decide between equal classes")
    return tuple(lines)


def _mirrored(description: LabelDescription) -> tuple[int, ...]:
    axes = (AXES.index(name) for name in description.mirror_axes)
    return tuple(axis for axis in axes if description.plan.patch_size[axis] > 1)
