"""Figures of what a network makes of a window: maps laid over three planes, and the
strongest feature maps by stage.

Everything lies on canonical axes (x to the right, y to the front, z upwards) and is
drawn to scale in mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.report.figures import (
    BACKGROUND,
    INK,
    MARGIN,
    PALETTE,
    WIDTH,
    Plane,
    frame_plane,
    grey_range,
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

HEAT, SIGNED = "inferno", "cividis"
"""Colour maps that grow evenly in lightness: read alike with every colour blindness and
in grey.
"""
HEADER, ROW_HEAD, ROW_FOOT, FOOTER = 0.95, 0.8, 0.52, 0.5  # inches
ROW_HEIGHT, CELL_HEIGHT, CELL_WIDTH, BAR = 2.3, 1.7, 1.75, 1.25
SHADES = 256


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
    from matplotlib.figure import Figure

    planes = shown_planes(scene.image.shape)
    sizes = [_extent(plane, scene.image.shape, scene.spacing) for plane in planes]
    across, tallest = sum(w for w, _ in sizes), max(h for _, h in sizes)
    scale = min(
        (WIDTH - 2 * MARGIN * len(planes) - BAR) / across, ROW_HEIGHT / tallest
    )  # inches per mm
    pitch = tallest * scale + ROW_HEAD + ROW_FOOT
    rows: list[HeatMap | None] = [None, *maps]
    height = HEADER + pitch * len(rows) + FOOTER
    figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor=BACKGROUND)
    _heading(figure, title, note)
    limits = grey_range(
        [plane.cut(scene.image, scene.point[plane.axis]) for plane in planes]
    )
    for number, heat in enumerate(rows):
        top = height - HEADER - number * pitch
        _row_title(figure, "image and prediction" if heat is None else heat.title, top)
        left = (WIDTH - BAR - across * scale - 2 * MARGIN * (len(planes) - 1)) / 2
        for plane, (w, h) in zip(planes, sizes, strict=True):
            bottom = top - ROW_HEAD - (tallest + h) / 2 * scale
            axes = panel(figure, (left, bottom, w * scale, h * scale))
            _draw(axes, plane, scene, limits, heat)
            frame_plane(axes, plane, plane.title, w, h)
            left += w * scale + 2 * MARGIN
            if heat is None and plane is planes[0]:
                scale_bar(axes, w, scale)
        if heat is not None:
            box = (
                left - MARGIN,
                top - ROW_HEAD - tallest * scale,
                0.16,
                tallest * scale,
            )
            _colour_bar(figure, box, heat)
    _legend(figure, scene)
    return png(figure)


def feature_figure(
    scene: Scene, stages: Sequence[StageMaps], *, title: str, note: str
) -> bytes:
    """PNG with a row a stage: the image's slice through the scene's point, then the
    stage's maps over it.
    """
    from matplotlib.figure import Figure

    plane = max(
        shown_planes(scene.image.shape),
        key=lambda p: scene.image.shape[p.rows] * scene.image.shape[p.columns],
    )
    w, h = _extent(plane, scene.image.shape, scene.spacing)
    columns = 1 + max((len(stage.maps) for stage in stages), default=0)
    scale = min((WIDTH - 2 * MARGIN * columns) / (columns * w), CELL_HEIGHT / h)
    pitch_x = max(w * scale + 2 * MARGIN, min(CELL_WIDTH, WIDTH / columns))
    pitch_y = h * scale + ROW_HEAD + ROW_FOOT
    height = HEADER + pitch_y * len(stages) + FOOTER
    figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor=BACKGROUND)
    _heading(figure, title, note)
    grey = plane.cut(scene.image, scene.point[plane.axis])
    for row, stage in enumerate(stages):
        top = height - HEADER - row * pitch_y
        _row_title(figure, stage.title, top)
        for column, (channel, values) in enumerate([(None, None), *stage.maps.items()]):
            left = (
                (WIDTH - columns * pitch_x) / 2
                + column * pitch_x
                + (pitch_x - w * scale) / 2
            )
            axes = panel(
                figure, (left, top - ROW_HEAD - h * scale, w * scale, h * scale)
            )
            _grey(axes, grey, (w, h), grey_range([grey]))
            name = plane.title
            if values is not None:
                low, high = _signed(axes, plane, values, stage.voxel_mm, scene)
                name = f"ch {channel}: {low:.2g} to {high:.2g}"
            frame_plane(axes, plane, name, w, h)
            _cross(axes, plane, scene)
            if row == column == 0:
                scale_bar(axes, w, scale)
    _signed_bar(figure)
    return png(figure)


def _extent(
    plane: Plane, shape: Sequence[int], voxel_mm: Spacing
) -> tuple[float, float]:
    """Width and height in mm."""
    return shape[plane.columns] * voxel_mm[plane.columns], shape[plane.rows] * voxel_mm[
        plane.rows
    ]


def _draw(
    axes: "Axes",
    plane: Plane,
    scene: Scene,
    limits: tuple[float, float],
    heat: HeatMap | None,
) -> None:
    at = scene.point[plane.axis]
    _grey(
        axes,
        plane.cut(scene.image, at),
        _extent(plane, scene.image.shape, scene.spacing),
        limits,
    )
    if heat is not None:
        cut = _cut_at(plane, heat.values, heat.voxel_mm, scene)
        strength = (cut / heat.top).clip(0, 1) if heat.top > 0 else np.zeros_like(cut)
        coloured = _colours(HEAT)[(strength * (SHADES - 1)).astype(int)].copy()
        coloured[..., 3] = (
            0.2 + 0.65 * strength
        )  # where there is little, the image shows
        axes.imshow(coloured, **_placed(plane, heat.values.shape, heat.voxel_mm, scene))
    labels = plane.cut(scene.labels, at)
    outline(
        axes,
        labels,
        scene.spacing[plane.rows],
        scene.spacing[plane.columns],
        _label_colours(scene),
    )
    if heat is not None and heat.dots is not None:
        _dots(axes, plane, scene, heat)
    _cross(axes, plane, scene)


def _grey(
    axes: "Axes", cut: Array, size: tuple[float, float], limits: tuple[float, float]
) -> None:
    axes.imshow(
        cut,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, size[0], 0, size[1]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )


def _cut_at(plane: Plane, values: Array, voxel_mm: Spacing, scene: Scene) -> Array:
    """The slice of a coarser map that holds the scene's point."""
    mm = (scene.point[plane.axis] + 0.5) * scene.spacing[plane.axis]
    return plane.cut(
        values, min(int(mm / voxel_mm[plane.axis]), values.shape[plane.axis] - 1)
    )


