"""Label maps on a part of an image's grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.segmentations.parts import brought_onto, is_part
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Volume

SIZES = st.tuples(*[st.integers(1, 4)] * 3)
OFFSETS = st.tuples(*[st.integers(0, 2)] * 3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    part=SIZES,
    before=OFFSETS,
    after=OFFSETS,
    axes=st.permutations(range(3)),
    flips=st.tuples(*[st.booleans()] * 3),
    shear=st.floats(-0.3, 0.3),
    seed=st.integers(0, 99),
)
def test_a_part_is_brought_onto_the_whole(
    part, before, after, axes, flips, shear, seed
):
    """In all 48 orders of its axes, on sheared grids too."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.7, -0.9, 3.1])
    affine[1, 2] = shear
    affine[:3, 3] = rng.normal(size=3) * 50
    shape = tuple(int(n) for n in np.add(np.add(part, before), after))
    labels = np.zeros(shape, np.int32)
    inside = tuple(slice(b, b + n) for b, n in zip(before, part, strict=True))
    labels[inside] = rng.integers(1, 9, part)
    corner = affine.copy()
    corner[:3, 3] += affine[:3, :3] @ before[::-1]
    cropped = Volume(labels[inside][None].copy(), corner)
    turned = reorient(cropped, Orientation(tuple(axes), flips))
    whole = brought_onto(turned, Grid(shape, affine), background=0)
    if whole is not turned:
        np.testing.assert_array_equal(whole.array[0], labels)
        np.testing.assert_allclose(whole.affine, affine)
    else:  # all of the grid, as it lies
        assert shape == part


@pytest.mark.parametrize("shift", [0.3, 1.0, -1.0])
def test_what_lies_beside_or_between_the_voxels_is_no_part(shift):
    grid = Grid((4, 4, 4), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = shift
    assert not is_part((4, 4, 4), moved, grid)
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    assert not is_part((2, 2, 2), coarse, grid)


def test_a_cropped_file_is_read_onto_its_image_and_says_so(tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = 2
    values = np.full((1, 2, 2, 2), 5, np.uint8)
    write_volume(tmp_path / "a.nii.gz", Volume(values, affine))
    whole = read_labels(tmp_path / "a.nii.gz", onto=Grid((6, 6, 6), np.eye(4)))
    assert whole.array.sum() == 8 * 5
    assert (whole.array[0, 2:4, 2:4, 2:4] == 5).all()
    assert any(remark.startswith("part: ") for remark in whole.remarks)
