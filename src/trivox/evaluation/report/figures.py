"""Overlay figures: three planes of a case with prediction and reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.report.case_view import best_slices
from trivox.evaluation.report.drawing import (
    INK,
    PALETTE,
    PLANES,
    WIDTH,
    dark_figure,
    draw_cut,
    draw_grey_cut,
    escaped,
    frame_plane,
    grey_range,
    heading,
    legend_below,
    outline,
    panel,
    png,
    scale_bar,
)
from trivox.volumes.volume import Array, Shape, Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN = 0.42
"""Inches around each panel."""
HEADER = 0.85
FOOTER = 0.62
LEGEND_ROW = 0.26
MAXIMUM_HEIGHT = 5.0
MAXIMUM_NAMES = 12
LEGEND_COLUMNS = 5


@dataclass(frozen=True, eq=False)
class _Overlay:
    """What is drawn: arrays `(z, y, x)` on one grid and the slice of each plane."""

    image: Array
    prediction: Array
    reference: Array | None
    spacing: Spacing
    slices: Shape

    def cuts(self, array: Array) -> list[Array]:
        """The slice of each plane."""
        return [
            plane.cut(array, index)
            for plane, index in zip(PLANES, self.slices, strict=True)
        ]


def overlay_figure(
    image: Array,
    prediction: Array,
    reference: Array | None,
    *,
    spacing: Spacing,
    names: Sequence[str],
    title: str,
    at: Shape | None = None,
) -> bytes:
    """PNG of the axial, coronal and sagittal slices that show the reference (else the
    prediction) best, or that go through the voxel `at` `(z, y, x)`.

    image, prediction, reference: `(z, y, x)` on one canonical grid (x to the right, y
    to the front, z upwards); spacing in mm `(z, y, x)`. names: of the indices 1, 2, ...
    in the label arrays. The prediction is filled, the reference outlined; both in the
    label's colour.
    """
    slices = at or _slices(prediction, reference, len(names))
    overlay = _Overlay(image, prediction, reference, spacing, slices)
    colours = _colours(overlay, len(names))
    sizes = [plane.size_mm(image.shape, spacing) for plane in PLANES]
    across = sum(width for width, _ in sizes)
    tallest = max(height for _, height in sizes)
    # inches per mm, the same for all planes
    scale = min((WIDTH - 6 * MARGIN) / across, MAXIMUM_HEIGHT / tallest)
    names_shown = min(len(colours), MAXIMUM_NAMES + 1) + 2
    foot = FOOTER + -(-names_shown // LEGEND_COLUMNS) * LEGEND_ROW
    figure = dark_figure(tallest * scale + HEADER + foot)
    limits = grey_range(overlay.cuts(image))
    left = (WIDTH - across * scale - 4 * MARGIN) / 2
    for number, (w, h) in enumerate(sizes):
        bottom = foot + (tallest - h) * scale / 2
        axes = panel(figure, (left, bottom, w * scale, h * scale))
        _draw_plane(axes, overlay, number, limits, colours)
        left += w * scale + 2 * MARGIN
        if number == 0:
            scale_bar(axes, w, scale)
    heading(figure, title, down=0.12, fontsize=12)
    _legend(figure, names, colours, has_reference=reference is not None)
    return png(figure)


def _slices(prediction: Array, reference: Array | None, count: int) -> Shape:
    has_reference = reference is not None and (reference > 0).any()
    shown = reference if reference is not None and has_reference else prediction
    largest = max(count, int(shown.max()))
    return best_slices(shown, [(index,) for index in range(1, largest + 1)])


def _draw_plane(
    axes: "Axes",
    overlay: _Overlay,
    number: int,
    limits: tuple[float, float],
    colours: Mapping[int, str],
) -> None:
    plane = PLANES[number]
    index = overlay.slices[number]
    size = plane.size_mm(overlay.image.shape, overlay.spacing)
    draw_grey_cut(axes, plane.cut(overlay.image, index), size, limits)
    draw_cut(axes, _filled(plane.cut(overlay.prediction, index), colours), size)
    if overlay.reference is not None:
        cut = plane.cut(overlay.reference, index)
        row_mm = overlay.spacing[plane.rows]
        outline(axes, cut, row_mm, overlay.spacing[plane.columns], colours)
    frame_plane(axes, plane, f"{plane.title} · slice {index + 1}", size)


def _colours(overlay: _Overlay, count: int) -> dict[int, str]:
    """Colour of each label: its own where the palette suffices, else in turn for those
    that are seen.
    """
    maps = [overlay.prediction]
    if overlay.reference is not None:
        maps.append(overlay.reference)
    values: set[int] = set()
    for labels in maps:
        for cut in overlay.cuts(labels):
            values.update(np.unique(cut[cut > 0]).tolist())
    if count <= len(PALETTE):
        values.update(range(1, count + 1))
    return {value: PALETTE[i % len(PALETTE)] for i, value in enumerate(sorted(values))}


def _filled(labels: Array, colours: Mapping[int, str]) -> Array:
    """Label indices to translucent RGBA `(rows, columns, 4)`."""
    from matplotlib.colors import to_rgba

    table = np.zeros((max(colours, default=0) + 1, 4))
    for value, colour in colours.items():
        table[value] = to_rgba(colour, 0.45)
    return np.asarray(table[labels.clip(min=0)])


def _legend(
    figure: "Figure",
    names: Sequence[str],
    colours: Mapping[int, str],
    *,
    has_reference: bool,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for value in list(colours)[:MAXIMUM_NAMES]:
        name = names[value - 1] if value <= len(names) else f"label {value}"
        handles.append(Patch(facecolor=colours[value], label=escaped(name)))
    more = len(colours) - len(handles)
    if more:
        handles.append(Line2D([], [], linestyle="none", label=f"and {more} more"))
    handles.append(Patch(facecolor=INK, alpha=0.45, label="filled: prediction"))
    if has_reference:
        line = Line2D([], [], color=INK, linewidth=1.5, label="line: reference")
        handles.append(line)
    legend_below(figure, handles, columns=LEGEND_COLUMNS)
