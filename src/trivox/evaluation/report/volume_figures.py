"""Figures of volumes from X-rays: the X-rays, synthetic and reference CT and their
difference; methods side by side.

Every figure that shows a synthetic CT says so. Grey and the maps used (cividis,
inferno) read without colour vision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.datasets.reading import nonzero_box
from trivox.evaluation.metrics.volumes import HuWindow, body_mask
from trivox.evaluation.report.charts import (
    BLUE,
    ORANGE,
    light_figure,
    plain,
)
from trivox.evaluation.report.charts import INK as DARK
from trivox.evaluation.report.drawing import (
    INK,
    PALETTE,
    PLANES,
    WIDTH,
    Size,
    Style,
    dark_figure,
    draw_cut,
    escaped,
    frame_plane,
    heading,
    panel,
    png,
    scale_bar,
)
from trivox.evaluation.report.xray_marks import (
    LINE,
    draw_view,
    name_lines,
    view_name,
)
from trivox.projection.geometry import Geometry
from trivox.projection.xrays import Xrays
from trivox.version import RESEARCH_USE, SYNTHETIC_CT
from trivox.volumes.volume import Array, Shape, Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BURNT_IN = f"{SYNTHETIC_CT}   {RESEARCH_USE}"
"""Into every figure of a volume."""
SHOWN = (-1000.0, 600.0)
"""HU drawn as black and white, for prediction and reference alike: lungs, soft tissue
and bone are all told apart.
"""
MOST_VIEWS = 4

# inches
LEFT = 0.75
RIGHT = 1.15
GAP = 0.7
ROW_GAP = 0.7
TOP = 1.0
BOTTOM = 0.6
TALLEST = 2.6
XRAY_HEIGHT = 2.0
XRAY_GAP = 0.95
"""Between two X-rays: their sides can have two letters each, and those of neighbours
stand apart.
"""
LEAST_ROOM = 1.25
"""For the name of an X-ray, however narrow it is."""
BELOW_XRAYS = 0.85


@dataclass(frozen=True, eq=False)
class _Row:
    """A volume `(z, y, x)` in HU as it is drawn; style: of `imshow`."""

    name: str
    volume: Array
    style: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Views:
    """The X-rays that are drawn: images `(v, rows, columns)`; more: how many are not."""

    images: Array
    geometry: Geometry
    more: int

    @classmethod
    def of(cls, xrays: Xrays | None) -> "_Views | None":
        """The first views that are present; None without any."""
        if xrays is None:
            return None
        present = xrays.present[0].nonzero()[:, 0].tolist()
        if not present:
            return None
        chosen = present[:MOST_VIEWS]
        shown = xrays.select(chosen)
        images = shown.images[0].cpu().numpy()
        return cls(images, shown.geometry.exam(0), len(present) - len(chosen))

    @cached_property
    def sizes(self) -> list[Size]:
        """Width and height of each view in mm."""
        rows, columns = self.images.shape[1:]
        pixels = self.geometry.pixel_mm.tolist()
        return [(columns * column_mm, rows * row_mm) for row_mm, column_mm in pixels]

    @cached_property
    def scale(self) -> float:
        """Inches per mm."""
        room = WIDTH - LEFT - RIGHT - (len(self.sizes) - 1) * XRAY_GAP
        return _scale(self.sizes, room=room, tallest=XRAY_HEIGHT)

    @cached_property
    def rooms(self) -> list[float]:
        """Inches from side to side that each view and its name take."""
        least = LEAST_ROOM if len(self.sizes) > 1 else WIDTH - LEFT - RIGHT
        return [max(w * self.scale + XRAY_GAP, least) for w, _ in self.sizes]

    @cached_property
    def height(self) -> float:
        """Inches of the row, from the last line of the names on."""
        most = 1
        for view, room in enumerate(self.rooms):
            lines = name_lines(view_name(self.geometry, view), room)
            most = max(most, len(lines))
        return XRAY_HEIGHT + (most - 1) * LINE


def volume_figure(
    prediction: Array,
    reference: Array | None,
    *,
    spacing: Spacing,
    title: str,
    xrays: Xrays | None = None,
    shown: HuWindow = SHOWN,
) -> bytes:
    """PNG of up to four rows: X-ray views, the synthetic CT in three planes, the
    reference, the absolute difference.

    prediction, reference: HU `(z, y, x)` on one grid, indices growing to S, A, R;
    spacing: mm `(z, y, x)`; xrays: of this case (b = 1); at most four views are drawn.
    shown: HU drawn as black and white, in both CTs.
    """
    sizes = [plane.size_mm(prediction.shape, spacing) for plane in PLANES]
    scale = _scale(sizes, room=WIDTH - LEFT - RIGHT - 2 * GAP, tallest=TALLEST)
    tall = max(height for _, height in sizes) * scale
    views = _Views.of(xrays)
    rows = _rows(prediction, reference, shown)
    height = TOP + BOTTOM + len(rows) * tall + (len(rows) - 1) * ROW_GAP
    if views is not None:
        height += views.height + BELOW_XRAYS
    figure = dark_figure(height)
    top = height - TOP
    if views is not None:
        _draw_views(figure, views, top - views.height)
        top -= views.height + BELOW_XRAYS
    slices = _middle(prediction if reference is None else reference)
    for row in rows:
        axes = _draw_row(figure, row, slices, sizes, scale, top - tall)
        top -= tall + ROW_GAP
    scale_bar(axes, sizes[0][0], scale)
    heading(figure, title, down=0.1, fontsize=12)
    style: Style = {"color": PALETTE[0], "weight": "bold"}
    heading(figure, BURNT_IN, down=0.36, fontsize=10, **style)
    return png(figure)


def _scale(sizes: Sequence[Size], *, room: float, tallest: float) -> float:
    """Inches per mm, the same for all panels of a row: as large as both allow."""
    across = sum(width for width, _ in sizes)
    return min(room / across, tallest / max(height for _, height in sizes))


def _rows(prediction: Array, reference: Array | None, shown: HuWindow) -> list[_Row]:
    """The volumes from top to bottom, both CTs on one grey scale."""
    grey: Style = {"cmap": "gray", "vmin": shown[0], "vmax": shown[1]}
    rows = [_Row("synthetic CT", prediction, grey)]
    if reference is None:
        return rows
    difference = np.abs(prediction.astype(np.float32) - reference)
    largest = max(float(np.percentile(difference, 99)), 1.0)
    heat: Style = {"cmap": "inferno", "vmin": 0.0, "vmax": largest}
    rows.append(_Row("reference CT", reference, grey))
    rows.append(_Row("absolute error", difference, heat))
    return rows


def _draw_row(
    figure: "Figure",
    row: _Row,
    slices: Shape,
    sizes: Sequence[Size],
    scale: float,
    bottom: float,
) -> "Axes":
    """Three planes at `bottom` inches, the row's name on the left and a colour bar on
    the right; returns the first panel.
    """
    across = sum(width for width, _ in sizes) * scale
    tall = max(height for _, height in sizes) * scale
    left = LEFT + (WIDTH - LEFT - RIGHT - across - 2 * GAP) / 2
    panels = []
    for plane, index, (w, h) in zip(PLANES, slices, sizes, strict=True):
        middle = bottom + (tall - h * scale) / 2
        axes = panel(figure, (left, middle, w * scale, h * scale))
        drawn = draw_cut(axes, plane.cut(row.volume, index), (w, h), **row.style)
        frame_plane(axes, plane, f"{plane.title} · slice {index + 1}", (w, h))
        panels.append(axes)
        left += w * scale + GAP
    _draw_row_name(figure, row.name, bottom + tall / 2)
    _draw_colour_bar(figure, drawn, bottom, tall, "HU")
    return panels[0]


def _draw_views(figure: "Figure", views: _Views, bottom: float) -> None:
    """The X-rays as seen from the source, all on one grey scale, at `bottom` inches."""
    scale = views.scale
    brightest = max(float(views.images.max()), 1e-6)
    left = LEFT + (WIDTH - LEFT - RIGHT - sum(views.rooms)) / 2
    for view, (image, (w, h)) in enumerate(zip(views.images, views.sizes, strict=True)):
        room = views.rooms[view]
        x = left + (room - w * scale) / 2
        y = bottom + (XRAY_HEIGHT - h * scale) / 2
        axes = panel(figure, (x, y, w * scale, h * scale))
        drawn = draw_view(
            axes, image, views.geometry, view, brightest=brightest, room=room
        )
        if view == 0:
            scale_bar(axes, w, scale)
        left += room
    name = f"X-rays\n({views.more} more)" if views.more else "X-rays"
    _draw_row_name(figure, name, bottom + XRAY_HEIGHT / 2)
    _draw_colour_bar(figure, drawn, bottom, XRAY_HEIGHT, "line integral")


def _middle(hounsfield: Array) -> Shape:
    """Slices `(z, y, x)` through the middle of the body, or of the volume where there
    is none.
    """
    body = body_mask(hounsfield)
    if not body.any():
        z, y, x = body.shape
        return z // 2, y // 2, x // 2
    z, y, x = ((start + stop - 1) // 2 for start, stop in nonzero_box(body[None]))
    return z, y, x


def _draw_row_name(figure: "Figure", name: str, middle: float) -> None:
    width, height = figure.get_size_inches()
    style: Style = {"color": INK, "fontsize": 10.5, "ha": "center", "va": "center"}
    figure.text(0.22 / width, middle / height, name, rotation=90, **style)


def _draw_colour_bar(
    figure: "Figure", drawn: Any, bottom: float, tall: float, unit: str
) -> None:
    width, height = figure.get_size_inches()
    left = WIDTH - RIGHT + 0.32
    box = (left / width, bottom / height, 0.13 / width, tall / height)
    axes = figure.add_axes(box)
    bar = figure.colorbar(drawn, cax=axes)
    bar.set_label(unit, color=INK, fontsize=9, labelpad=3)
    bar.outline.set_visible(False)
    axes.tick_params(colors=INK, labelsize=8, pad=2)


def ladder_chart(
    sections: Sequence[Mapping[str, Any]], *, of_network: Sequence[str]
) -> bytes | None:
    """Mean PSNR of every method with its 95 % interval, a panel for each number of
    views; None without a row.

    sections: `ladder` and `by_views` of metrics.json. of_network: rows of the network,
    drawn filled and in another colour.
    """
    sections = [section for section in sections if section["rows"]]
    if not sections:
        return None
    names = method_names(sections)
    figure = light_figure(1.3 + 0.36 * len(names))
    panels = figure.subplots(1, len(sections), sharey=True, sharex=True, squeeze=False)
    for axes, section in zip(panels[0], sections, strict=True):
        for row in section["rows"]:
            _draw_rung(
                axes,
                names.index(row["name"]),
                row,
                of_network=row["name"] in of_network,
            )
        views = section["views"]
        title = f"{views} view{'' if views == 1 else 's'}"
        axes.set_title(title, fontsize=10.5, color=DARK)
        axes.set_xlabel("PSNR (dB)")
        axes.margins(x=0.14)
        plain(axes)
    panels[0, 0].set_yticks(range(len(names)), [escaped(name) for name in names])
    panels[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return png(figure)


def method_names(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the rows of all ladders, each once."""
    names: dict[str, None] = {}
    for section in sections:
        names.update(dict.fromkeys(row["name"] for row in section["rows"]))
    return list(names)


def _draw_rung(
    axes: "Axes", place: int, row: Mapping[str, Any], *, of_network: bool
) -> None:
    score = row["summary"].get("psnr_db")
    if score is None or score["mean"] is None:
        return
    mean = score["mean"]
    colour = ORANGE if of_network else BLUE
    if score["ci95"]:
        axes.hlines(place, *score["ci95"], color=colour, linewidth=2)
    inside = colour if of_network else "white"
    axes.plot(mean, place, "o", color=colour, markerfacecolor=inside, markersize=7)
    axes.annotate(
        f"{mean:.1f}",
        (mean, place),
        xytext=(0, 6),
        textcoords="offset points",
        fontsize=8,
        ha="center",
        color=DARK,
    )
