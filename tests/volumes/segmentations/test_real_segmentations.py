"""Segmentations that others wrote, against what highdicom reads of them and against the
label maps that lie beside them.
"""

import tarfile
import warnings

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, GeometryError, LabelError
from trivox.volumes.dicom.files import quiet
from trivox.volumes.formats import label_grid, read_header, read_labels, read_volume
from trivox.volumes.segmentations.painting import _part
from trivox.volumes.segmentations.reading import read_segmentation
from trivox.volumes.segmentations.segments import Grid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
WITH_PLACE = [
    "dcmqi/liver.dcm",
    "dcmqi/partial_overlaps.dcm",
    "dcmqi/sparse-labelmap-noppv.dcm",
    "dcmqi/sparse-labelmap-ppv5.dcm",
    "dcmqi/24x38x3/seg/label.seg",
    "highdicom/seg_image_ct_binary.dcm",
    "highdicom/seg_image_ct_binary_fractional.dcm",
    "highdicom/seg_image_ct_binary_overlap.dcm",
    "highdicom/seg_image_ct_binary_single_frame.dcm",
    "highdicom/seg_image_ct_true_fractional.dcm",
]


@pytest.fixture
def dicom(data_root):
    return data_root / "dicom"


def masks_on(path, grid):
    """A mask for each segment, by its number."""
    with quiet():
        segmentation = read_segmentation(path)
        masks = {s.number: np.zeros(grid.shape, bool) for s in segmentation.segments}
        for patch in segmentation.patches(grid):
            number = segmentation.segments[patch.segment].number
            _part(masks[number], patch)[patch.mask] = True
    return masks


def as_highdicom_reads(path):
    """A grid, and the mask of each segment on it."""
    highdicom = pytest.importorskip("highdicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = highdicom.seg.segread(path)
        options = {"allow_missing_positions": True}
        numbers = [n for n in seg.segment_numbers if n > 0]
        if seg.segmentation_type.value == "LABELMAP":
            volume = seg.get_volume(combine_segments=True, **options)
            masks = {n: volume.array == n for n in numbers}
        else:
            volume = seg.get_volume(segment_numbers=numbers, **options)
            masks = {n: volume.array[..., i] >= 0.5 for i, n in enumerate(numbers)}
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, 2::-1]  # (slice, row, column) to (x, y, z)
    affine[:3, 3] = volume.affine[:3, 3]
    return Grid(volume.spatial_shape, LPS @ affine), masks


@pytest.mark.parametrize("name", WITH_PLACE)
def test_every_segment_is_where_highdicom_reads_it(dicom, name):
    grid, expected = as_highdicom_reads(dicom / name)
    masks = masks_on(dicom / name, grid)
    for number, mask in expected.items():
        np.testing.assert_array_equal(masks[number], mask)
    assert any(mask.any() for mask in expected.values())


@pytest.mark.parametrize(
    ("seg", "map_", "values"),
    [
        ("liver.dcm", "liver_seg.nrrd", {1: (1,)}),
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd", {1: (1,)}),
        ("partial_overlaps.dcm", "partial_overlaps-1.nrrd", {1: (1,), 2: (2,)}),
    ],
)
def test_dcmqi_made_them_of_the_label_map_beside(dicom, seg, map_, values):
    folder = dicom / "dcmqi"
    expected = read_volume(folder / map_)
    masks = masks_on(folder / seg, label_grid(folder / map_))
    for number, written in values.items():
        if not np.isin(expected.array, written).any():
            continue
        np.testing.assert_array_equal(
            masks[number], np.isin(expected.array[0], written)
        )


def test_its_own_images_lie_below_the_segmentation(dicom):
    folder = dicom / "dcmqi"
    header = read_header(folder / "ct-3slice")
    image = Grid(header.shape, header.affine, folder / "ct-3slice")
    volume = read_labels(folder / "liver.dcm", onto=image)
    expected = read_labels(folder / "liver_seg.nrrd", onto=image)
    np.testing.assert_array_equal(volume.array, expected.array)
    assert np.count_nonzero(volume.array) > 1000