def _placed(
    plane: Plane, shape: Sequence[int], voxel_mm: Spacing, scene: Scene
) -> dict[str, Any]:
    """Where a map lies on the panel: its first corner on the window's, which `cut`
    turned to the right.
    """
    right, _ = _extent(plane, scene.image.shape, scene.spacing)
    w, h = _extent(plane, shape, voxel_mm)
    return {
        "extent": (right - w, right, 0, h),
        "origin": "lower",
        "aspect": "auto",
        "interpolation": "nearest",
    }


def _signed(
    axes: "Axes", plane: Plane, values: Array, voxel_mm: Spacing, scene: Scene
) -> tuple[float, float]:
    """Draw a feature map over the image; returns the values drawn darkest and
    brightest.
    """
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    cut = _cut_at(plane, values, voxel_mm, scene)
    axes.imshow(
        cut,
        cmap=SIGNED,
        vmin=low,
        vmax=max(high, low + 1e-6),
        alpha=0.75,
        **_placed(plane, values.shape, voxel_mm, scene),
    )
    return low, high


def _on_panel(
    plane: Plane, scene: Scene, voxel: Sequence[float]
) -> tuple[float, float]:
    """Where the centre of a voxel lies on the panel, in mm."""
    width, _ = _extent(plane, scene.image.shape, scene.spacing)
    x = (voxel[plane.columns] + 0.5) * scene.spacing[plane.columns]
    return width - x, (voxel[plane.rows] + 0.5) * scene.spacing[plane.rows]


