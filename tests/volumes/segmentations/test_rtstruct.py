"""RTSTRUCT as label map: contours on the slices of an image, in any orientation."""

import numpy as np
import pytest

import segmentation_files as files
from trivox.errors import DataError, GeometryError
from trivox.volumes.formats import read_labels
from trivox.volumes.segmentations.segments import Grid

SHAPE = (5, 12, 14)


def turned(angles, spacing=(2.5, 0.8, 0.7), origin=(12.0, -30.5, 80.25), tilt=0.0):
    """An affine with these steps (z y x), turned by degrees about x, y, z."""
    a, b, c = np.deg2rad(angles)
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    affine = np.eye(4)
    steps = np.diag([spacing[2], spacing[1], spacing[0]])
    steps[1, 2] = tilt  # of the gantry
    affine[:3, :3] = np.array(about_x) @ about_y @ about_z @ steps
    affine[:3, 3] = origin
    return affine


def contour(affine, points, z):
    """Points (column, row) on slice z, in RAS mm."""
    points = np.asarray(points, float)
    indices = np.column_stack([points, np.full(len(points), z)])
    return indices @ affine[:3, :3].T + affine[:3, 3]


SQUARE = [(2.5, 1.5), (9.5, 1.5), (9.5, 8.5), (2.5, 8.5)]
HOLE = [(4.5, 3.5), (6.5, 3.5), (6.5, 5.5), (4.5, 5.5)]
ISLAND = [(11.5, 1.5), (12.5, 1.5), (12.5, 4.5), (11.5, 4.5)]


@pytest.mark.parametrize("angles", [(0, 0, 0), (90, 0, 0), (0, 90, 0), (20, -35, 50)])
@pytest.mark.parametrize("tilt", [0.0, 0.6])
def test_contours_hold_the_voxels_whose_centres_they_hold(tmp_path, angles, tilt):
    affine = turned(angles, tilt=tilt)
    contours = [contour(affine, each, 2) for each in (SQUARE, HOLE, ISLAND)]
    files.rtstruct(
        tmp_path / "a.dcm",
        [("organ", contours), ("rest", [contour(affine, ISLAND, 4)])],
    )
    volume = read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))
    expected = np.zeros(SHAPE, int)
    expected[2, 2:9, 3:10] = 1
    expected[2, 4:6, 5:7] = 0
    expected[2, 2:5, 12:13] = 1
    expected[4, 2:5, 12:13] = 2
    np.testing.assert_array_equal(volume.array[0], expected)


def test_contours_may_lie_in_planes_across_the_slices(tmp_path):
    """Sagittal contours on an axial image."""
    affine = turned((0, 0, 0))
    points = [(0.5, 2.5), (3.5, 2.5), (3.5, 7.5), (0.5, 7.5)]  # (z, y)
    indices = [[6, y, z] for z, y in points]
    drawn = np.array(indices) @ affine[:3, :3].T + affine[:3, 3]
    files.rtstruct(tmp_path / "a.dcm", [("organ", [drawn])])
    volume = read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))
    expected = np.zeros(SHAPE, int)
    expected[1:4, 3:8, 6] = 1
    np.testing.assert_array_equal(volume.array[0], expected)


def test_a_contour_between_slices_belongs_to_the_nearest_and_not_to_two(tmp_path):
    affine = turned((0, 0, 0))
    contours = [
        contour(affine, SQUARE, 1.4),
        contour(affine, HOLE, 1.2),  # of another plane: no hole in the one above
        contour(affine, SQUARE, 3.1),
        contour(affine, SQUARE, 3.1),  # twice the same: no hole either
        contour(affine, ISLAND, 7.0),
    ]
    files.rtstruct(tmp_path / "a.dcm", [("organ", contours)])
    volume = read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))
    counts = volume.array[0].sum(axis=(1, 2)).tolist()
    assert counts == [0, 4, 0, 49, 0]
    said = " ".join(volume.remarks)
    assert "contours outside the image: left out of 'organ' (1)" in said
    assert "a nearer one decides: left out of 'organ' (1)" in said


