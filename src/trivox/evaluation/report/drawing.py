"""What figures share: colours, panels to scale, the planes of a case, outlines, marks.

matplotlib's object-oriented interface only: no pyplot, so no global state, no display,
safe in threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.volumes.volume import Array, Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
"""Okabe and Ito 2008: told apart with every common colour blindness; black left out,
yellow (faint on white) last.
"""

LINES: tuple[Any, ...] = (
    "solid",
    (0, (4.5, 1.5)),
    (0, (1.6, 0.9)),
    (0, (6, 1.3, 1.2, 1.3)),
)
"""With 4 kinds of lines and 7 colours, 28 labels look different; the first four also in
grey.
"""

BACKGROUND = "#15181c"
INK = "#e8eaed"
WIDTH = 10.0
"""Of every figure, in inches."""
DPI = 110
SIDES = ((0, 0.5, -1, 0), (1, 0.5, 1, 0), (0.5, 1, 0, 1), (0.5, 0, 0, -1))
"""Middles of a panel's left, right, upper and lower edge, and the way out of it."""
LETTER_POINTS = 7.0
"""About how wide a capital letter of a mark is."""

Size = tuple[float, float]
"""Width and height in mm."""
Style = dict[str, Any]
"""How something is drawn, as keywords of matplotlib."""


@dataclass(frozen=True)
class Plane:
    """One of the three planes of a canonical (RAS) array: its axis, the axes shown down
    and across, and the marks.

    Rows run upwards and columns from right to left on the page, so that the patient's
    right (axial, coronal) and front (sagittal) are on the image's left: the
    radiological convention.
    """

    title: str
    axis: int
    rows: int
    columns: int
    marks: tuple[str, str, str, str]  # left, right, top, bottom

    def cut(self, array: Array, index: int) -> Array:
        """A slice of `(z, y, x)` as it is drawn, first row at the bottom."""
        return np.asarray(np.take(array, index, axis=self.axis)[:, ::-1])

    def size_mm(self, shape: Sequence[int], spacing: Spacing) -> Size:
        """Width and height of an array of `shape` `(z, y, x)` in this plane."""
        width = shape[self.columns] * spacing[self.columns]
        height = shape[self.rows] * spacing[self.rows]
        return width, height


PLANES = (
    Plane("axial", 0, 1, 2, ("R", "L", "A", "P")),
    Plane("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    Plane("sagittal", 2, 0, 1, ("A", "P", "S", "I")),
)


def shown_planes(shape: Sequence[int]) -> list[Plane]:
    """Planes that show more than a line of voxels."""
    planes = [p for p in PLANES if shape[p.rows] > 1 and shape[p.columns] > 1]
    return planes or [PLANES[0]]


def png(figure: "Figure") -> bytes:
    """A figure as PNG; without the date and version that would make equal figures
    differ.
    """
    buffer = BytesIO()
    figure.savefig(
        buffer,
        format="png",
        facecolor=figure.get_facecolor(),
        metadata={"Software": None},
    )
    return buffer.getvalue()


def dark_figure(height: float, *, width: float = WIDTH) -> "Figure":
    """An empty dark figure of `width` x `height` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)


def grey_range(planes: Sequence[Array]) -> tuple[float, float]:
    """Grey values shown as black and white: the 1st and 99.5th percentile of what is
    seen.
    """
    values = np.concatenate([plane.ravel() for plane in planes])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))


def panel(figure: "Figure", inches: tuple[float, float, float, float]) -> "Axes":
    """A black panel without ticks at `inches` (left, bottom, width, height) of the
    figure.
    """
    width, height = figure.get_size_inches()
    left, bottom, across, up = inches
    axes = figure.add_axes((left / width, bottom / height, across / width, up / height))
    axes.set_facecolor("black")
    axes.set_axis_off()
    return axes


def draw_cut(axes: "Axes", cut: Array, size: Size, **style: Any) -> Any:
    """A slice, first row at the bottom, stretched to `size`; style: of `imshow`."""
    usual: Style = {
        "extent": (0, size[0], 0, size[1]),
        "origin": "lower",
        "aspect": "auto",
        "interpolation": "nearest",
    }
    return axes.imshow(cut, **(usual | style))


def draw_grey_cut(
    axes: "Axes", cut: Array, size: Size, limits: tuple[float, float]
) -> None:
    """A slice in grey; limits: values shown as black and white."""
    draw_cut(axes, cut, size, cmap="gray", vmin=limits[0], vmax=limits[1])


def frame_plane(axes: "Axes", plane: Plane, name: str, size: Size) -> None:
    """Limits, orientation marks around the panel and a name above it."""
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, size[1])
    mark_sides(axes, plane.marks, fontsize=10)
    name_above(axes, name, up=18, fontsize=9, alpha=0.8)


def mark_sides(
    axes: "Axes", marks: Sequence[str], *, outwards: float = 9, **style: Any
) -> None:
    """Letters at the left, right, upper and lower edge, `outwards` points outside."""
    for mark, (x, y, right, up) in zip(marks, SIDES, strict=True):
        across = outwards + LETTER_POINTS / 2 * (len(mark) - 1)
        axes.annotate(
            mark,
            (x, y),
            xycoords="axes fraction",
            xytext=(right * across, up * outwards),
            textcoords="offset points",
            color=INK,
            ha="center",
            va="center",
            annotation_clip=False,
            **style,
        )


def name_above(axes: "Axes", name: str, *, up: float, **style: Any) -> None:
    """A name `up` points above the middle of a panel."""
    axes.annotate(
        name,
        (0.5, 1),
        xycoords="axes fraction",
        xytext=(0, up),
        textcoords="offset points",
        color=INK,
        ha="center",
        annotation_clip=False,
        **style,
    )


def heading(
    figure: "Figure", text: str, *, down: float, fontsize: float, **style: Any
) -> None:
    """A line in the middle of the figure, `down` inches below its upper end."""
    height = figure.get_size_inches()[1]
    usual: Style = {"color": INK, "parse_math": False, "ha": "center", "va": "top"}
    line = drawable(text)
    figure.text(0.5, 1 - down / height, line, fontsize=fontsize, **(usual | style))


def legend_below(figure: "Figure", handles: Sequence[Any], *, columns: int) -> None:
    """A legend at the figure's lower end."""
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), columns),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=1.4,
        columnspacing=1.6,
    )


