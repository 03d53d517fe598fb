from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from thoraxes import exam_of_chest, picture
from trivox.evaluation.report import volume_figures
from trivox.evaluation.report.volume_figures import volume_figure
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.xrays import Xrays

GRID = Grid((20, 16, 24), (16.0, 16.0, 14.0))


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figure of the last PNG."""
    figures = []
    plain = volume_figures.png

    def keep(figure):
        figures.append(figure)
        return plain(figure)

    monkeypatch.setattr(volume_figures, "png", keep)
    return figures


def images_of(figure):
    """Panels with a picture, from top to bottom in rows."""
    rows = {}
    for axes in figure.axes:
        if axes.images:
            box = axes.get_position()
            rows.setdefault(round(box.y0 + box.height / 2, 2), []).append(axes)
    return [
        sorted(rows[key], key=lambda axes: axes.get_position().x0)
        for key in sorted(rows, reverse=True)
    ]


def test_the_figure_has_four_rows_with_one_grey_scale_for_both_cts(drawn):
    reference, exam = exam_of_chest(GRID)
    prediction = reference + 100
    png = volume_figure(
        prediction, reference, spacing=GRID.spacing, title="case $1$", xrays=exam.xrays
    )
    assert picture(png).size
    rows = images_of(drawn[0])
    assert [len(row) for row in rows] == [2, 3, 3, 3]
    _, synthetic, acquired, error = rows
    limits = {axes.images[0].get_clim() for axes in (*synthetic, *acquired)}
    assert limits == {volume_figures.SHOWN}
    for axes in error:
        assert axes.images[0].get_clim() == pytest.approx((0, 100))
        np.testing.assert_allclose(axes.images[0].get_array(), 100, atol=1e-3)
    labels = [axes.get_ylabel() for axes in drawn[0].axes if not axes.images]
    assert labels == ["line integral", "HU", "HU", "HU"]


def test_the_figure_says_that_the_ct_is_synthetic(drawn):
    reference, _ = exam_of_chest(GRID)
    volume_figure(reference, None, spacing=GRID.spacing, title="x")
    words = " ".join(text.get_text() for text in drawn[0].texts)
    assert "SYNTHETIC CT - NOT ACQUIRED" in words
    assert "RESEARCH USE ONLY - not for diagnosis or treatment" in words
    assert [len(row) for row in images_of(drawn[0])] == [3]


def test_panels_are_as_wide_and_high_as_the_patient(drawn):
    reference, exam = exam_of_chest(GRID)
    volume_figure(reference, None, spacing=GRID.spacing, title="x", xrays=exam.xrays)
    size = drawn[0].get_size_inches()
    boxes = [axes.get_position() for axes in images_of(drawn[0])[1]]
    shown = [(box.width * size[0], box.height * size[1]) for box in boxes]
    z, y, x = GRID.extent_mm
    scale = shown[0][0] / x
    for (width, height), expected in zip(shown, ((x, y), (x, z), (y, z)), strict=True):
        assert (width / scale, height / scale) == pytest.approx(expected)
    for axes in images_of(drawn[0])[
        0
    ]:  # the scale bar below does not squeeze the first X-ray
        assert axes.get_ylim() == pytest.approx((0, 32 * 18))


def test_rows_of_the_ct_show_the_patient_upright_with_the_right_on_the_left(drawn):
    reference, _ = exam_of_chest(GRID)
    reference[:] = 0
    reference[-1, :, -1] = 500  # at the top, on the patient's right
    volume_figure(reference, None, spacing=GRID.spacing, title="x")
    coronal = images_of(drawn[0])[0][1].images[0]
    assert coronal.origin == "lower"
    assert coronal.get_array()[-1, 0] == 500


def test_absent_views_are_not_drawn_and_no_more_than_four(drawn):
    reference, exam = exam_of_chest(GRID)
    some = exam.with_views(exam.xrays.images, [False, True]).xrays
    volume_figure(reference, None, spacing=GRID.spacing, title="x", xrays=some)
    assert len(images_of(drawn[0])[0]) == 1
    many = exam.xrays.select([0, 1, 0, 1, 0, 1])
    volume_figure(reference, None, spacing=GRID.spacing, title="x", xrays=many)
    assert len(images_of(drawn[1])[0]) == 4
    assert "X-rays\n(2 more)" in [text.get_text() for text in drawn[1].texts]


def text_boxes(figure):
    """The places of all texts of a figure in pixels."""
    canvas = FigureCanvasAgg(figure)
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += axes.texts
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    return [box for box in boxes if box.width]


@pytest.mark.parametrize("detector", [(64, 40), (64, 8), (40, 64)])
def test_no_text_lies_on_another_however_narrow_the_detector(drawn, detector):
    reference, _ = exam_of_chest(GRID)
    geometry = Geometry.orbit(
        [90, -90, 45, 135],
        detector=detector,
        pixel_mm=9.0,
        secondary=[12.5, -30, 20, 25],
    )
    xrays = Xrays.of(torch.ones(1, 4, *detector), geometry)
    volume_figure(reference, None, spacing=GRID.spacing, title="x", xrays=xrays)
    boxes = text_boxes(drawn[0])
    assert len(boxes) > 4 * 5
    for first, second in combinations(boxes, 2):
        assert not first.overlaps(second)


def test_side_letters_stand_nearer_to_their_own_view_than_to_those_of_the_next(drawn):
    reference, _ = exam_of_chest(GRID)
    geometry = Geometry.orbit([30, 60, 120, 150], detector=(64, 48), pixel_mm=9.0)
    xrays = Xrays.of(torch.ones(1, 4, 64, 48), geometry)
    volume_figure(reference, None, spacing=GRID.spacing, title="x", xrays=xrays)
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    views = images_of(drawn[0])[0]
    for view, following in pairwise(views):
        right = view.texts[1].get_window_extent(renderer)
        left = following.texts[0].get_window_extent(renderer)
        to_view = right.x0 - view.get_window_extent(renderer).x1
        assert left.x0 - right.x1 > 2 * to_view > 0
