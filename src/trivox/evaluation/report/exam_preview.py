"""A picture of X-rays as they will be reconstructed from: all views on one grey scale
of line integrals.
"""

import math

import numpy as np

from trivox.evaluation.report.figures import BACKGROUND, INK, png
from trivox.evaluation.report.xray_marks import mark_edges, view_name
from trivox.projection.geometry import Geometry
from trivox.volumes.volume import Array

COLUMNS, PANEL = 4, 3.1  # inches a view


def xray_preview(
    images: Array, geometry: Geometry, *, title: str, unit: str = "line integral"
) -> bytes:
    """PNG of one or more views `(v, rows, columns)` as seen from the source, with the
    patient's sides at the borders.

    Grey runs from 0 to the largest value of all views (its 99.9th percentile), never of
    one view alone.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, geometry.views)
    rows = math.ceil(geometry.views / columns)
    figure = Figure(
        figsize=(PANEL * columns + 1.3, PANEL * rows + 0.7),
        dpi=110,
        facecolor=BACKGROUND,
        layout="constrained",
    )
    figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False)
    high = max(float(np.percentile(images, 99.9)), 1e-6)
    for place in panels.flat[geometry.views :]:
        place.set_axis_off()
    for view, axes in enumerate(panels.flat[: geometry.views]):
        row, column = geometry.pixel_mm[view].tolist()
        drawn = axes.imshow(
            images[view],
            cmap="gray",
            vmin=0,
            vmax=high,
            aspect=row / column,
            interpolation="nearest",
        )
        axes.set_title(view_name(geometry, view), color=INK, fontsize=10, pad=16)
        axes.set_xticks([])
        axes.set_yticks([])
        mark_edges(axes, geometry, view)
    bar = figure.colorbar(drawn, ax=panels, shrink=0.8, pad=0.015)
    bar.set_label(unit, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    return png(figure)
