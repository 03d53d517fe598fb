"""Sheets of panels in rows and columns, to one scale in mm, with heads, row names,
legends and a scale bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.report.drawing import (
    INK,
    WIDTH,
    Plane,
    Size,
    dark_figure,
    draw_grey_cut,
    escaped,
    grey_range,
    heading,
    mark_sides,
    name_above,
    panel,
    png,
    scale_bar,
)
from trivox.volumes.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# inches
LEFT = 0.62
GAP = 0.14
TOP = 0.98
FOOT = 0.46
LEGEND_ROW = 0.26
ROW_HEIGHT = 2.5
LONE_HEIGHT = 4.0
HANDLE = 0.62
"""Of a legend, with its gaps."""
LETTER = 0.078

LEGEND_COLUMNS = 6
LONGEST = 36

Legend = Mapping[str, Any]
"""Name -> the line or patch that stands for it."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """A page of panels in rows and columns, all to one scale (inches per mm)."""

    figure: "Figure"
    axes: list[list["Axes"]]
    scale: float


def make_sheet(
    sizes: Sequence[Sequence[Size]], *, title: str, note: str, legends: Sequence[Legend]
) -> Sheet:
    """Panels of `sizes` in rows and columns below a title and a note, with legends
    below each other at the bottom.
    """
    mm = np.array(sizes)  # (row, column, width and height)
    widths = mm[..., 0].max(axis=0).tolist()
    heights = mm[..., 1].max(axis=1).tolist()
    tallest = ROW_HEIGHT if len(sizes) > 1 else LONE_HEIGHT
    room = WIDTH - LEFT - GAP * len(widths)
    scale = min(room / sum(widths), tallest / max(heights))
    foot = FOOT + LEGEND_ROW * sum(_rows(legend) for legend in legends)
    total = TOP + sum(heights) * scale + GAP * (len(heights) - 1) + foot
    figure = dark_figure(total)
    left = (WIDTH - sum(widths) * scale - GAP * (len(widths) - 1) + LEFT) / 2
    axes = []
    bottom = total - TOP
    for row, height in zip(sizes, heights, strict=True):
        bottom -= height * scale
        axes.append(_panels(figure, row, widths, height, (left, bottom), scale))
        bottom -= GAP
    heading(figure, title, down=0.12, fontsize=12)
    heading(figure, note, down=0.38, fontsize=9, alpha=0.8)
    _add_legends(figure, legends, foot - FOOT + 0.1)
    return Sheet(figure, axes, scale)


def _panels(
    figure: "Figure",
    row: Sequence[Size],
    widths: Sequence[float],
    height: float,
    corner: tuple[float, float],
    scale: float,
) -> list["Axes"]:
    """A row of panels, each in the middle of its column; corner: its left and lower
    end in inches.
    """
    left, bottom = corner
    panels = []
    for (w, h), width in zip(row, widths, strict=True):
        x = left + (width - w) / 2 * scale
        y = bottom + (height - h) / 2 * scale
        panels.append(panel(figure, (x, y, w * scale, h * scale)))
        left += width * scale + GAP
    return panels


def shortened(name: str, longest: int = LONGEST) -> str:
    """At most `longest` letters, without what matplotlib would read as mathematics."""
    return escaped(name if len(name) <= longest else name[: longest - 1] + "…")


def _columns(legend: Legend) -> int:
    """As many as the longest name leaves room for."""
    longest = max(min(LONGEST, len(name)) for name in legend)
    fitting = int((WIDTH - 0.3) / (HANDLE + LETTER * longest))
    return max(1, min(len(legend), LEGEND_COLUMNS, fitting))


def _rows(legend: Legend) -> int:
    return -(-len(legend) // _columns(legend)) if legend else 0


def _add_legends(figure: "Figure", legends: Sequence[Legend], top: float) -> None:
    """Legends below each other, the first `top` inches above the figure's end."""
    height = figure.get_size_inches()[1]
    for legend in filter(None, legends):
        figure.legend(
            handles=list(legend.values()),
            labels=[shortened(name) for name in legend],
            loc="upper center",
            bbox_to_anchor=(0.5, top / height),
            ncols=_columns(legend),
            frameon=False,
            labelcolor=INK,
            fontsize=9,
            handlelength=2.4,
            columnspacing=1.6,
            borderpad=0,
            borderaxespad=0,
        )
        top -= LEGEND_ROW * _rows(legend)


def finish(sheet: Sheet, size: Size) -> bytes:
    """PNG of the sheet, with a scale bar below its last row; size: of the first panel
    in that row, in mm.
    """
    scale_bar(sheet.axes[-1][0], size[0], sheet.scale, below_points=14)
    return png(sheet.figure)


def draw_grey(axes: "Axes", cut: Array, size: Size, plane: Plane) -> None:
    """A slice in grey, with orientation marks inside its edges."""
    from matplotlib.patheffects import Normal, Stroke

    draw_grey_cut(axes, cut, size, grey_range([cut]))
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, size[1])
    rim = [Stroke(linewidth=2, foreground="black"), Normal()]
    mark_sides(axes, plane.marks, outwards=-7, fontsize=8.5, path_effects=rim)


def column_head(axes: "Axes", text: str) -> None:
    """A name above a panel."""
    name_above(axes, shortened(text), up=5, fontsize=9.5, va="bottom")


def row_name(axes: "Axes", text: str) -> None:
    """A name along the left of a panel."""
    axes.annotate(
        shortened(text),
        (0, 0.5),
        xycoords="axes fraction",
        xytext=(-6, 0),
        color=INK,
        fontsize=9.5,
        textcoords="offset points",
        ha="right",
        va="center",
        rotation=90,
        multialignment="center",
        annotation_clip=False,
    )
