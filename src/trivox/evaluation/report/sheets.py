"""Sheets of panels in rows and columns, to one scale in mm, with heads, row names,
legends and a scale bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivox.evaluation.report.figures import (
    BACKGROUND,
    INK,
    WIDTH,
    Plane,
    grey_range,
    panel,
    png,
    scale_bar,
)
from trivox.volumes.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, GAP, TOP, FOOT, LEGEND_ROW = 0.62, 0.14, 0.98, 0.46, 0.26  # inches
ROW_HEIGHT, LONE_HEIGHT = 2.5, 4.0
LEGEND_COLUMNS, HANDLE, LETTER = (
    6,
    0.62,
    0.078,
)  # most columns; inches of a handle with its gaps, and of a letter
LONGEST = 36

Size = tuple[float, float]
"""Width and height in mm."""
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
    from matplotlib.figure import Figure

    widths = [max(row[i][0] for row in sizes) for i in range(len(sizes[0]))]
    heights = [max(height for _, height in row) for row in sizes]
    tallest = ROW_HEIGHT if len(sizes) > 1 else LONE_HEIGHT
    scale = min(
        (WIDTH - LEFT - GAP * len(widths)) / sum(widths), tallest / max(heights)
    )
    foot = FOOT + LEGEND_ROW * sum(_rows(names) for names in legends)
    total = TOP + sum(heights) * scale + GAP * (len(heights) - 1) + foot
    figure = Figure(figsize=(WIDTH, total), dpi=110, facecolor=BACKGROUND)
    start = (WIDTH - sum(widths) * scale - GAP * (len(widths) - 1) + LEFT) / 2
    axes, bottom = [], total - TOP
    for row, height in zip(sizes, heights, strict=True):
        bottom -= height * scale
        left, found = start, []
        for (w, h), width in zip(row, widths, strict=True):
            place = left + (width - w) / 2 * scale, bottom + (height - h) / 2 * scale
            found.append(panel(figure, (*place, w * scale, h * scale)))
            left += width * scale + GAP
        axes.append(found)
        bottom -= GAP
    for text, down, points, alpha in ((title, 0.12, 12, 1.0), (note, 0.38, 9, 0.8)):
        figure.text(
            0.5,
            1 - down / total,
            text,
            color=INK,
            fontsize=points,
            alpha=alpha,
            ha="center",
            va="top",
            parse_math=False,
        )
    _add_legends(figure, legends, foot - FOOT + 0.1)
    return Sheet(figure, axes, scale)


def shortened(name: str, longest: int = LONGEST) -> str:
    """At most `longest` letters, without what matplotlib would read as mathematics."""
    return (name if len(name) <= longest else name[: longest - 1] + "…").replace(
        "$", r"\$"
    )


def _columns(legend: Legend) -> int:
    """As many as the longest name leaves room for."""
    longest = max(min(LONGEST, len(name)) for name in legend)
    return max(
        1,
        min(
            len(legend),
            LEGEND_COLUMNS,
            int((WIDTH - 0.3) / (HANDLE + LETTER * longest)),
        ),
    )


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
    low, high = grey_range([cut])
    axes.imshow(
        cut,
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=(0, size[0], 0, size[1]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, size[1])
    for mark, place, right, up in zip(
        plane.marks,
        ((0, 0.5), (1, 0.5), (0.5, 1), (0.5, 0)),
        (7, -7, 0, 0),
        (0, 0, -7, 7),
        strict=True,
    ):
        axes.annotate(
            mark,
            place,
            xycoords="axes fraction",
            xytext=(right, up),
            textcoords="offset points",
            color=INK,
            fontsize=8.5,
            ha="center",
            va="center",
            path_effects=_black_rim(),
        )


def _black_rim() -> list[Any]:
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=2, foreground="black"), Normal()]


def column_head(axes: "Axes", text: str) -> None:
    """A name above a panel."""
    axes.annotate(
        shortened(text),
        (0.5, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        color=INK,
        fontsize=9.5,
        textcoords="offset points",
        ha="center",
        va="bottom",
        annotation_clip=False,
    )


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