def escaped(name: str) -> str:
    """A name as it is, for matplotlib, which reads text between dollars as mathematics."""
    return drawable(name).replace("$", r"\$")


def drawable(text: str) -> str:
    """A text in which `□` stands for what the font lacks."""
    known = _characters()
    return "".join(each if ord(each) in known else "□" for each in text)


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    """Characters of the font that figures are written in."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def outline(
    axes: "Axes",
    labels: Array,
    row_mm: float,
    column_mm: float,
    colours: Mapping[int, str],
) -> None:
    """The outline of each label."""
    for value in np.unique(labels[labels > 0]).tolist():
        for width, colour in ((2.6, "black"), (1.3, colours[value])):
            outline_mask(axes, labels == value, row_mm, column_mm, colour, width=width)


def outline_mask(
    axes: "Axes",
    mask: Array,
    row_mm: float,
    column_mm: float,
    colour: str,
    *,
    width: float,
    line: Any = "solid",
) -> None:
    """The outline of a mask `(rows, columns)`, `width` points wide; nothing if it is
    empty.
    """
    if not mask.any():
        return
    # a figure holds all that its outlines are drawn of: the box of the mask is enough
    first_row, after_row = _extent(mask, axis=1)
    first_column, after_column = _extent(mask, axis=0)
    inside = mask[first_row:after_row, first_column:after_column]
    # background around it closes outlines at the image's border
    padded = np.pad(inside, 1).astype(float)
    rows = (np.arange(padded.shape[0]) + first_row - 0.5) * row_mm
    columns = (np.arange(padded.shape[1]) + first_column - 0.5) * column_mm
    axes.contour(
        columns,
        rows,
        padded,
        levels=[0.5],
        colors=[colour],
        linewidths=width,
        linestyles=[line],
    )


def _extent(mask: Array, axis: int) -> tuple[int, int]:
    """The first and the one after the last line across an axis that a mask reaches."""
    lines = np.flatnonzero(mask.any(axis=axis))
    return int(lines[0]), int(lines[-1]) + 1


def scale_bar(
    axes: "Axes", width_mm: float, scale: float, *, below_points: float = 24
) -> None:
    """A bar of a round length below the panel, about a quarter as wide; scale: inches
    per mm, shared by all planes.
    """
    length = _round_length(width_mm / 3)
    # mm below the panel: clear of the orientation mark
    down = -below_points / 72 / scale
    axes.plot(
        [0, length],
        [down, down],
        color=INK,
        linewidth=2.5,
        solid_capstyle="butt",
        clip_on=False,
    )
    axes.text(
        length, down, f"  {length:g} mm", color=INK, fontsize=9, va="center", ha="left"
    )


def _round_length(longest: float) -> float:
    """The largest of 0.1, 0.2, 0.5, 1 ... 5000 that is at most `longest`, else 0.1."""
    length = 0.1
    for power in range(-1, 4):
        for step in (1, 2, 5):
            if step * 10**power <= longest:
                length = step * 10**power
    return length
