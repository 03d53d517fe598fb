"""Where an image ends, and what of a structure is not known beyond it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.results.measuring.borders import Field
from trivox.results.measuring.structures import measure_structures
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

SHAPE = (9, 10, 11)
UNKNOWN = ("volume_ml", "longest_mm", "components", "centroid_ras_mm")
AXIAL = ("axial_long_mm", "axial_short_mm", "axial_slice")


def noise(shape=SHAPE, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(100, 20, (channels, *shape)).astype(np.float32)


def row_of(image, box, spacing=(3.0, 1.0, 2.0), affine=None):
    """What is said of a structure that fills a box."""
    grid = affine_from_spacing(spacing) if affine is None else affine
    labels = np.zeros((1, *image.shape[1:]), np.uint8)
    labels[0][box] = 1
    names = [f"c{number}" for number in range(len(image))]
    rows = measure_structures(
        Volume(labels, grid), {"a": (1,)}, Volume(image, grid), channels=names
    )
    return rows["a"]


INSIDE = np.s_[2:5, 3:6, 2:8]


def test_inside_everything_is_known():
    row = row_of(noise(), INSIDE)
    assert row["truncated"] is False
    assert row["touches"] == []
    assert all(row[name] is not None for name in (*UNKNOWN, *AXIAL))


@pytest.mark.parametrize(
    ("side", "box"),
    [
        ("I", np.s_[0:2, 3:6, 2:8]),
        ("S", np.s_[7:9, 3:6, 2:8]),
        ("P", np.s_[2:5, 0:2, 2:8]),
        ("A", np.s_[2:5, 8:10, 2:8]),
        ("L", np.s_[2:5, 3:6, 0:8]),
        ("R", np.s_[2:5, 3:6, 2:11]),
    ],
)
def test_at_each_side_nothing_is_said_that_would_lie(side, box):
    row = row_of(noise(), box)
    assert row["truncated"] is True
    assert row["touches"] == [side]
    assert all(row[name] is None for name in (*UNKNOWN, *AXIAL))
    voxels = np.zeros(SHAPE)[box].size
    assert row["voxels"] == voxels
    assert row["seen_ml"] == pytest.approx(voxels * 6 / 1000)
    assert row["intensity"]["c0"]["mean"] == pytest.approx(
        noise()[0][box].mean(), rel=1e-5
    )


@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from(["I", "S", "P", "A", "L", "R"]),
)
def test_sides_are_those_of_the_patient_however_it_is_stored(order, flips, side):
    axis = {"I": 0, "S": 0, "P": 1, "A": 1, "L": 2, "R": 2}[side]
    box = [slice(3, 6)] * 3
    box[axis] = slice(3, SHAPE[axis]) if side in "SAR" else slice(0, 4)
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0][tuple(box)] = 1
    grid = affine_from_spacing((3.0, 1.0, 2.0), (-5.0, 7.0, 11.0))
    stored = Orientation(tuple(order), flips)
    rows = measure_structures(
        reorient(Volume(labels, grid), stored),
        {"a": (1,)},
        reorient(Volume(noise(), grid), stored),
        channels=["c"],
    )
    assert rows["a"]["touches"] == [side]


def test_slices_that_were_added_show_nothing():
    image = np.pad(noise(), ((0, 0), (2, 0), (0, 3), (1, 1)), constant_values=-7)
    touching = row_of(image, np.s_[2:5, 4:6, 4:6])
    assert touching["touches"] == ["I"]
    assert row_of(image, np.s_[3:5, 4:6, 4:6])["truncated"] is False


def test_a_brain_without_its_skull_ends_nowhere():
    """Zeros round it were not added in slices: what reaches its pole is seen whole."""
    z, y, x = np.indices((20, 20, 20)) - 9.5
    brain = z**2 + y**2 + x**2 < 64
    image = np.where(brain, noise((20, 20, 20)), 0)
    row = row_of(image, np.s_[1:5, 8:12, 8:12])
    assert row["truncated"] is False


def test_what_reaches_the_edge_of_a_round_field_of_view_goes_on_beyond():
    _, y, x = np.indices((9, 40, 40)) - 19.5
    image = np.where(y**2 + x**2 < 18**2, noise((9, 40, 40)), -3024)
    outside = row_of(image, np.s_[3:6, 18:22, 30:39])
    assert outside["truncated"] is True
    assert outside["volume_ml"] is None
    assert outside["touches"] == []
    assert row_of(image, np.s_[3:6, 18:22, 25:35])["truncated"] is False


def test_a_dark_voxel_inside_is_no_end():
    image = noise()
    image[0, 4, 5, 5] = -2000
    assert row_of(image, np.s_[3:6, 4:7, 4:7])["truncated"] is False


def test_one_slice_shows_lines_in_it_and_no_volume():
    row = row_of(noise((1, 10, 11)), np.s_[0:1, 3:6, 2:8])
    assert row["truncated"] is True
    assert row["volume_ml"] is None
    assert row["longest_mm"] is None
    assert row["axial_long_mm"] > 0
    cut = row_of(noise((1, 10, 11)), np.s_[0:1, 3:6, 0:8])
    assert cut["axial_long_mm"] is None


def test_one_sagittal_slice_is_measured_in_its_plane():
    row = row_of(noise((9, 10, 1)), np.s_[2:5, 3:6, 0:1], spacing=(1.0, 1.0, 8.0))
    assert row["axial_long_mm"] == pytest.approx(np.hypot(3, 2))


def test_a_constant_image_shows_all_of_itself():
    field = Field.of(Volume(np.zeros((1, *SHAPE)), np.eye(4)))
    assert [side.stop for side in field.box] == list(SHAPE)
