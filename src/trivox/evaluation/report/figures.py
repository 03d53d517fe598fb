"""Overlay figures: three planes of a case with prediction and reference.

matplotlib's object-oriented interface only: no pyplot, so no global state, no display,
safe in threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.report.case_view import best_slices
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

BACKGROUND, INK = "#15181c", "#e8eaed"
MARGIN, HEADER, FOOTER, LEGEND_ROW = (
    0.42,
    0.85,
    0.62,
    0.26,
)  # inches around each panel, and of a row of the legend
WIDTH, MAXIMUM_HEIGHT = 10.0, 5.0
MAXIMUM_NAMES, LEGEND_COLUMNS = 12, 5


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


PLANES = (
    Plane("axial", 0, 1, 2, ("R", "L", "A", "P")),
    Plane("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    Plane("sagittal", 2, 0, 1, ("A", "P", "S", "I")),
)


def shown_planes(shape: Sequence[int]) -> list[Plane]:
    """Planes that show more than a line of voxels."""
    return [p for p in PLANES if shape[p.rows] > 1 and shape[p.columns] > 1] or [
        PLANES[0]
    ]


def overlay_figure(
    image: Array,
    prediction: Array,
    reference: Array | None,
    *,
    spacing: Spacing,
    names: Sequence[str],
    title: str,
) -> bytes:
    """PNG of the axial, coronal and sagittal slices that show the reference (else the
    prediction) best.

    image, prediction, reference: `(z, y, x)` on one canonical grid (x to the right, y
    to the front, z upwards); spacing in mm `(z, y, x)`. names: of the indices 1, 2, ...
    in the label arrays. The prediction is filled, the reference outlined; both in the
    label's colour.
    """
    from matplotlib.figure import Figure

    shown = prediction if reference is None or not (reference > 0).any() else reference
    slices = best_slices(
        shown, [(index,) for index in range(1, max(len(names), int(shown.max())) + 1)]
    )
    cuts = [
        plane.cut(array, index)
        for plane, index in zip(PLANES, slices, strict=True)
        for array in ((prediction,) if reference is None else (prediction, reference))
    ]
    colours = _colours(cuts, len(names))
    extents = [
        (
            image.shape[p.columns] * spacing[p.columns],
            image.shape[p.rows] * spacing[p.rows],
        )
        for p in PLANES
    ]
    across, tallest = sum(w for w, _ in extents), max(h for _, h in extents)
    scale = min(
        (WIDTH - 6 * MARGIN) / across, MAXIMUM_HEIGHT / tallest
    )  # inches per mm, the same for all planes
    rows = -(-(min(len(colours), MAXIMUM_NAMES + 1) + 2) // LEGEND_COLUMNS)
    height = tallest * scale + HEADER + FOOTER + rows * LEGEND_ROW
    figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor=BACKGROUND)
    limits = grey_range(
        [plane.cut(image, index) for plane, index in zip(PLANES, slices, strict=True)]
    )
    left = (WIDTH - across * scale - 4 * MARGIN) / 2
    for plane, index, (w, h) in zip(PLANES, slices, extents, strict=True):
        bottom = FOOTER + rows * LEGEND_ROW + (tallest - h) * scale / 2
        axes = panel(figure, (left, bottom, w * scale, h * scale))
        _draw_plane(
            axes, plane, index, (image, prediction, reference), spacing, limits, colours
        )
        left += w * scale + 2 * MARGIN
        if plane is PLANES[0]:
            scale_bar(axes, w, scale)
    figure.text(
        0.5,
        1 - 0.12 / height,
        title,
        color=INK,
        fontsize=12,
        ha="center",
        va="top",
        parse_math=False,
    )
    _legend(figure, names, colours, has_reference=reference is not None)
    return png(figure)


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


def _draw_plane(
    axes: "Axes",
    plane: Plane,
    index: int,
    arrays: tuple[Array, Array, Array | None],
    spacing: Spacing,
    limits: tuple[float, float],
    colours: Mapping[int, str],
) -> None:
    image, prediction, reference = arrays
    cut = plane.cut(image, index)
    row_mm, column_mm = spacing[plane.rows], spacing[plane.columns]
    extent = (0.0, cut.shape[1] * column_mm, 0.0, cut.shape[0] * row_mm)
    frame: dict[str, Any] = {
        "extent": extent,
        "origin": "lower",
        "aspect": "auto",
        "interpolation": "nearest",
    }
    axes.imshow(cut, cmap="gray", vmin=limits[0], vmax=limits[1], **frame)
    axes.imshow(_filled(plane.cut(prediction, index), colours), **frame)
    if reference is not None:
        outline(axes, plane.cut(reference, index), row_mm, column_mm, colours)
    frame_plane(axes, plane, f"{plane.title} · slice {index + 1}", extent[1], extent[3])


def frame_plane(
    axes: "Axes", plane: Plane, name: str, width_mm: float, height_mm: float
) -> None:
    """Limits, orientation marks around the panel and a name above it."""
    axes.set_xlim(0, width_mm)
    axes.set_ylim(0, height_mm)
    where = ((0, 0.5, -9, 0), (1, 0.5, 9, 0), (0.5, 1, 0, 9), (0.5, 0, 0, -9))
    for mark, (x, y, right, up) in zip(plane.marks, where, strict=True):
        axes.annotate(
            mark,
            (x, y),
            xycoords="axes fraction",
            xytext=(right, up),
            textcoords="offset points",
            color=INK,
            fontsize=10,
            ha="center",
            va="center",
            annotation_clip=False,
        )
    axes.annotate(
        name,
        (0.5, 1),
        xycoords="axes fraction",
        xytext=(0, 18),
        textcoords="offset points",
        color=INK,
        fontsize=9,
        ha="center",
        alpha=0.8,
    )


def _colours(cuts: Sequence[Array], count: int) -> dict[int, str]:
    """Colour of each label: its own where the palette suffices, else in turn for those
    that are seen.
    """
    seen = {value for cut in cuts for value in np.unique(cut[cut > 0]).tolist()}
    values = sorted(seen if count > len(PALETTE) else seen | set(range(1, count + 1)))
    return {value: PALETTE[i % len(PALETTE)] for i, value in enumerate(values)}


def _filled(labels: Array, colours: Mapping[int, str]) -> Array:
    """Label indices to translucent RGBA `(rows, columns, 4)`."""
    from matplotlib.colors import to_rgba

    table = np.zeros((max(colours, default=0) + 1, 4))
    for value, colour in colours.items():
        table[value] = to_rgba(colour, 0.45)
    return np.asarray(table[labels.clip(min=0)])


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
    padded = np.pad(mask, 1).astype(
        float
    )  # background around it closes outlines at the image's border
    rows = (np.arange(padded.shape[0]) - 0.5) * row_mm
    columns = (np.arange(padded.shape[1]) - 0.5) * column_mm
    axes.contour(
        columns,
        rows,
        padded,
        levels=[0.5],
        colors=[colour],
        linewidths=width,
        linestyles=[line],
    )


def scale_bar(
    axes: "Axes", width_mm: float, scale: float, *, below_points: float = 24
) -> None:
    """A bar of a round length below the panel, about a quarter as wide; scale: inches
    per mm, shared by all planes.
    """
    steps = [step * 10**power for power in range(-1, 4) for step in (1, 2, 5)]
    length = max([step for step in steps if step <= width_mm / 3], default=steps[0])
    down = (
        -below_points / 72 / scale
    )  # mm below the panel: clear of the orientation mark
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


def _legend(
    figure: "Figure",
    names: Sequence[str],
    colours: Mapping[int, str],
    *,
    has_reference: bool,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    named = {
        value: names[value - 1] if value <= len(names) else f"label {value}"
        for value in colours
    }
    shown = list(colours)[:MAXIMUM_NAMES]
    handles: list[Any] = [
        Patch(facecolor=colours[v], label=named[v].replace("$", r"\$")) for v in shown
    ]
    if len(colours) > len(shown):
        handles.append(
            Line2D(
                [], [], linestyle="none", label=f"and {len(colours) - len(shown)} more"
            )
        )
    handles.append(Patch(facecolor=INK, alpha=0.45, label="filled: prediction"))
    if has_reference:
        handles.append(
            Line2D([], [], color=INK, linewidth=1.5, label="line: reference")
        )
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), LEGEND_COLUMNS),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=1.4,
        columnspacing=1.6,
    )