def _cross(axes: "Axes", plane: Plane, scene: Scene) -> None:
    x, y = _on_panel(plane, scene, scene.point)
    for width, colour in ((3.2, "black"), (1.4, "white")):
        axes.plot([x], [y], "+", color=colour, markersize=11, markeredgewidth=width)


def _dots(axes: "Axes", plane: Plane, scene: Scene, heat: HeatMap) -> None:
    """The points within a voxel of the map from the slice; the area of a dot follows
    its weight.
    """
    assert heat.dots is not None
    reach = heat.voxel_mm[plane.axis] / scene.spacing[plane.axis]
    near = heat.dots[
        np.abs(heat.dots[:, plane.axis] - scene.point[plane.axis]) <= reach
    ]
    largest = heat.dots[:, 3].max()
    for *voxel, weight in near.tolist():
        x, y = _on_panel(plane, scene, voxel)
        axes.plot(
            [x],
            [y],
            "o",
            color="white",
            markersize=1.5 + 6 * (weight / largest) ** 0.5,
            markeredgecolor="black",
            markeredgewidth=0.6,
        )


def _colours(name: str) -> Array:
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.linspace(0, 1, SHADES)))


def _label_colours(scene: Scene) -> dict[int, str]:
    return {
        value: PALETTE[(value - 1) % len(PALETTE)]
        for value in np.unique(scene.labels[scene.labels > 0]).tolist()
    }


def _heading(figure: "Figure", title: str, note: str) -> None:
    height = figure.get_size_inches()[1]
    style: dict[str, Any] = {
        "color": INK,
        "ha": "center",
        "va": "top",
        "parse_math": False,
    }
    figure.text(0.5, 1 - 0.14 / height, title, fontsize=12, **style)
    figure.text(0.5, 1 - 0.46 / height, note, fontsize=8.5, alpha=0.8, **style)


def _row_title(figure: "Figure", text: str, top: float) -> None:
    height = figure.get_size_inches()[1]
    figure.text(
        0.25 / WIDTH,
        (top - 0.06) / height,
        text,
        color=INK,
        fontsize=10,
        va="top",
        parse_math=False,
    )


def _colour_bar(
    figure: "Figure", box: tuple[float, float, float, float], heat: HeatMap
) -> None:
    axes = panel(figure, box)
    axes.set_axis_on()
    axes.imshow(
        _colours(HEAT)[:, None], extent=(0, 1, 0, 1), origin="lower", aspect="auto"
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    most = f"{'≥ ' if heat.values.max() > 1.005 * heat.top else ''}{heat.top:.2g}"
    axes.set_yticks(
        [0, 0.5, 1], ["0", f"{heat.top / 2:.2g}", most], color=INK, fontsize=8
    )
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


def _signed_bar(figure: "Figure") -> None:
    height = figure.get_size_inches()[1]
    axes = panel(figure, (WIDTH / 2 - 1, 0.2, 2, 0.13))
    axes.imshow(_colours(SIGNED)[None], extent=(0, 1, 0, 1), aspect="auto")
    for x, side, text in (
        (WIDTH / 2 - 1.1, "right", "low"),
        (WIDTH / 2 + 1.1, "left", "high"),
    ):
        figure.text(
            x / WIDTH, 0.265 / height, text, color=INK, fontsize=9, ha=side, va="center"
        )


def _legend(figure: "Figure", scene: Scene) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=INK,
            marker="+",
            markersize=10,
            markeredgewidth=1.4,
            linestyle="none",
            label="the voxel",
        )
    ]
    for value, colour in list(_label_colours(scene).items())[:6]:
        name = scene.names[value - 1].replace("$", r"\$")
        handles.append(
            Line2D([], [], color=colour, linewidth=1.6, label=f"line: {name} predicted")
        )
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=1.4,
        columnspacing=1.6,
    )