def test_segments_that_overlap_are_named(dicom):
    with pytest.raises(LabelError, match="share 50 voxels"):
        read_labels(dicom / "dcmqi" / "partial_overlaps.dcm")
    with pytest.raises(
        LabelError, match=r"'right lung' and 'overlapping sphere' share"
    ):
        read_labels(dicom / "slicer-nrrd" / "SegmentationOverlapping.seg.nrrd")


def test_what_is_no_volume_and_no_segmentation_is_named_in_one_line(dicom):
    for name in ("seg_image_cr_binary", "sr_document"):
        path = dicom / "highdicom" / f"{name}.dcm"
        with pytest.raises(DataError) as caught:
            read_labels(path)
        assert f"{name}.dcm" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_slicers_segments_lie_on_their_image(dicom):
    folder = dicom / "slicer-nrrd"
    header = read_header(folder / "CTChest4.nrrd")
    image = Grid(header.shape, header.affine)
    volume = read_labels(folder / "Segmentation.seg.nrrd", onto=image)
    stored = read_volume(folder / "Segmentation.seg.nrrd")
    np.testing.assert_array_equal(volume.array, stored.array)
    scheme = LabelScheme(labels={"right lung": 1, "left lung": 2})
    with pytest.raises(LabelError, match=r"'ribs'.* are no labels of the dataset"):
        read_labels(folder / "Segmentation.seg.nrrd", onto=image, meaning=scheme)


def test_structures_of_rt_utils(dicom):
    folder = dicom / "rt-utils"
    volume = read_labels(folder / "rt.dcm")
    assert volume.shape == (2, 512, 512)
    contours = {}
    for entry in pydicom.dcmread(folder / "rt.dcm").ROIContourSequence:
        for contour in entry.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3) * (-1, -1, 1)
            inverse = np.linalg.inv(volume.affine)
            indices = points @ inverse[:3, :3].T + inverse[:3, 3]
            contours.setdefault(round(indices[0, 2]), []).append(indices[:, :2])
    for z, polygons in contours.items():
        if not 0 <= z < 2:
            continue
        drawn, border = _drawn(polygons, volume.shape[1:])
        assert drawn.sum() > 1000
        np.testing.assert_array_equal((volume.array[0, z] > 0)[~border], drawn[~border])


def _drawn(polygons, size):
    """The mask that PIL draws, a polygon in another as a hole, and where edges run."""
    drawn = np.zeros(size, bool)
    border = np.zeros(size, bool)
    for polygon in polygons:
        points = [tuple(point) for point in polygon]
        for target, outline in ((drawn, False), (border, True)):
            image = Image.new("1", size[::-1])
            draw = ImageDraw.Draw(image)
            if outline:
                draw.line([*points, points[0]], fill=1, width=3)
                target |= np.array(image)
            else:
                draw.polygon(points, fill=1)
                target ^= np.array(image)
    return drawn, border


def test_broken_references_are_said(dicom):
    folder = dicom / "rt-utils"
    volume = read_labels(folder / "invalid_reference_rt.dcm")
    assert any(remark.startswith("references: ") for remark in volume.remarks)
    with pytest.raises(GeometryError, match="do not lie beside it"):
        read_labels(folder / "non_existent_reference_rt.dcm")


@pytest.mark.slow
def test_a_large_segmentation_lies_on_its_pet(dicom, tmp_path):
    with tarfile.open(dicom / "pet-with-seg.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = {
            file: pydicom.dcmread(file, specific_tags=["Modality"], force=True).get(
                "Modality"
            )
            for file in files
        }
    (seg,) = [file for file, kind in kinds.items() if kind == "SEG"]
    image = next(file for file, kind in kinds.items() if kind == "PT").parent
    header = read_header(image)
    grid = Grid(header.shape, header.affine, image)
    masks = masks_on(seg, grid)
    theirs, expected = as_highdicom_reads(seg)
    again = masks_on(seg, theirs)
    for number, mask in expected.items():
        np.testing.assert_array_equal(again[number], mask)
        assert masks[number].sum() == mask.sum()
    assert len(expected) == 11
