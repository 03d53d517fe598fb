from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from trivox.evaluation.report.explain_figures import (
    HeatMap,
    Scene,
    StageMaps,
    feature_figure,
    heat_figure,
)

SHAPES = [(12, 16, 14), (1, 20, 30), (20, 1, 30), (3, 200, 6), (1, 1, 1)]
TEXT = {"title": "a $title$", "note": "note"}


def scene(shape=(12, 16, 14), point=None, labels=True):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape).astype(np.float32)
    image[-1:] = np.nan if shape[0] > 1 else image[-1:]  # outside of the image
    middle = tuple(n // 2 for n in shape)
    predicted = np.zeros(shape, np.int16)
    predicted[tuple(slice(m, m + 2) for m in middle)] = 2 * labels
    return Scene(
        image, predicted, point or middle, (2.0, 1.0, 1.5), ("organ", "tu$mour")
    )


def heat(shape, voxel_mm=(4.0, 2.0, 3.0), **changes):
    values = np.random.default_rng(1).random(tuple(-(-n // 2) for n in shape))
    content = {
        "title": "h",
        "values": values,
        "voxel_mm": voxel_mm,
        "unit": "%",
        "top": float(values.max()),
        "dots": None,
    }
    return HeatMap(**{**content, **changes})


def picture(png):
    shown = imread(BytesIO(png))[..., :3]
    assert shown.shape[1] == 1100
    return shown


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_a_picture(shape):
    maps = [
        heat(shape),
        heat(
            shape, dots=np.array([[0.0, 0.5, 0.5, 0.1], [0.0, 0.0, 0.0, 0.9]]), top=0.0
        ),
    ]
    assert picture(heat_figure(scene(shape), maps, **TEXT)).shape[0] < 1500
    stage = StageMaps("s", {3: maps[0].values, 10: maps[0].values * 0}, (4.0, 2.0, 3.0))
    assert picture(feature_figure(scene(shape), [stage, stage], **TEXT)).shape[0] < 1000


def test_rows_are_added_for_maps_and_stages():
    heights = [
        picture(heat_figure(scene(), [heat((12, 16, 14))] * n, **TEXT)).shape[0]
        for n in (1, 2, 3)
    ]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=1)
    assert heights[1] - heights[0] > 100


@pytest.mark.parametrize(
    ("axis", "first", "half"),
    [(2, True, "right"), (2, False, "left"), (1, True, "lower"), (1, False, "upper")],
)
def test_a_map_lies_where_its_voxels_are(axis, first, half):
    """On the one axial panel of a flat window: the patient's right is left, the front
    on top.
    """
    flat = scene((1, 16, 16), labels=False)
    values = np.zeros((1, 4, 4))
    part = [slice(None)] * 3
    part[axis] = slice(0, 2) if first else slice(2, 4)
    values[tuple(part)] = 1
    drawn = [
        picture(
            heat_figure(
                flat, [heat((1, 16, 16), (2.0, 4.0, 6.0), values=v, top=1.0)], **TEXT
            )
        )
        for v in (values, values * 0)
    ]
    rows, columns = np.nonzero(np.abs(drawn[0] - drawn[1]).max(axis=2) > 0.2)
    height = np.ptp(rows) + 1
    width = np.ptp(columns) + 1
    wide = {"right": False, "left": False, "lower": True, "upper": True}[half]
    assert (width > 1.3 * height) == wide  # half of a panel of 24 x 16 mm
    whole = picture(
        heat_figure(
            flat,
            [heat((1, 16, 16), (2.0, 4.0, 6.0), values=values * 0 + 1, top=1.0)],
            **TEXT,
        )
    )
    all_rows, all_columns = np.nonzero(np.abs(whole - drawn[1]).max(axis=2) > 0.2)
    middle_row, middle_column = (
        v.min() / 2 + v.max() / 2 for v in (all_rows, all_columns)
    )
    place = {
        "right": columns.mean() > middle_column,
        "left": columns.mean() < middle_column,
        "lower": rows.mean() > middle_row,
        "upper": rows.mean() < middle_row,
    }
    assert place[half]


def test_a_map_that_reaches_over_the_window_keeps_its_first_corner():
    """A coarse grid rounds its size up; its surplus is cut off at the end, not squeezed
    in.
    """
    flat = scene((1, 16, 16), labels=False)
    fitting = np.zeros((1, 4, 4))
    larger = np.zeros((1, 4, 5))
    fitting[..., 0] = 1
    larger[..., 0] = 1
    pictures = [
        heat_figure(
            flat, [heat((1, 16, 16), (2.0, 4.0, 6.0), values=v, top=1.0)], **TEXT
        )
        for v in (fitting, larger)
    ]
    assert np.abs(picture(pictures[0]) - picture(pictures[1])).mean() < 1e-3


def test_equal_figures_have_equal_bytes():
    first, second = (
        heat_figure(scene(), [heat((12, 16, 14))], **TEXT) for _ in range(2)
    )
    assert first == second