def test_points_and_open_contours_are_left_out_and_said(tmp_path):
    affine = turned((0, 0, 0))
    square = contour(affine, SQUARE, 2)
    contours = [
        square,
        ("POINT", square[:1]),
        ("OPEN_PLANAR", square[:3]),
        ("CLOSED_PLANAR", square[:2]),
    ]
    files.rtstruct(tmp_path / "a.dcm", [("organ", contours)])
    volume = read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))
    assert volume.array.sum() == 49
    (said,) = [remark for remark in volume.remarks if "only closed ones" in remark]
    assert "1 x POINT" in said
    assert "1 x OPEN_PLANAR" in said
    assert "1 x contour of too few points" in said


@pytest.mark.parametrize("problem", ["oblique", "beside"])
def test_what_does_not_lie_in_the_image_is_named(tmp_path, problem):
    affine = turned((0, 0, 0))
    drawn = contour(affine, SQUARE, 2)
    if problem == "oblique":
        drawn[:2, 2] += 4
    else:
        drawn[:, 2] += 400
    files.rtstruct(tmp_path / "a.dcm", [("organ", [drawn])])
    with pytest.raises(GeometryError, match=r"a\.dcm: .*contours") as caught:
        read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))
    assert "\n" not in str(caught.value)


def test_beside_its_images_it_finds_their_grid(tmp_path):
    affine = turned((0, 0, 0))
    # DICOM slices run towards the head: rows to the back, columns to the left
    affine[:3, :2] *= -1
    uids = files.series(tmp_path, affine, SHAPE)
    drawn = contour(affine, SQUARE, 2)
    files.rtstruct(tmp_path / "rt.dcm", [("organ", [drawn])], images=uids)
    volume = read_labels(tmp_path / "rt.dcm")
    assert volume.shape == SHAPE
    assert volume.array[0, 2, 2:9, 3:10].sum() == 49
    alone = tmp_path / "alone" / "rt.dcm"
    files.rtstruct(alone, [("organ", [drawn])], images=uids)
    with pytest.raises(GeometryError, match="no voxels of their own"):
        read_labels(alone)


def test_another_frame_of_reference_is_refused_unless_the_images_are_there(tmp_path):
    affine = turned((0, 0, 0))
    affine[:3, :2] *= -1
    uids = files.series(tmp_path / "ct", affine, SHAPE)
    grid = Grid(SHAPE, affine, tmp_path / "ct")
    rois = [("organ", [contour(affine, SQUARE, 2)])]
    files.rtstruct(tmp_path / "a.dcm", rois, images=["1.7"], frame="1.99")
    with pytest.raises(GeometryError, match=r"a\.dcm: was drawn in another frame"):
        read_labels(tmp_path / "a.dcm", onto=grid)
    files.rtstruct(tmp_path / "b.dcm", rois, images=uids, frame="1.99")
    assert any(
        remark.startswith("frame of reference: ")
        for remark in read_labels(tmp_path / "b.dcm", onto=grid).remarks
    )
    files.rtstruct(tmp_path / "c.dcm", rois, images=["1.7"])
    assert any(
        "of 1 images that it names none" in remark
        for remark in read_labels(tmp_path / "c.dcm", onto=grid).remarks
    )


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"StructureSetROISequence": []}, "lists no regions"),
        ({"ROIContourSequence": [files.item(ReferencedROINumber=7)]}, "region 7"),
        ({"ROIContourSequence": [files.item(ReferencedROINumber=None)]}, "damaged"),
    ],
)
def test_damaged_ones_are_refused_in_one_line(tmp_path, attributes, problem):
    affine = turned((0, 0, 0))
    files.rtstruct(
        tmp_path / "a.dcm", [("organ", [contour(affine, SQUARE, 2)])], **attributes
    )
    if "ROIContourSequence" in attributes and problem == "region 7":
        attributes["ROIContourSequence"][0].ContourSequence = []
    with pytest.raises(DataError, match=problem) as caught:
        read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))
    assert "\n" not in str(caught.value)
