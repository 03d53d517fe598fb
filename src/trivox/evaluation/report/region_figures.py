"""Figures of one case: its channels side by side with outlines, reference beside
prediction, and maps of the errors.

Radiological convention as in the overlay figure; everything to scale in mm. Outlines
differ in colour and kind of line, errors in colour, lightness and hatching, so that
both also read in grey.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.datasets.labels import IGNORED
from trivox.evaluation.report.case_view import (
    CaseView,
    best_slices,
    clearest_channel,
    member_mask,
)
from trivox.evaluation.report.figures import (
    LINES,
    PALETTE,
    Plane,
    outline_mask,
    shown_planes,
)
from trivox.evaluation.report.sheets import (
    Legend,
    Size,
    column_head,
    draw_grey,
    finish,
    make_sheet,
    row_name,
)
from trivox.volumes.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CHANNELS, CHANNELS_A_ROW, MOST_ROWS, MOST_NAMES = 15, 5, 6, 11

RIGHT, MISSED, SPURIOUS, MISTAKEN = 1, 2, 3, 4
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
    contents = {
        "image": None,
        **({} if view.reference is None else {"reference": view.reference}),
        "prediction": view.prediction,
    }
    blank = len(view.channels) - MOST_CHANNELS
    numbers = range(min(len(view.channels), MOST_CHANNELS))
    blocks = -(-len(numbers) // CHANNELS_A_ROW)
    across = -(-len(numbers) // blocks)
    size = _size(view, plane)
    names = _legend_of_targets(
        view,
        [
            plane.cut(labels, index)
            for labels in contents.values()
            if labels is not None
        ],
    )
    note = _where(view, plane, index) + (
        f" · {blank} more channels not shown" if blank > 0 else ""
    )
    sheet = make_sheet(
        [[size] * across] * (len(contents) * blocks),
        title=title,
        note=note,
        legends=[names],
    )
    for row, axes_row in enumerate(sheet.axes):
        block, (what, labels) = (
            row // len(contents),
            list(contents.items())[row % len(contents)],
        )
        for axes, number in zip(
            axes_row, numbers[block * across : (block + 1) * across], strict=False
        ):
            cut = plane.cut(view.image[number], index)
            draw_grey(axes, cut, size, plane)
            if labels is not None:
                _outlines(axes, view, plane.cut(labels, index), plane)
            else:
                column_head(
                    axes,
                    view.channels[number]
                    + ("" if view.image[number].any() else " (absent)"),
                )
        row_name(axes_row[0], what)
    return finish(sheet, size)


def comparison_figure(view: CaseView, *, title: str) -> bytes:
    """PNG of image, reference, prediction and errors, one row a plane, around the
    labels.

    The image is the channel in which the labels stand out most. Errors look at labels,
    as if they excluded each other.
    """
    view = view.zoomed()
    channel = clearest_channel(view.image, view.shown > 0)
    planes, slices = (
        shown_planes(view.shape),
        best_slices(view.shown, [*view.targets.values()]),
    )
    columns: list[tuple[str, Array | None]] = [(view.channels[channel], None)]
    columns += [] if view.reference is None else [("reference", view.reference)]
    columns += [("prediction", view.prediction)]
    codes = (
        None
        if view.reference is None
        else label_errors(view.prediction, view.reference)
    )
    cuts = [
        plane.cut(labels, slices[plane.axis])
        for plane in planes
        for _, labels in columns
        if labels is not None
    ]
    legends = [
        _legend_of_targets(view, cuts),
        {} if codes is None else _legend_of_errors([*ERRORS]),
    ]
    sizes = [
        [_size(view, plane)] * (len(columns) + (codes is not None)) for plane in planes
    ]
    sheet = make_sheet(sizes, title=title, legends=legends, note="around the labels")
    for plane, axes_row in zip(planes, sheet.axes, strict=True):
        index, size = slices[plane.axis], _size(view, plane)
        for axes in axes_row:
            draw_grey(axes, plane.cut(view.image[channel], index), size, plane)
        for axes, (_, labels) in zip(axes_row, columns, strict=False):
            if labels is not None:
                _outlines(axes, view, plane.cut(labels, index), plane)
        if codes is not None:
            _paint(axes_row[-1], plane.cut(codes, index), size)
        row_name(axes_row[0], _where(view, plane, index, short=True))
    for axes, head in zip(
        sheet.axes[0], [*(name for name, _ in columns), "errors"], strict=False
    ):
        column_head(axes, head)
    return finish(sheet, sizes[0][0])


def error_figure(view: CaseView, *, title: str) -> bytes | None:
    """PNG of true positive, missed and spurious voxels in three planes; None without a
    reference.

    Overlapping targets have a row each, on the channel in which they stand out most;
    exclusive labels share one row, with a fourth kind: a label in the place of another.
    """
    if view.reference is None:
        return None
    view = view.zoomed()
    reference = view.reference
    assert reference is not None
    rows = _error_rows(view, view.prediction, reference)
    planes, slices = (
        shown_planes(view.shape),
        best_slices(view.shown, [*view.targets.values()]),
    )
    sizes = [[_size(view, plane) for plane in planes]] * len(rows)
    kinds = [RIGHT, MISSED, SPURIOUS, *([] if view.overlapping else [MISTAKEN])]
    left_out = len(view.targets) - len(rows) if view.overlapping else 0
    note = "around the labels" + (
        f" · {left_out} more regions not shown" if left_out else ""
    )
    sheet = make_sheet(
        sizes, title=title, legends=[_legend_of_errors(kinds)], note=note
    )
    for (name, (codes, channel)), axes_row in zip(
        rows.items(), sheet.axes, strict=True
    ):
        for plane, axes in zip(planes, axes_row, strict=True):
            index = slices[plane.axis]
            draw_grey(
                axes, plane.cut(view.image[channel], index), _size(view, plane), plane
            )
            _paint(axes, plane.cut(codes, index), _size(view, plane))
        row_name(
            axes_row[0],
            name if len(view.channels) == 1 else f"{name} on {view.channels[channel]}",
        )
    for plane, axes in zip(planes, sheet.axes[0], strict=True):
        column_head(axes, _where(view, plane, slices[plane.axis], short=True))
    return finish(sheet, sizes[0][0])


def _error_rows(
    view: CaseView, prediction: Array, reference: Array
) -> dict[str, tuple[Array, int]]:
    """Errors and the channel to draw them on, by the name of the row."""
    if not view.overlapping:
        return {
            "all labels": (
                label_errors(prediction, reference),
                clearest_channel(view.image, view.shown > 0),
            )
        }
    rows = {}
    for name, indices in list(view.targets.items())[:MOST_ROWS]:
        seen = member_mask(view.shown, indices)
        rows[name] = (
            region_errors(prediction, reference, indices),
            clearest_channel(view.image, seen),
        )
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
    return np.select(conditions, [0, RIGHT, MISSED, SPURIOUS, MISTAKEN], 0).astype(
        np.uint8
    )


def region_errors(prediction: Array, reference: Array, indices: Sequence[int]) -> Array:
    """RIGHT, MISSED or SPURIOUS of each voxel for the target that `indices` make up; 0
    elsewhere and where ignored.
    """
    found, expected = member_mask(prediction, indices), member_mask(reference, indices)
    codes = np.select(
        [found & expected, expected, found], [RIGHT, MISSED, SPURIOUS], 0
    ).astype(np.uint8)
    codes[reference == IGNORED] = 0
    return np.asarray(codes)


def _size(view: CaseView, plane: Plane) -> Size:
    """Width and height of a plane in mm."""
    return view.shape[plane.columns] * view.spacing[plane.columns], view.shape[
        plane.rows
    ] * view.spacing[plane.rows]


def _where(view: CaseView, plane: Plane, index: int, *, short: bool = False) -> str:
    position = f"{plane.title}{chr(10) if short else ' · '}{'zyx'[plane.axis]} = {view.position_mm(plane.axis, index):.1f} mm"
    return position.replace("-", "\u2212")


def _look(view: CaseView, name: str) -> tuple[str, Any]:
    """Colour and kind of line of a target."""
    position = list(view.targets).index(name)
    return PALETTE[position % len(PALETTE)], LINES[position % len(LINES)]


def _outlines(axes: "Axes", view: CaseView, labels: Array, plane: Plane) -> None:
    """Black rims first, then the lines, thinner the further inside: where two regions
    end together, both are seen.
    """
    masks = {
        name: member_mask(labels, indices) for name, indices in view.targets.items()
    }
    voxel = view.spacing[plane.rows], view.spacing[plane.columns]
    depths = {name: view.depth(name) for name in masks}
    widths = {
        name: 1.3 + 0.65 * (max(depths.values()) - depth)
        for name, depth in depths.items()
    }
    for name, mask in masks.items():
        outline_mask(axes, mask, *voxel, "black", width=widths[name] + 1.2)
    for name, mask in sorted(masks.items(), key=lambda item: -widths[item[0]]):
        colour, line = _look(view, name)
        outline_mask(axes, mask, *voxel, colour, width=widths[name], line=line)


def _paint(axes: "Axes", codes: Array, size: Size) -> None:
    """Error codes over a slice: colours voxel by voxel, hatching above."""
    from matplotlib.colors import to_rgba

    table = np.zeros((max(ERRORS) + 1, 4))
    for code, (_, colour, alpha, _) in ERRORS.items():
        table[code] = to_rgba(colour, alpha)
    axes.imshow(
        table[codes],
        extent=(0, size[0], 0, size[1]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    rows, columns = (
        ((np.arange(n + 2) - 0.5) * mm / n)
        for n, mm in zip(codes.shape, size[::-1], strict=True)
    )
    for code, (_, _, _, hatch) in ERRORS.items():
        mask = np.pad(codes == code, 1).astype(float)
        if hatch and mask.any():
            axes.contourf(
                columns, rows, mask, levels=[0.5, 1.5], colors="none", hatches=[hatch]
            )


def _legend_of_targets(view: CaseView, cuts: Sequence[Array]) -> Legend:
    """A line for each target that is seen in one of `cuts`."""
    from matplotlib.lines import Line2D

    seen = [
        name
        for name, indices in view.targets.items()
        if any(member_mask(cut, indices).any() for cut in cuts)
    ]
    handles: dict[str, Any] = {}
    for name in seen[:MOST_NAMES]:
        colour, line = _look(view, name)
        handles[name] = Line2D([], [], color=colour, linestyle=line, linewidth=2)
    if len(seen) > MOST_NAMES:
        handles[f"and {len(seen) - MOST_NAMES} more"] = Line2D([], [], linestyle="none")
    return handles


def _legend_of_errors(kinds: Sequence[int]) -> Legend:
    from matplotlib.patches import Patch

    return {
        ERRORS[kind][0]: Patch(
            facecolor=ERRORS[kind][1],
            hatch=ERRORS[kind][3],
            alpha=max(0.7, ERRORS[kind][2]),
        )
        for kind in kinds
    }
