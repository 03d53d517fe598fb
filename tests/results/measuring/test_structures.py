"""Numbers of structures: against other programs, and what does not change them."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.results.measuring.rows import CONVENTIONS
from trivox.results.measuring.structures import measure_structures
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume

SEGMENTS = {"seven": (7,), "all": (7, 300, -4), "none": (9,)}
SHAPE = (8, 9, 10)


def drawn(seed, channels=2):
    """Labels 7, 300 and -4 away from the border, on a turned and sheared grid."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((1, *SHAPE), np.int16)
    inside = labels[0, 1:-1, 1:-1, 1:-1]
    inside[...] = rng.choice([0, 7, 300, -4], inside.shape, p=[0.7, 0.1, 0.1, 0.1])
    inside[2, 2, 2] = 7
    image = rng.normal(0, 50, (channels, *SHAPE)).astype(np.float32)
    affine = np.eye(4)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine[:3, :3] = turn * rng.uniform(0.3, 4, 3)
    affine[:3, 3] = rng.uniform(-99, 99, 3)
    return Volume(labels, affine), Volume(image, affine)


def rows_of(labels, image, **more):
    names = [f"c{number}" for number in range(image.channels)]
    return measure_structures(labels, SEGMENTS, image, channels=names, **more)


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_numbers_are_those_of_simpleitk(seed):
    labels, image = drawn(seed)
    mask = labels.array[0] == 7
    to_lps = np.diag([-1, -1, 1])
    drawing = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    values = SimpleITK.GetImageFromArray(image.array[1].astype(np.float64))
    for each in (drawing, values):
        each.SetSpacing(labels.spacing[::-1])
        direction = to_lps @ labels.affine[:3, :3] / labels.spacing[::-1]
        each.SetDirection(direction.ravel().tolist())
        each.SetOrigin((to_lps @ labels.affine[:3, 3]).tolist())
    shape = SimpleITK.LabelIntensityStatisticsImageFilter()
    shape.Execute(drawing, values)
    row = rows_of(labels, image)["seven"]
    assert row["voxels"] == shape.GetNumberOfPixels(1)
    assert row["volume_ml"] == pytest.approx(shape.GetPhysicalSize(1) / 1000)
    assert row["centroid_lps_mm"] == pytest.approx(shape.GetCentroid(1), abs=1e-6)
    x, y, z, *sizes = shape.GetBoundingBox(1)
    assert row["box_voxels"]["first"] == [x, y, z]
    last = np.array([x, y, z]) + sizes - 1
    assert row["box_voxels"]["last"] == last.tolist()
    intensity = row["intensity"]["c1"]
    assert intensity["mean"] == pytest.approx(shape.GetMean(1))
    assert intensity["min"] == shape.GetMinimum(1)
    assert intensity["max"] == shape.GetMaximum(1)
    inside = image.array[1][mask].astype(float)
    assert intensity["std"] == pytest.approx(inside.std())
    assert intensity["median"] == pytest.approx(np.median(inside))


@settings(max_examples=20)
@given(st.integers(0, 99), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_how_it_is_stored_changes_nothing_but_indices(seed, order, flips):
    labels, image = drawn(seed)
    stored = Orientation(tuple(order), flips)
    here = rows_of(labels, image)
    there = rows_of(reorient(labels, stored), reorient(image, stored))
    for name, row in here.items():
        for key, value in row.items():
            if key in ("box_voxels", "axial_slice"):
                continue
            other = there[name][key]
            if key == "intensity":
                for channel in value:
                    assert other[channel] == (
                        value[channel] and pytest.approx(value[channel])
                    )
            elif isinstance(value, list):
                assert other == pytest.approx(value)
            else:
                assert other == (value and pytest.approx(value, rel=1e-5))


@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0.1, 10))
def test_numbers_grow_with_the_voxels(seed, factor):
    labels, image = drawn(seed)
    scale = np.diag([factor, factor, factor, 1.0])
    here = rows_of(labels, image)["all"]
    there = rows_of(
        Volume(labels.array, scale @ labels.affine),
        Volume(image.array, scale @ image.affine),
    )["all"]
    for key in ("longest_mm", "axial_long_mm", "axial_short_mm"):
        assert there[key] == pytest.approx(here[key] * factor, rel=1e-5)
    assert there["volume_ml"] == pytest.approx(here["volume_ml"] * factor**3)
    assert there["voxels"] == here["voxels"]


def test_regions_overlap_and_hold_all_their_labels():
    labels, image = drawn(3)
    rows = rows_of(labels, image)
    assert rows["all"]["voxels"] == np.isin(labels.array, (7, 300, -4)).sum()
    assert rows["seven"]["voxels"] == (labels.array == 7).sum()


def test_what_was_not_found_has_no_volume_and_no_other_number():
    labels, image = drawn(3)
    said = {"ci95_ml": [0.0, 0.4], "volume_ml_low": 0.0, "volume_ml_high": 0.3}
    row = rows_of(labels, image, volumes={"none": said})["none"]
    assert row["present"] is False
    assert row["volume_ml"] == 0
    assert row["volume_ci95_ml"] == [0.0, 0.4]
    assert (row["volume_ml_low"], row["volume_ml_high"]) == (0.0, 0.3)
    assert row["longest_mm"] is row["centroid_ras_mm"] is row["box_voxels"] is None
    assert row["intensity"] == {"c0": None, "c1": None}


def test_absent_channels_have_no_intensity():
    labels, image = drawn(3)
    intensity = rows_of(labels, image, absent=[0])["seven"]["intensity"]
    assert intensity["c0"] is None
    assert intensity["c1"] is not None


def test_an_interval_of_what_is_truncated_is_not_known():
    labels, image = drawn(3)
    labels.array[0, 0] = 7
    said = {"ci95_ml": [1.0, 2.0], "volume_ml_low": 1.0, "volume_ml_high": 2.0}
    row = rows_of(labels, image, volumes={"seven": said})["seven"]
    assert (
        row["volume_ci95_ml"] is row["volume_ml_low"] is row["volume_ml_high"] is None
    )
    rows = rows_of(labels, image)
    assert rows["all"]["truncated"] is True


def test_every_number_says_how_it_is_meant():
    labels, image = drawn(3)
    assert set(rows_of(labels, image)["seven"]) <= set(CONVENTIONS)
