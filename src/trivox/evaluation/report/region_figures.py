"""Figures of one case: its channels side by side with outlines, reference beside
prediction, and maps of the errors.

Radiological convention as in the overlay figure; everything to scale in mm. Outlines
differ in colour and kind of line, errors in colour, lightness and hatching, so that
both also read in grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.datasets.labels import IGNORED
from trivox.evaluation.report.case_view import (
    CaseView,
    best_slices,
    clearest_channel,
    member_mask,
)
from trivox.evaluation.report.drawing import (
    LINES,
    PALETTE,
    Plane,
    Size,
    Style,
    draw_cut,
    outline_mask,
    shown_planes,
)
from trivox.evaluation.report.sheets import (
    Legend,
    column_head,
    draw_grey,
    finish,
    make_sheet,
    row_name,
)
from trivox.volumes.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CHANNELS = 15
CHANNELS_A_ROW = 5
MOST_ROWS = 6
MOST_NAMES = 11

RIGHT, MISSED, SPURIOUS, MISTAKEN = range(1, 5)
ERRORS = {
    RIGHT: ("true positive", "#009E73", 0.5, ""),
    MISSED: ("missed", "#F0E442", 0.9, ""),
    SPURIOUS: ("spurious", "#D55E00", 0.9, "////"),
    MISTAKEN: ("wrong label", "#CC79A7", 0.9, "...."),
}
"""Name, colour, opacity and hatching of each kind of voxel."""


def channels_figure(view: CaseView, *, title: str) -> bytes:
    """PNG of all channels side by side in the slice that shows the targets best, in the
    plane of the finest voxels.

    One row without anything on it, one with the outlines of the reference, one with
    those of the prediction; more than five channels take more such blocks.
    """
    plane = max(shown_planes(view.shape), key=lambda p: round(view.spacing[p.axis], 3))
    index = best_slices(view.shown, [*view.targets.values()])[plane.axis]
    count = min(len(view.channels), MOST_CHANNELS)
    blocks = -(-count // CHANNELS_A_ROW)
    across = -(-count // blocks)
    size = plane.size_mm(view.shape, view.spacing)
    rows = _channel_rows(view)
    cuts = [plane.cut(labels, index) for _, labels in rows if labels is not None]
    note = _where(view, plane, index)
    if len(view.channels) > count:
        note += f" · {len(view.channels) - count} more channels not shown"
    sheet = make_sheet(
        [[size] * across] * (len(rows) * blocks),
        title=title,
        note=note,
        legends=[_legend_of_targets(view, cuts)],
    )
    for number, axes_row in enumerate(sheet.axes):
        first = number // len(rows) * across
        what, labels = rows[number % len(rows)]
        channels = range(first, min(first + across, count))
        for axes, channel in zip(axes_row, channels, strict=False):
            draw_grey(axes, plane.cut(view.image[channel], index), size, plane)
            if labels is None:
                column_head(axes, _channel_name(view, channel))
            else:
                _draw_outlines(axes, view, plane.cut(labels, index), plane)
        row_name(axes_row[0], what)
    return finish(sheet, size)


def _channel_rows(view: CaseView) -> list[tuple[str, Array | None]]:
    """Name and labels of the rows that each block of channels has."""
    rows: list[tuple[str, Array | None]] = [("image", None)]
    if view.reference is not None:
        rows.append(("reference", view.reference))
    return [*rows, ("prediction", view.prediction)]


def _channel_name(view: CaseView, channel: int) -> str:
    absent = "" if view.image[channel].any() else " (absent)"
    return f"{view.channels[channel]}{absent}"


def comparison_figure(view: CaseView, *, title: str) -> bytes:
    """PNG of image, reference, prediction and errors, one row a plane, around the
    labels.

    The image is the channel in which the labels stand out most. Errors look at labels,
    as if they excluded each other.
    """
    view = view.zoomed()
    channel = clearest_channel(view.image, view.shown > 0)
    planes = shown_planes(view.shape)
    slices = best_slices(view.shown, [*view.targets.values()])
    columns = _channel_rows(view)
    heads = [view.channels[channel], *(name for name, _ in columns[1:])]
    legends = [_legend_of_targets(view, _label_cuts(columns, planes, slices))]
    errors = None
    if view.reference is not None:
        errors = label_errors(view.prediction, view.reference)
        heads.append("errors")
        legends.append(_legend_of_errors([*ERRORS]))
    sizes = [plane.size_mm(view.shape, view.spacing) for plane in planes]
    rows = [[size] * len(heads) for size in sizes]
    sheet = make_sheet(rows, title=title, legends=legends, note="around the labels")
    for plane, size, axes_row in zip(planes, sizes, sheet.axes, strict=True):
        index = slices[plane.axis]
        for axes in axes_row:
            draw_grey(axes, plane.cut(view.image[channel], index), size, plane)
        for axes, (_, labels) in zip(axes_row, columns, strict=False):
            if labels is not None:
                _draw_outlines(axes, view, plane.cut(labels, index), plane)
        if errors is not None:
            _paint(axes_row[-1], plane.cut(errors, index), size)
        row_name(axes_row[0], _where(view, plane, index, short=True))
    for axes, head in zip(sheet.axes[0], heads, strict=True):
        column_head(axes, head)
    return finish(sheet, sizes[0])


def _label_cuts(
    columns: Sequence[tuple[str, Array | None]],
    planes: Sequence[Plane],
    slices: Sequence[int],
) -> list[Array]:
    """The slices of all label maps that are drawn."""
    cuts = []
    for _, labels in columns:
        if labels is not None:
            cuts += [plane.cut(labels, slices[plane.axis]) for plane in planes]
    return cuts


def error_figure(view: CaseView, *, title: str) -> bytes | None:
    """PNG of true positive, missed and spurious voxels in three planes; None without a
    reference.

    Overlapping targets have a row each; exclusive labels share one row, with a fourth
    kind: a label in the place of another. All rows show the same channel, in which the
    labels stand out most, so that they can be compared.
    """
    view = view.zoomed()
    if view.reference is None:
        return None
    rows = _error_rows(view, view.reference)
    planes = shown_planes(view.shape)
    slices = best_slices(view.shown, [*view.targets.values()])
    sizes = [plane.size_mm(view.shape, view.spacing) for plane in planes]
    kinds = [RIGHT, MISSED, SPURIOUS]
    channel = clearest_channel(view.image, view.shown > 0)
    note = "around the labels"
    if len(view.channels) > 1:
        note = f"on {view.channels[channel]}, {note}"
    if not view.overlapping:
        kinds.append(MISTAKEN)
    elif len(view.targets) > len(rows):
        note += f" · {len(view.targets) - len(rows)} more regions not shown"
    sheet = make_sheet(
        [sizes] * len(rows), title=title, legends=[_legend_of_errors(kinds)], note=note
    )
    for row, axes_row in zip(rows, sheet.axes, strict=True):
        for plane, size, axes in zip(planes, sizes, axes_row, strict=True):
            index = slices[plane.axis]
            draw_grey(axes, plane.cut(view.image[channel], index), size, plane)
            _paint(axes, plane.cut(row.errors, index), size)
        row_name(axes_row[0], row.name)
    for plane, axes in zip(planes, sheet.axes[0], strict=True):
        column_head(axes, _where(view, plane, slices[plane.axis], short=True))
    return finish(sheet, sizes[0])


@dataclass(frozen=True, eq=False)
class _ErrorRow:
    """Errors `(z, y, x)` of some labels."""

    name: str
    errors: Array


def _error_rows(view: CaseView, reference: Array) -> list[_ErrorRow]:
    if not view.overlapping:
        errors = label_errors(view.prediction, reference)
        return [_ErrorRow("all labels", errors)]
    rows = []
    for name, indices in list(view.targets.items())[:MOST_ROWS]:
        errors = region_errors(view.prediction, reference, indices)
        rows.append(_ErrorRow(name, errors))
    return rows


def label_errors(prediction: Array, reference: Array) -> Array:
    """RIGHT, MISSED, SPURIOUS or MISTAKEN (another label) of each voxel, 0 for
    background in both and where ignored.
    """
    conditions = [
        reference == IGNORED,
        (prediction > 0) & (prediction == reference),
        (reference > 0) & (prediction <= 0),
        (prediction > 0) & (reference == 0),
        prediction > 0,
    ]
    codes = np.select(conditions, [0, RIGHT, MISSED, SPURIOUS, MISTAKEN], 0)
    return codes.astype(np.uint8)


def region_errors(prediction: Array, reference: Array, indices: Sequence[int]) -> Array:
    """RIGHT, MISSED or SPURIOUS of each voxel for the target that `indices` make up; 0
    elsewhere and where ignored.
    """
    predicted = member_mask(prediction, indices)
    expected = member_mask(reference, indices)
    conditions = [predicted & expected, expected, predicted]
    codes = np.select(conditions, [RIGHT, MISSED, SPURIOUS], 0).astype(np.uint8)
    codes[reference == IGNORED] = 0
    return np.asarray(codes)


def _where(view: CaseView, plane: Plane, index: int, *, short: bool = False) -> str:
    """Name of a plane and the place of a slice in mm; short: on two lines."""
    parting = "\n" if short else " · "
    place = f"{'zyx'[plane.axis]} = {view.position_mm(plane.axis, index):.1f} mm"
    return f"{plane.title}{parting}{place}".replace("-", "\u2212")


def _look(view: CaseView, name: str) -> tuple[str, Any]:
    """Colour and kind of line of a target."""
    position = list(view.targets).index(name)
    return PALETTE[position % len(PALETTE)], LINES[position % len(LINES)]


def _draw_outlines(axes: "Axes", view: CaseView, labels: Array, plane: Plane) -> None:
    """Black rims first, then the lines, thinner the further inside: where two regions
    end together, both are seen.
    """
    row_mm = view.spacing[plane.rows]
    column_mm = view.spacing[plane.columns]
    depths = {name: view.depth(name) for name in view.targets}
    deepest = max(depths.values())
    widths = {name: 1.3 + 0.65 * (deepest - depth) for name, depth in depths.items()}
    masks = {}
    for name, indices in view.targets.items():
        masks[name] = member_mask(labels, indices)
        width = widths[name] + 1.2
        outline_mask(axes, masks[name], row_mm, column_mm, "black", width=width)
    for name in sorted(masks, key=lambda name: -widths[name]):
        colour, line = _look(view, name)
        outline_mask(
            axes,
            masks[name],
            row_mm,
            column_mm,
            colour,
            width=widths[name],
            line=line,
        )


def _paint(axes: "Axes", codes: Array, size: Size) -> None:
    """Error codes over a slice: colours voxel by voxel, hatching above."""
    from matplotlib.colors import to_rgba

    table = np.zeros((max(ERRORS) + 1, 4))
    for code, (_, colour, alpha, _) in ERRORS.items():
        table[code] = to_rgba(colour, alpha)
    draw_cut(axes, table[codes], size)
    rows = _padded_centres(codes.shape[0], size[1])
    columns = _padded_centres(codes.shape[1], size[0])
    for code, (_, _, _, hatch) in ERRORS.items():
        mask = np.pad(codes == code, 1).astype(float)
        if hatch and mask.any():
            style: Style = {"levels": [0.5, 1.5], "colors": "none", "hatches": [hatch]}
            axes.contourf(columns, rows, mask, **style)


def _padded_centres(count: int, mm: float) -> Array:
    """Centres of `count` voxels that are `mm` long together, and of one more at each
    end.
    """
    return (np.arange(count + 2) - 0.5) * mm / count


def _legend_of_targets(view: CaseView, cuts: Sequence[Array]) -> Legend:
    """A line for each target that is seen in one of `cuts`."""
    from matplotlib.lines import Line2D

    shown = []
    for name, indices in view.targets.items():
        if any(member_mask(cut, indices).any() for cut in cuts):
            shown.append(name)
    handles: dict[str, Line2D] = {}
    for name in shown[:MOST_NAMES]:
        colour, line = _look(view, name)
        handles[name] = Line2D([], [], color=colour, linestyle=line, linewidth=2)
    if len(shown) > MOST_NAMES:
        handles[f"and {len(shown) - MOST_NAMES} more"] = Line2D(
            [], [], linestyle="none"
        )
    return handles


def _legend_of_errors(kinds: Sequence[int]) -> Legend:
    from matplotlib.patches import Patch

    handles = {}
    for kind in kinds:
        name, colour, alpha, hatch = ERRORS[kind]
        handles[name] = Patch(facecolor=colour, hatch=hatch, alpha=max(0.7, alpha))
    return handles
