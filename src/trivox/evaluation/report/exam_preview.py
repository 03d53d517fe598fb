"""A picture of X-rays as they will be reconstructed from: all views on one grey scale
of line integrals.
"""

import numpy as np

from trivox.evaluation.report.drawing import INK, dark_figure, png
from trivox.evaluation.report.xray_marks import draw_view
from trivox.projection.geometry import Geometry
from trivox.volumes.volume import Array

COLUMNS = 4
APART = 0.12
"""Between views, as a share of their width: side letters of neighbours stand apart."""
PANEL = 3.1
"""Inches a view."""


def exam_preview(
    images: Array, geometry: Geometry, *, title: str, unit: str = "line integral"
) -> bytes:
    """PNG of one or more views `(v, rows, columns)` as seen from the source, with the
    patient's sides at the borders.

    Grey runs from 0 to the largest value of all views (its 99.9th percentile), never of
    one view alone.
    """
    columns = min(COLUMNS, geometry.views)
    rows = -(-geometry.views // columns)
    figure = dark_figure(PANEL * rows + 0.7, width=PANEL * columns + 1.3)
    figure.set_layout_engine("constrained", wspace=APART)
    figure.suptitle(title, color=INK, fontsize=12, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False)
    brightest = max(float(np.percentile(images, 99.9)), 1e-6)
    for axes in panels.flat:
        axes.set_axis_off()
    for view, axes in enumerate(panels.flat[: geometry.views]):
        drawn = draw_view(
            axes, images[view], geometry, view, brightest=brightest, room=PANEL - 0.3
        )
    bar = figure.colorbar(drawn, ax=panels, shrink=0.8, pad=0.015)
    bar.set_label(unit, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    return png(figure)
