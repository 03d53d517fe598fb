"""DICOM SEG as label map: however it is stored, and wherever its frames lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian

import segmentation_files as files
from trivox.datasets.labels import LabelScheme
from trivox.errors import FormatError, GeometryError, LabelError
from trivox.volumes.formats import read_labels
from trivox.volumes.segmentations.reading import grid_of, values_in
from trivox.volumes.segmentations.segments import Grid

SHAPE = (5, 7, 9)  # 63 pixels a frame: bits of frames begin within a byte
AFFINE = np.array(
    [[-0.7, 0, 0, 11.5], [0, -0.8, 0, -20.25], [0, 0, 2.5, 3.75], [0, 0, 0, 1.0]]
)
GRID = Grid(SHAPE, AFFINE)
NAMES = ["liver", "spleen"]


def masks_of(seed, shape=SHAPE):
    """Two masks that share no voxel."""
    labels = np.random.default_rng(seed).integers(0, 3, shape)
    labels[0] = 0
    labels[-2] = 0
    return np.stack([labels == 1, labels == 2]), labels


@given(
    st.integers(0, 99),
    st.sampled_from(["BINARY", "FRACTIONAL"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1, 2]),
)
@settings(max_examples=25, deadline=None)
def test_frames_are_read_in_any_order_with_empty_ones_left_out(
    tmp_path_factory, seed, type_, empty, apart, order
):
    path = tmp_path_factory.mktemp("seg") / "a.dcm"
    masks, labels = masks_of(seed)
    rle = type_ == "FRACTIONAL" and seed % 2 == 0
    files.seg(
        path,
        masks.astype(float),
        AFFINE,
        names=NAMES,
        type_=type_,
        order=order,
        keep_empty=empty,
        rle=rle,
        per_frame_geometry=apart,
    )
    volume = read_labels(path, onto=GRID)
    np.testing.assert_array_equal(volume.array[0], labels)
    np.testing.assert_allclose(volume.affine, AFFINE)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rle", [False, True])
def test_label_maps_are_read(tmp_path, bits, rle):
    _, labels = masks_of(3)
    files.seg(
        tmp_path / "a.dcm",
        labels[None],
        AFFINE,
        names=NAMES,
        type_="LABELMAP",
        bits=bits,
        rle=rle,
        order=1,
    )
    volume = read_labels(tmp_path / "a.dcm", onto=GRID)
    np.testing.assert_array_equal(volume.array[0], labels)


def test_a_value_that_is_no_segment_is_named(tmp_path):
    labels = masks_of(3)[1]
    files.seg(tmp_path / "a.dcm", labels[None], AFFINE, names=["a"], type_="LABELMAP")
    with pytest.raises(FormatError, match=r"a\.dcm: holds the value 2, which is none"):
        read_labels(tmp_path / "a.dcm", onto=GRID)


def test_the_padding_of_a_label_map_is_no_segment(tmp_path):
    labels = masks_of(3)[1]
    padded = np.where(labels == 0, 7, labels)
    files.seg(
        tmp_path / "a.dcm",
        padded[None],
        AFFINE,
        names=NAMES,
        type_="LABELMAP",
        PixelPaddingValue=7,
    )
    volume = read_labels(tmp_path / "a.dcm", onto=GRID)
    np.testing.assert_array_equal(volume.array[0], labels)


def test_deflated_ones_are_read(tmp_path):
    masks, labels = masks_of(5)
    dataset = files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    volume = read_labels(tmp_path / "a.dcm", onto=GRID)
    np.testing.assert_array_equal(volume.array[0], labels)


@pytest.mark.parametrize(("share", "count"), [(0.5, 3), (0.2, 4), (0.8, 2)])
def test_fractions_count_from_a_share_on(tmp_path, share, count):
    fractions = np.zeros((1, 1, 2, 3))
    fractions[0, 0, 0] = [1, 0.9, 0.52]
    fractions[0, 0, 1] = [0.3, 0.1, 0]
    files.seg(
        tmp_path / "a.dcm", fractions, AFFINE, names=["a"], type_="FRACTIONAL", most=200
    )
    volume = read_labels(tmp_path / "a.dcm", share=share)
    assert volume.array.sum() == count


# -- which voxels ------------------------------------------------------------------------
def test_without_an_image_the_frames_span_the_grid(tmp_path):
    masks, labels = masks_of(0)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES, order=2)
    grid = grid_of(tmp_path / "a.dcm")
    assert grid.shape == (4, 7, 9)  # slice 0 is empty, slice 3 within
    np.testing.assert_array_equal(read_labels(tmp_path / "a.dcm").array[0], labels[1:])


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_the_image_may_have_its_axes_in_another_order(tmp_path, axes, flips):
    masks, labels = masks_of(1)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES, order=0)
    turned = labels.transpose(axes)[tuple(slice(None, None, step) for step in flips)]
    affine = np.eye(4)
    origin = np.zeros(3)
    for place, (axis, step) in enumerate(zip(axes, flips, strict=True)):
        affine[:3, 2 - place] = AFFINE[:3, 2 - axis] * step
        if step < 0:
            origin += AFFINE[:3, 2 - axis] * (SHAPE[axis] - 1)
    affine[:3, 3] = AFFINE[:3, 3] + origin
    volume = read_labels(tmp_path / "a.dcm", onto=Grid(turned.shape, affine))
    np.testing.assert_array_equal(volume.array[0], turned)


def test_a_part_of_the_image_is_placed_where_it_lies(tmp_path):
    masks, labels = masks_of(2)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES)
    wide = AFFINE.copy()
    wide[:3, 3] -= AFFINE[:3, :3] @ [2, 3, 1]
    volume = read_labels(tmp_path / "a.dcm", onto=Grid((9, 12, 14), wide))
    np.testing.assert_array_equal(volume.array[0, 1:6, 3:10, 2:11], labels)
    assert np.count_nonzero(volume.array) == np.count_nonzero(labels)


def test_what_is_marked_outside_the_image_is_not_lost_in_silence(tmp_path):
    masks, _ = masks_of(2)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES)
    with pytest.raises(GeometryError, match=r"a\.dcm: 'liver' marks voxels outside"):
        read_labels(tmp_path / "a.dcm", onto=Grid((5, 7, 4), AFFINE))


@pytest.mark.parametrize("change", ["spacing", "half a voxel", "turned"])
def test_another_grid_is_refused(tmp_path, change):
    files.seg(tmp_path / "a.dcm", masks_of(2)[0], AFFINE, names=NAMES)
    affine = AFFINE.copy()
    if change == "spacing":
        affine[0, 0] *= 1.1
    elif change == "half a voxel":
        affine[0, 3] += 0.35
    else:
        angle = 0.2
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine[:2] = turn @ affine[:2]
    with pytest.raises(GeometryError, match=r"a\.dcm: its pixels are no voxels"):
        read_labels(tmp_path / "a.dcm", onto=Grid(SHAPE, affine))


# -- what they are called ----------------------------------------------------------------
def test_names_decide_the_values(tmp_path):
    masks, labels = masks_of(4)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=["Spleen_", "LIVER"])
    scheme = LabelScheme(labels={"liver": 300, "spleen": 7, "other": 1})
    volume = read_labels(tmp_path / "a.dcm", onto=GRID, meaning=scheme)
    np.testing.assert_array_equal(volume.array[0], np.array([0, 7, 300])[labels])
    assert "liver" not in values_in(tmp_path / "a.dcm")


def test_segments_that_the_dataset_does_not_know_are_named(tmp_path):
    files.seg(tmp_path / "a.dcm", masks_of(4)[0], AFFINE, names=["liver", "tumor"])
    scheme = LabelScheme(labels={"liver": 1, "cyst": 2})
    with pytest.raises(LabelError, match=r"a\.dcm: segments 'tumor' are no labels"):
        read_labels(tmp_path / "a.dcm", onto=GRID, meaning=scheme)


def test_a_name_that_says_nothing_is_known_by_its_number(tmp_path):
    masks, labels = masks_of(4)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=["Segment_1", "liver"])
    scheme = LabelScheme(labels={"liver": 5, "spleen": 1})
    volume = read_labels(tmp_path / "a.dcm", onto=GRID, meaning=scheme)
    np.testing.assert_array_equal(volume.array[0], np.array([0, 1, 5])[labels])
    assert any("known by number" in remark for remark in volume.remarks)


def test_an_inner_segment_lies_over_the_outer_one(tmp_path):
    masks = np.zeros((3, *SHAPE), bool)
    masks[2, 1:4, 1:6, 1:8] = True
    masks[0, 2:4, 2:5, 2:6] = True
    masks[1, 2, 3, 3] = True
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=["tumour", "cyst", "liver"])
    volume = read_labels(tmp_path / "a.dcm", onto=GRID)
    expected = np.where(masks[2], 3, 0)
    expected[masks[0]] = 1
    expected[masks[1]] = 2
    np.testing.assert_array_equal(volume.array[0], expected)
    assert any(
        "'tumour' over 'liver'" in remark and "'cyst' over 'tumour'" in remark
        for remark in volume.remarks
    )


@pytest.mark.parametrize("same", [False, True])
def test_segments_that_share_a_part_are_refused_by_name_and_count(tmp_path, same):
    masks = np.zeros((2, *SHAPE), bool)
    masks[0, 1:3, 1:4, 1:4] = True
    masks[1, 2:4, 1:4, 1:4] = True
    count = 9
    if same:
        masks[1] = masks[0]
        count = 18
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES)
    with pytest.raises(LabelError, match=f"'liver' and 'spleen' share {count} voxels"):
        read_labels(tmp_path / "a.dcm", onto=GRID)


def test_regions_may_overlap(tmp_path):
    masks = np.zeros((2, *SHAPE), bool)
    masks[0, 1:4, 1:6, 1:8] = True
    masks[1, 2:4, 2:5, 2:6] = True
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=["whole", "core"])
    scheme = LabelScheme(
        labels={"edema": 2, "centre": 1},
        regions={"whole": (1, 2), "core": (1,)},
        region_order=(2, 1),
    )
    volume = read_labels(tmp_path / "a.dcm", onto=GRID, meaning=scheme)
    expected = np.where(masks[0], 2, 0)
    expected[masks[1]] = 1
    np.testing.assert_array_equal(volume.array[0], expected)


def test_two_segments_of_one_name_are_one_label(tmp_path):
    masks, labels = masks_of(4)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=["lesion", "lesion"])
    np.testing.assert_array_equal(
        read_labels(tmp_path / "a.dcm", onto=GRID).array[0], labels > 0
    )


# -- references --------------------------------------------------------------------------
def test_references_are_compared_with_the_images(tmp_path):
    uids = files.series(tmp_path / "ct", AFFINE, SHAPE)
    grid = GRID._replace(image=tmp_path / "ct")
    masks, labels = masks_of(4)
    files.seg(tmp_path / "right.dcm", masks, AFFINE, names=NAMES, images=uids)
    files.seg(tmp_path / "wrong.dcm", masks, AFFINE, names=NAMES, images=["1.2.7"])
    files.seg(tmp_path / "frame.dcm", masks, AFFINE, names=NAMES, frame="1.9")
    said = {}
    for name in ("right", "wrong", "frame"):
        volume = read_labels(tmp_path / f"{name}.dcm", onto=grid)
        np.testing.assert_array_equal(volume.array[0], labels)
        said[name] = volume.remarks[1:]
    assert said["right"] == ()
    assert "of 1 images that it names none belong" in said["wrong"][0]
    assert "frame of reference: is another" in said["frame"][0]
    assert "1.2.7" not in str(said)  # a UID is a value of the patient


# -- what cannot be read -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"SegmentationType": "SURFACE"}, "SegmentationType is 'SURFACE'"),
        ({"SegmentSequence": []}, "lists no segments"),
        ({"DimensionOrganizationType": "TILED_FULL"}, "tiles of a slide"),
        ({"SharedFunctionalGroupsSequence": []}, "ImageOrientationPatient"),
        ({"NumberOfFrames": 900}, "frames with"),
        ({"Rows": 60000, "Columns": 60000}, "bits need|declares"),
        ({"PixelData": b"\0\0"}, "holds 2 bytes of pixels"),
        ({"PixelData": None}, "holds no pixel data"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"SamplesPerPixel": 3}, "several colours"),
        ({"Rows": None}, "ends before its size"),
        ({"PerFrameFunctionalGroupsSequence": []}, "ImagePositionPatient|segment None"),
    ],
)
def test_what_is_no_volume_is_refused_in_one_line(tmp_path, attributes, problem):
    masks, _ = masks_of(4)
    files.seg(tmp_path / "a.dcm", masks, AFFINE, names=NAMES, **attributes)
    with pytest.raises((FormatError, GeometryError), match=problem) as caught:
        read_labels(tmp_path / "a.dcm", onto=GRID)
    assert "a.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)
