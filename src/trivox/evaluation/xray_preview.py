"""A picture of X-rays as they will be reconstructed from: all views on one grey scale of line integrals."""

import math
from typing import TYPE_CHECKING

import numpy as np

from trivox.evaluation.figures import BACKGROUND, INK, png
from trivox.evaluation.reconstruction_figures import letters
from trivox.projection import Geometry
from trivox.volumes import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, PANEL = 4, 3.1  # inches a view
NAMES = {0.0: "AP", 180.0: "PA", -180.0: "PA", 90.0: "lateral, source left", -90.0: "lateral, source right"}


def xray_preview(images: Array, geometry: Geometry, *, title: str, unit: str = "line integral") -> bytes:
    """PNG of one or more views `(v, rows, columns)` as seen from the source, with the patient's sides at the borders.

    Grey runs from 0 to the largest value of all views (its 99.9th percentile), never of one view alone.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, geometry.views)
    rows = math.ceil(geometry.views / columns)
    figure = Figure(
        figsize=(PANEL * columns + 1.3, PANEL * rows + 0.7), dpi=110, facecolor=BACKGROUND, layout="constrained"
    )
    figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False)
    high = max(float(np.percentile(images, 99.9)), 1e-6)
    for place in panels.flat[geometry.views :]:
        place.set_axis_off()
    for view, axes in enumerate(panels.flat[: geometry.views]):
        row, column = geometry.pixel_mm[view].tolist()
        drawn = axes.imshow(images[view], cmap="gray", vmin=0, vmax=high, aspect=row / column, interpolation="nearest")
        _frame(axes, geometry, view)
    bar = figure.colorbar(drawn, ax=panels, shrink=0.8, pad=0.015)
    bar.set_label(unit, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    return png(figure)


def _frame(axes: "Axes", geometry: Geometry, view: int) -> None:
    """The angle above, and on each edge the side of the patient that lies there."""
    _, down, right = (axis[view].tolist() for axis in geometry.axes())
    axes.set_title(view_name(geometry, view), color=INK, fontsize=10, pad=16)
    axes.set_xticks([])
    axes.set_yticks([])
    edges = (([-c for c in right], (0, 0.5), (-8, 0)), (right, (1, 0.5), (8, 0)),
             ([-c for c in down], (0.5, 1), (0, 8)), (down, (0.5, 0), (0, -8)))  # fmt: skip
    for direction, place, shift in edges:
        axes.annotate(letters(direction), place, xycoords="axes fraction", xytext=shift, textcoords="offset points",
                      color=INK, fontsize=10, ha="center", va="center", annotation_clip=False)  # fmt: skip


def view_name(geometry: Geometry, view: int) -> str:
    """The angle as people say it: `0° AP`, `45°, 10° cranial`."""
    primary, secondary = float(geometry.primary[view]), float(geometry.secondary[view])
    name = f"{primary:g}° {NAMES.get(primary, '')}".rstrip() if primary in NAMES else f"{primary:g}°"
    tilt = f", {abs(secondary):g}° {'cranial' if secondary > 0 else 'caudal'}" if secondary else ""
    return name + tilt
