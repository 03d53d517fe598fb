"""Where NIfTI files lie: units, sform and qform, and voxels of no scanner."""

import struct

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sample_volumes import oblique
from trivox.errors import GeometryError
from trivox.volumes.formats import read_header, read_volume, write_volume
from trivox.volumes.volume import spacing_of

UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""mm of the codes of xyzt_units."""


def header_of(affine, *, unit=2, qform=None, sform_code=1, qform_code=1, **fields):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((5, 4, 3))
    header.set_qform(affine if qform is None else qform, code=qform_code)
    header.set_sform(affine, code=sform_code)
    header["xyzt_units"] = unit
    for name, value in fields.items():
        header[name] = value
    return header


def saved(path, header):
    header["vox_offset"] = 352
    size = int(np.prod(header.get_data_shape()))
    path.write_bytes(header.binaryblock + bytes(4) + bytes(range(size)))
    return path


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_the_unit_of_the_header_does_not_matter(tmp_path, unit, codes):
    sform_code, qform_code = codes
    scale = np.diag([1 / UNITS[unit]] * 3 + [1])
    codes = {"sform_code": sform_code, "qform_code": qform_code}
    plain = saved(tmp_path / "mm.nii", header_of(oblique(), **codes))
    other = saved(tmp_path / "u.nii", header_of(scale @ oblique(), unit=unit, **codes))
    expected = read_header(plain)
    found = read_header(other)
    np.testing.assert_allclose(found.affine, expected.affine, rtol=1e-5, atol=1e-5)
    assert found.remarks == expected.remarks


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_written_on_a_grid_keeps_its_unit_and_numbers(tmp_path, unit, suffix):
    affine = np.diag([1 / UNITS[unit]] * 3 + [1]) @ oblique()
    source = saved(tmp_path / "a.nii", header_of(affine, unit=unit))
    volume = read_volume(source)
    target = tmp_path / f"b{suffix}"
    write_volume(target, volume.with_array(volume.array + 1))
    first = nibabel.load(source)
    second = nibabel.load(target)
    np.testing.assert_array_equal(second.affine, first.affine)
    assert second.header["xyzt_units"] == (unit or 2)
    np.testing.assert_array_equal(read_volume(target).affine, volume.affine)


@given(
    sizes=st.tuples(*[st.floats(0.1, 10)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    offset=st.tuples(*[st.floats(-500, 500)] * 3),
    flipped=st.booleans(),
)
def test_the_qform_is_what_nibabel_means(sizes, angles, offset, flipped):
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turned * [sizes[0], sizes[1], -sizes[2] if flipped else sizes[2]]
    affine[:3, 3] = offset
    header = header_of(affine, sform_code=0)
    from trivox.volumes.headers.nifti_grid import placement_of

    placement = placement_of(header)
    np.testing.assert_allclose(placement.affine, header.get_qform(), atol=1e-5)
    assert placement.remarks == ()


@given(
    sizes=st.tuples(*[st.floats(0.1, 10)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    offset=st.tuples(*[st.floats(-500, 500)] * 3),
    factor=st.sampled_from([1, 1, 0.5, 1.01, 3]),
    shift=st.sampled_from([0, 0, 0.05, 4]),
    turn=st.sampled_from([0, 0, 2, 90]),
)
def test_sform_and_qform_that_disagree_are_told(
    sizes, angles, offset, factor, shift, turn
):
    from trivox.volumes.headers.nifti_grid import placement_of

    qform = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True)
    qform[:3, :3] = rotation.as_matrix() * sizes
    qform[:3, 3] = offset
    sform = qform.copy()
    sform[:3, 1] *= factor
    sform[:3, 3] += shift * min(sizes)
    around_z = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    sform[:3, :3] = sform[:3, :3] @ around_z
    placement = placement_of(header_of(sform, qform=qform))
    np.testing.assert_allclose(placement.affine, sform, rtol=1e-5, atol=1e-4)
    if (factor, shift, turn) == (1, 0, 0):
        assert placement.remarks == ()
        return
    (remark,) = placement.remarks
    assert remark.startswith("sform and qform disagree: spacing ")
    assert remark.endswith("the sform was taken")
    for affine in (sform, qform):
        numbers = " x ".join(f"{mm:.4g}" for mm in spacing_of(np.float32(affine)))
        assert remark.count(numbers) >= 1 or "e" in numbers


def test_pixdim_that_disagrees_with_the_sform_is_told(tmp_path):
    header = header_of(oblique(), qform_code=0, pixdim=[1, 3, 3, 3, 0, 0, 0, 0])
    (remark,) = read_header(saved(tmp_path / "a.nii", header)).remarks
    assert remark.startswith("sform and pixdim disagree: spacing 2.5 x 0.7 x 0.9 mm")
    assert "3 x 3 x 3 mm" in remark


def test_without_sform_and_qform_left_and_right_are_not_known(tmp_path):
    header = header_of(np.diag([1, 2, 3, 1]), sform_code=0, qform_code=0)
    (remark,) = read_header(saved(tmp_path / "a.nii", header)).remarks
    assert "where right and left are" in remark


@pytest.mark.parametrize("size", [0, -1, np.nan, np.inf])
def test_pixdim_that_is_no_size_is_refused_where_it_is_needed(tmp_path, size):
    wrong = {"pixdim": [1, size, 1, 1, 0, 0, 0, 0]}
    for codes in ({"sform_code": 0}, {"sform_code": 0, "qform_code": 0}):
        path = saved(tmp_path / "a.nii", header_of(np.eye(4), **codes, **wrong))
        for read in (read_header, read_volume):
            with pytest.raises(GeometryError, match="no voxel sizes; repair"):
                read(path)
    path = saved(tmp_path / "b.nii", header_of(np.eye(4), **wrong))
    (remark,) = read_volume(path).remarks
    assert remark.startswith("qform cannot be used: pixdim holds")


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path):
    header = header_of(np.eye(4), sform_code=0, quatern_b=0.9, quatern_c=0.9)
    with pytest.raises(GeometryError, match="no rotation"):
        read_volume(saved(tmp_path / "a.nii", header))


def test_voxels_of_no_scanner_are_told_and_rooms_of_voxels_refused(tmp_path):
    fine = saved(tmp_path / "a.nii", header_of(np.diag([1e-3, 1e-3, 1e-3, 1])))
    (remark,) = read_volume(fine).remarks
    assert remark.startswith("implausible spacing: 0.001 x 0.001 x 0.001 mm")
    coarse = saved(tmp_path / "b.nii", header_of(np.diag([150.0, 1, 1, 1])))
    assert read_header(coarse).remarks[0].startswith("implausible spacing: 1 x 1 x 150")
    far = saved(tmp_path / "c.nii", header_of(np.diag([4000.0, 1, 1, 1])))
    for read in (read_header, read_volume):
        with pytest.raises(GeometryError, match=r"image of 20 m; correct .* unit"):
            read(far)


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "remarks"),
    [(0, 7, 1, 0), (np.nan, 7, 1, 0), (np.inf, 7, 1, 1), (2, 0, 2, 0)],
)
def test_a_slope_that_is_unset_or_no_number_leaves_values_as_stored(
    tmp_path, slope, intercept, factor, remarks
):
    header = header_of(np.eye(4), scl_slope=slope, scl_inter=intercept)
    volume = read_volume(saved(tmp_path / "a.nii", header))
    np.testing.assert_array_equal(volume.array.ravel(), factor * np.arange(60.0))
    assert len(volume.remarks) == remarks


def test_an_intercept_that_is_no_number_is_refused(tmp_path):
    path = saved(tmp_path / "a.nii", header_of(np.eye(4)))
    data = bytearray(path.read_bytes())
    data[112:120] = struct.pack("<2f", 1, np.nan)
    path.write_bytes(data)
    with pytest.raises(Exception, match="repair scl_slope and scl_inter"):
        read_volume(path)
