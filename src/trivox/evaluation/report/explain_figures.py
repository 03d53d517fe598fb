"""Figures of what a network makes of a window: maps laid over three planes, and the
strongest feature maps by stage.

Everything lies on canonical axes (x to the right, y to the front, z upwards) and is
drawn to scale in mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trivox.evaluation.report.drawing import (
    INK,
    PALETTE,
    WIDTH,
    Plane,
    Size,
    Style,
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
    shown_planes,
)
from trivox.volumes.volume import Array, Shape, Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT = "inferno"
SIGNED = "cividis"
"""Colour maps that grow evenly in lightness: read alike with every colour blindness and
in grey.
"""
SHADES = 256
MOST_NAMES = 7

# inches
MARGIN = 0.42
HEADER = 0.95
ROW_HEAD = 0.8
ROW_FOOT = 0.52
FOOTER = 0.5
ROW_HEIGHT = 2.3
CELL_HEIGHT = 1.7
CELL_WIDTH = 1.75
BAR = 1.25


@dataclass(frozen=True, eq=False)
class Scene:
    """A window: `image`, predicted label indices `labels` `(z, y, x)`, the voxel in
    question, voxel size in mm.
    """

    image: Array
    labels: Array
    point: Shape
    spacing: Spacing
    names: Sequence[str]
    """Of the label indices 1, 2, ..."""

    def size_mm(self, plane: Plane) -> Size:
        """Width and height of the window in a plane."""
        return plane.size_mm(self.image.shape, self.spacing)

    def cut(self, plane: Plane, array: Array) -> Array:
        """The slice of an array of the window through the point."""
        return plane.cut(array, self.point[plane.axis])


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Values from 0 up to lay over a scene, from its first corner on.

    values: `(z, y, x)` voxels of `voxel_mm`, possibly reaching over the window's end;
    unit: of the values; top: value drawn brightest; dots: `(k, 4)` places in voxels of
    the scene `(z, y, x)` and their weights.
    """

    title: str
    values: Array
    voxel_mm: Spacing
    unit: str
    top: float
    dots: Array | None = None


@dataclass(frozen=True, eq=False)
class StageMaps:
    """Feature maps of a stage: `maps` channel -> `(z, y, x)` in voxels of `voxel_mm`."""

    title: str
    maps: Mapping[int, Array]
    voxel_mm: Spacing


def heat_figure(
    scene: Scene, maps: Sequence[HeatMap], *, title: str, note: str
) -> bytes:
    """PNG with a row for the image and one for each map, in the planes through the
    scene's point.
    """
    planes = shown_planes(scene.image.shape)
    sizes = [scene.size_mm(plane) for plane in planes]
    tallest = max(height for _, height in sizes)
    room = WIDTH - 2 * MARGIN * len(planes) - BAR
    # inches per mm
    scale = min(room / sum(width for width, _ in sizes), ROW_HEIGHT / tallest)
    pitch = tallest * scale + ROW_HEAD + ROW_FOOT
    rows: list[HeatMap | None] = [None, *maps]
    height = HEADER + pitch * len(rows) + FOOTER
    figure = dark_figure(height)
    _draw_heading(figure, title, note)
    for number, heat in enumerate(rows):
        top = height - HEADER - number * pitch
        _draw_row_title(
            figure, "image and prediction" if heat is None else heat.title, top
        )
        right = _draw_planes(figure, scene, heat, top - ROW_HEAD, scale)
        if heat is not None:
            tall = tallest * scale
            box = (right + MARGIN, top - ROW_HEAD - tall, 0.16, tall)
            _draw_colour_bar(figure, box, heat)
    _draw_legend(figure, scene)
    return png(figure)


def _draw_planes(
    figure: "Figure", scene: Scene, heat: HeatMap | None, top: float, scale: float
) -> float:
    """A row of planes with a map over them, or the image alone; returns its right end
    in inches.
    """
    planes = shown_planes(scene.image.shape)
    sizes = [scene.size_mm(plane) for plane in planes]
    across = sum(width for width, _ in sizes) * scale
    tallest = max(height for _, height in sizes)
    limits = grey_range([scene.cut(plane, scene.image) for plane in planes])
    left = (WIDTH - BAR - across - 2 * MARGIN * (len(planes) - 1)) / 2
    for plane, (w, h) in zip(planes, sizes, strict=True):
        bottom = top - (tallest + h) / 2 * scale
        axes = panel(figure, (left, bottom, w * scale, h * scale))
        draw_grey_cut(axes, scene.cut(plane, scene.image), (w, h), limits)
        if heat is not None:
            _draw_heat(axes, plane, scene, heat)
        _draw_outlines(axes, plane, scene)
        if heat is not None and heat.dots is not None:
            _draw_dots(axes, plane, scene, heat, heat.dots)
        _draw_cross(axes, plane, scene)
        frame_plane(axes, plane, plane.title, (w, h))
        if heat is None and plane is planes[0]:
            scale_bar(axes, w, scale)
        left += w * scale + 2 * MARGIN
    return left - 2 * MARGIN


