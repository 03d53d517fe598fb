import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from scipy.spatial.transform import Rotation

from trivox.errors import GeometryError
from trivox.volumes.geometry import (
    Orientation,
    canonical_orientation,
    describe_mismatch,
    on_grid_of,
    reorient,
    turned_onto,
)
from trivox.volumes.volume import Volume, affine_from_spacing, spacing_of

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)
SPACINGS = st.tuples(*[st.floats(0.2, 8)] * 3)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
SIGNS = st.tuples(*[st.sampled_from([-1, 1])] * 3)


def volume_of(shape, spacing=(3.0, 2.0, 1.0), angles=(0, 0, 0), signs=(1, 1, 1)):
    affine = affine_from_spacing(spacing, (1.0, -2.0, 3.0))
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = rotation @ affine[:3, :3] * np.array(signs)
    return Volume(np.arange(2 * np.prod(shape)).reshape(2, *shape), affine)


def world_of_each_value(volume):
    """World position of every voxel of channel 0, ordered by the voxel's (unique)
    value.
    """
    index = np.indices(volume.shape).reshape(3, -1)[::-1]
    points = (volume.affine @ np.concatenate([index, np.ones((1, index.shape[1]))]))[
        :3
    ].T
    return points[np.argsort(volume.array[0].ravel())]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SHAPES, spacing=SPACINGS, angles=ANGLES, signs=SIGNS)
def test_reorienting_keeps_every_voxel_where_it_is(shape, spacing, angles, signs):
    volume = volume_of(shape, spacing, angles, signs)
    orientation = canonical_orientation(volume.affine)
    turned = reorient(volume, orientation)
    np.testing.assert_allclose(
        world_of_each_value(turned), world_of_each_value(volume), atol=1e-9
    )
    np.testing.assert_array_equal(orientation.undo(turned.array), volume.array)
    assert sorted(turned.spacing) == pytest.approx(sorted(volume.spacing))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SHAPES, spacing=SPACINGS, angles=ANGLES, signs=SIGNS)
def test_canonical_is_a_fixed_point(shape, spacing, angles, signs):
    turned = reorient(
        volume_of(shape, spacing, angles, signs),
        canonical_orientation(volume_of(shape, spacing, angles, signs).affine),
    )
    again = canonical_orientation(turned.affine)
    assert again.axes == (0, 1, 2)
    assert again.flips == (False, False, False)


@pytest.mark.oracle
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    axes=st.permutations([0, 1, 2]),
    signs=SIGNS,
    tilt=st.tuples(*[st.floats(-20, 20)] * 3),
)
def test_canonical_equals_nibabel(axes, signs, tilt):
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
        @ (np.diag([1.0, 2, 3]) * signs)[:, axes]
    )
    volume = Volume(np.arange(24).reshape(1, 2, 3, 4), affine)
    turned = reorient(volume, canonical_orientation(affine))
    expected = nibabel.as_closest_canonical(
        nibabel.Nifti1Image(volume.array[0].T.astype(np.int32), affine)
    )
    np.testing.assert_array_equal(turned.array[0].T, np.asarray(expected.dataobj))
    np.testing.assert_allclose(turned.affine, expected.affine, atol=1e-12)
    xyz = io_orientation(affine)
    np.testing.assert_array_equal(
        apply_orientation(volume.array[0].T, xyz), turned.array[0].T
    )
    np.testing.assert_allclose(
        affine @ inv_ornt_aff(xyz, volume.shape[::-1]), turned.affine, atol=1e-12
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(spacing=SPACINGS, origin=SPACINGS)
def test_spacing_there_and_back(spacing, origin):
    affine = affine_from_spacing(spacing, origin)
    assert spacing_of(affine) == pytest.approx(spacing)
    assert tuple(affine[:3, 3][::-1]) == origin


def test_voxel_volume():
    assert volume_of((2, 2, 2), (2.5, 2, 2), (30, 40, 50)).voxel_ml == pytest.approx(
        0.01
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(spacing=SPACINGS, angles=ANGLES)
def test_rounding_is_no_mismatch_but_a_tenth_of_a_voxel_is(spacing, angles):
    affine = volume_of((4, 5, 6), spacing, angles).affine
    shifted = affine.copy()
    shifted[0, 3] += 0.11 * min(spacing)
    assert (
        describe_mismatch(
            (4, 5, 6), affine, (4, 5, 6), affine.astype(np.float32).astype(float)
        )
        is None
    )
    assert "mm apart" in (
        describe_mismatch((4, 5, 6), affine, (4, 5, 6), shifted) or ""
    )
    assert "sizes differ" in (
        describe_mismatch((4, 5, 6), affine, (4, 6, 5), affine) or ""
    )


def test_volumes_on_two_grids_are_refused():
    first = volume_of((2, 3, 4))
    same = first.with_array(first.array[0])
    assert on_grid_of(first, same, where="case_1") is same
    with pytest.raises(GeometryError, match=r"case_1: sizes differ.*trivox check"):
        on_grid_of(first, volume_of((2, 3, 5)), where="case_1")
    with pytest.raises(
        GeometryError, match=r"spacings \[3\.0, 2\.0, 1\.0\] and \[2\.5, 2\.0, 1\.0\]"
    ):
        on_grid_of(first, volume_of((2, 3, 4), (2.5, 2.0, 1.0)), where="case_1")


@pytest.mark.parametrize(
    ("array", "affine", "problem"),
    [
        (np.zeros((2, 2, 2)), np.eye(4), "channel"),
        (np.zeros((1, 2, 2, 2)), np.eye(3), "4x4"),
        (np.zeros((1, 2, 2, 2)), np.full((4, 4), np.nan), "finite"),
        (np.zeros((1, 2, 2, 2)), np.diag([1.0, 0, 1, 1]), "singular"),
    ],
)
def test_impossible_volumes_are_refused(array, affine, problem):
    with pytest.raises(GeometryError, match=problem):
        Volume(array, affine)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    spacing=SPACINGS,
    angles=ANGLES,
    shear=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    axes=st.permutations(range(3)),
    flips=st.tuples(*[st.booleans()] * 3),
    shape=SHAPES,
)
def test_the_same_voxels_in_any_order_are_turned_onto_a_grid(
    spacing, angles, shear, axes, flips, shape
):
    """All 48 orders, on oblique and sheared grids and of single voxels."""
    volume = volume_of(shape, spacing, angles)
    tilt = np.eye(4)
    tilt[0, 1], tilt[0, 2], tilt[1, 2] = shear
    volume = Volume(volume.array, volume.affine @ tilt)
    other = reorient(volume, Orientation(tuple(axes), flips))
    turned = turned_onto(other, volume.shape, volume.affine)
    np.testing.assert_array_equal(turned.array, volume.array)
    np.testing.assert_allclose(turned.affine, volume.affine, atol=1e-9)
    moved = volume.affine.copy()
    moved[:3, 3] += 0.2 * max(spacing)
    assert turned_onto(other, volume.shape, moved) is None