def feature_figure(
    scene: Scene, stages: Sequence[StageMaps], *, title: str, note: str
) -> bytes:
    """PNG with a row a stage: the image's slice through the scene's point, then the
    stage's maps over it.
    """
    plane = _largest_plane(scene)
    w, h = scene.size_mm(plane)
    columns = 1 + max((len(stage.maps) for stage in stages), default=0)
    scale = min((WIDTH - 2 * MARGIN * columns) / (columns * w), CELL_HEIGHT / h)
    pitch_x = max(w * scale + 2 * MARGIN, min(CELL_WIDTH, WIDTH / columns))
    pitch_y = h * scale + ROW_HEAD + ROW_FOOT
    start = (WIDTH - columns * pitch_x) / 2 + (pitch_x - w * scale) / 2
    height = HEADER + pitch_y * len(stages) + FOOTER
    figure = dark_figure(height)
    _draw_heading(figure, title, note)
    for row, stage in enumerate(stages):
        top = height - HEADER - row * pitch_y
        bottom = top - ROW_HEAD - h * scale
        _draw_row_title(figure, stage.title, top)
        for column, channel in enumerate([None, *stage.maps]):
            left = start + column * pitch_x
            axes = panel(figure, (left, bottom, w * scale, h * scale))
            _draw_feature(axes, plane, scene, stage, channel)
            if row == column == 0:
                scale_bar(axes, w, scale)
    _draw_signed_bar(figure)
    return png(figure)


def _largest_plane(scene: Scene) -> Plane:
    """The plane that shows the most voxels."""
    shape = scene.image.shape
    planes = shown_planes(shape)
    return max(planes, key=lambda plane: shape[plane.rows] * shape[plane.columns])


def _draw_feature(
    axes: "Axes", plane: Plane, scene: Scene, stage: StageMaps, channel: int | None
) -> None:
    """A channel of a stage over the image, or the image alone."""
    grey = scene.cut(plane, scene.image)
    draw_grey_cut(axes, grey, scene.size_mm(plane), grey_range([grey]))
    name = plane.title
    if channel is not None:
        low, high = _draw_signed(
            axes, plane, stage.maps[channel], stage.voxel_mm, scene
        )
        name = f"ch {channel}: {low:.2g} to {high:.2g}"
    frame_plane(axes, plane, name, scene.size_mm(plane))
    _draw_cross(axes, plane, scene)


def _draw_heat(axes: "Axes", plane: Plane, scene: Scene, heat: HeatMap) -> None:
    cut = _cut_at(plane, heat.values, heat.voxel_mm, scene)
    strength = (cut / heat.top).clip(0, 1) if heat.top > 0 else np.zeros_like(cut)
    coloured = _colours(HEAT)[(strength * (SHADES - 1)).astype(int)].copy()
    # where there is little, the image shows
    coloured[..., 3] = 0.2 + 0.65 * strength
    extent = _extent(plane, heat.values.shape, heat.voxel_mm, scene)
    draw_cut(axes, coloured, scene.size_mm(plane), extent=extent)


def _draw_outlines(axes: "Axes", plane: Plane, scene: Scene) -> None:
    """The outline of each predicted label."""
    row_mm = scene.spacing[plane.rows]
    column_mm = scene.spacing[plane.columns]
    labels = scene.cut(plane, scene.labels)
    outline(axes, labels, row_mm, column_mm, _label_colours(scene))


def _draw_signed(
    axes: "Axes", plane: Plane, values: Array, voxel_mm: Spacing, scene: Scene
) -> tuple[float, float]:
    """Draw a feature map over the image; returns the values drawn darkest and
    brightest.
    """
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    draw_cut(
        axes,
        _cut_at(plane, values, voxel_mm, scene),
        scene.size_mm(plane),
        cmap=SIGNED,
        vmin=low,
        vmax=max(high, low + 1e-6),
        alpha=0.75,
        extent=_extent(plane, values.shape, voxel_mm, scene),
    )
    return low, high


def _cut_at(plane: Plane, values: Array, voxel_mm: Spacing, scene: Scene) -> Array:
    """The slice of a coarser map that holds the scene's point."""
    mm = (scene.point[plane.axis] + 0.5) * scene.spacing[plane.axis]
    last = values.shape[plane.axis] - 1
    return plane.cut(values, min(int(mm / voxel_mm[plane.axis]), last))


def _extent(
    plane: Plane, shape: Sequence[int], voxel_mm: Spacing, scene: Scene
) -> tuple[float, float, float, float]:
    """Where a map lies on the panel: its first corner on the window's, which `cut`
    turned to the right.
    """
    right, _ = scene.size_mm(plane)
    w, h = plane.size_mm(shape, voxel_mm)
    return right - w, right, 0, h


def _on_panel(
    plane: Plane, scene: Scene, voxel: Sequence[float]
) -> tuple[float, float]:
    """Where the centre of a voxel lies on the panel, in mm."""
    width, _ = scene.size_mm(plane)
    x = (voxel[plane.columns] + 0.5) * scene.spacing[plane.columns]
    y = (voxel[plane.rows] + 0.5) * scene.spacing[plane.rows]
    return width - x, y


def _draw_cross(axes: "Axes", plane: Plane, scene: Scene) -> None:
    x, y = _on_panel(plane, scene, scene.point)
    for width, colour in ((3.2, "black"), (1.4, "white")):
        axes.plot([x], [y], "+", color=colour, markersize=11, markeredgewidth=width)


def _draw_dots(
    axes: "Axes", plane: Plane, scene: Scene, heat: HeatMap, dots: Array
) -> None:
    """The points within a voxel of the map from the slice; the area of a dot follows
    its weight.
    """
    reach = heat.voxel_mm[plane.axis] / scene.spacing[plane.axis]
    distance = np.abs(dots[:, plane.axis] - scene.point[plane.axis])
    largest = dots[:, 3].max()
    style: Style = {
        "color": "white",
        "markeredgecolor": "black",
        "markeredgewidth": 0.6,
    }
    for *voxel, weight in dots[distance <= reach].tolist():
        x, y = _on_panel(plane, scene, voxel)
        size = 1.5 + 6 * (weight / largest) ** 0.5
        axes.plot([x], [y], "o", markersize=size, **style)


def _colours(name: str) -> Array:
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.linspace(0, 1, SHADES)))


def _label_colours(scene: Scene) -> dict[int, str]:
    values = np.unique(scene.labels[scene.labels > 0]).tolist()
    return {value: PALETTE[(value - 1) % len(PALETTE)] for value in values}


def _draw_heading(figure: "Figure", title: str, note: str) -> None:
    heading(figure, title, down=0.14, fontsize=12)
    heading(figure, note, down=0.46, fontsize=8.5, alpha=0.8)


def _draw_row_title(figure: "Figure", text: str, top: float) -> None:
    x = 0.25 / WIDTH
    y = (top - 0.06) / figure.get_size_inches()[1]
    figure.text(x, y, text, color=INK, fontsize=10, va="top", parse_math=False)


def _draw_colour_bar(
    figure: "Figure", box: tuple[float, float, float, float], heat: HeatMap
) -> None:
    axes = panel(figure, box)
    axes.set_axis_on()
    draw_cut(axes, _colours(HEAT)[:, None], (1, 1), interpolation=None)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    over = "≥ " if heat.values.max() > 1.005 * heat.top else ""
    names = ["0", f"{heat.top / 2:.2g}", f"{over}{heat.top:.2g}"]
    axes.set_yticks([0, 0.5, 1], names, color=INK, fontsize=8)
    axes.tick_params(color=INK, length=3)
    axes.annotate(
        heat.unit,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 7),
        textcoords="offset points",
        color=INK,
        fontsize=8,
        ha="left",
        annotation_clip=False,
    )


def _draw_signed_bar(figure: "Figure") -> None:
    height = figure.get_size_inches()[1]
    axes = panel(figure, (WIDTH / 2 - 1, 0.2, 2, 0.13))
    axes.imshow(_colours(SIGNED)[None], extent=(0, 1, 0, 1), aspect="auto")
    style: Style = {"color": INK, "fontsize": 9, "va": "center"}
    y = 0.265 / height
    figure.text((WIDTH / 2 - 1.1) / WIDTH, y, "low", ha="right", **style)
    figure.text((WIDTH / 2 + 1.1) / WIDTH, y, "high", ha="left", **style)


def _draw_legend(figure: "Figure", scene: Scene) -> None:
    from matplotlib.lines import Line2D

    cross: Style = {"marker": "+", "markersize": 10, "markeredgewidth": 1.4}
    handles = [Line2D([], [], color=INK, linestyle="none", label="the voxel", **cross)]
    for value, colour in list(_label_colours(scene).items())[: MOST_NAMES - 1]:
        label = f"line: {escaped(scene.names[value - 1])} predicted"
        handles.append(Line2D([], [], color=colour, linewidth=1.6, label=label))
    legend_below(figure, handles, columns=MOST_NAMES)
