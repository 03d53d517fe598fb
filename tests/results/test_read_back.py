"""What is written is read back where it was found: by our own reader, by highdicom, and
by readers that nobody here wrote.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from read_back import (
    WAYS,
    assert_same_voxels,
    drawn_series,
    image_files,
    masks_of,
    orders,
    world,
    written,
)
from result_cases import NAMES
from trivox.datasets.labels import LabelScheme
from trivox.volumes.dicom.files import quiet
from trivox.volumes.formats import read_labels, read_volume
from trivox.volumes.segmentations.segments import Grid

ORDERS = list(orders())
PLACE = "TRIVOX_DICOM_READERS"
SCHEME = LabelScheme(labels=NAMES)
FEW = [(number, way) for number in (0, 13, 22, 31, 47) for way in WAYS]
ALL = [(number, way) for number in range(48) for way in WAYS]


def named(case):
    return f"{case[0]}-{case[1]}"


def by_our_reader(result, folder, path):
    """The label map on the grid of its image, and where its voxels are."""
    image = read_volume(folder)
    grid = Grid(image.shape, image.affine, folder)
    volume = read_labels(path, onto=grid, meaning=SCHEME)
    np.testing.assert_array_equal(volume.array, result.labels.array)
    array = volume.array[0]
    return {name: world(image.affine, array == value) for name, value in NAMES.items()}


def by_highdicom(path):
    """Where the voxels of each segment are, frame by frame."""
    with quiet():
        seg = highdicom.seg.segread(path)
        frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    names = {int(s.SegmentNumber): s.SegmentLabel for s in seg.SegmentSequence}
    shared = seg.SharedFunctionalGroupsSequence[0]
    row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    way = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    points = {}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for number, mask in masks_in(seg, group, frame):
            rows, columns = np.nonzero(mask)
            at = corner + np.outer(columns * column_mm, way[:3])
            at = at + np.outer(rows * row_mm, way[3:])
            points.setdefault(names[number], []).append(at * (-1, -1, 1))
    return {name: np.concatenate(each) for name, each in points.items()}


def masks_in(seg, group, frame):
    """Number and mask of each segment of a frame."""
    if seg.SegmentationType == "LABELMAP":
        return [(int(n), frame == n) for n in np.unique(frame) if n]
    (item,) = group.SegmentIdentificationSequence
    least = 128 if seg.SegmentationType == "FRACTIONAL" else 1
    return [(int(item.ReferencedSegmentNumber), frame >= least)]


def require_back(tmp_path, case, *, multi=False, seg_type="binary"):
    number, way = case
    folder = drawn_series(tmp_path / "s", ORDERS[number], way, multi=multi)
    result = written(folder, tmp_path, number, seg_type=seg_type)
    path = tmp_path / "a.seg.dcm"
    assert_same_voxels(result, by_our_reader(result, folder, path))
    assert_same_voxels(result, by_highdicom(path))
    contours = tmp_path / "a.rtstruct.dcm"
    assert_same_voxels(result, by_our_reader(result, folder, contours))


@pytest.mark.parametrize("seg_type", ["binary", "labelmap", "fractional"])
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("case", FEW[::4], ids=named)
def test_masks_come_back_where_they_were(tmp_path, case, multi, seg_type):
    require_back(tmp_path, case, multi=multi, seg_type=seg_type)


@pytest.mark.slow
@pytest.mark.parametrize("seg_type", ["binary", "labelmap", "fractional"])
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("case", ALL, ids=named)
def test_masks_come_back_in_every_orientation(tmp_path, case, multi, seg_type):
    require_back(tmp_path, case, multi=multi, seg_type=seg_type)


# -- readers that nobody here wrote ------------------------------------------------------
@pytest.fixture(scope="module")
def readers():
    """Where `make test-dicom` installed them."""
    place = os.environ.get(PLACE)
    if not place or not shutil.which("node"):
        pytest.skip(f"no node, or no readers of DICOM in {PLACE}; run: make test-dicom")
    return Path(place).absolute()


@pytest.mark.dicom
@pytest.mark.parametrize("multi", [False, True])
def test_cornerstone_reads_them_in_every_orientation(readers, tmp_path, multi):
    """As OHIF does: onto the images that the segmentation names."""
    results = []
    jobs = []
    for number, way in ALL:
        place = tmp_path / f"{number}-{way}"
        folder = drawn_series(place / "s", ORDERS[number], way, multi=multi)
        results.append(written(folder, place, number))
        images = [str(file) for file in image_files(folder)]
        jobs.append({"segmentation": str(place / "a.seg.dcm"), "images": images})
    done = subprocess.run(
        ["node", str(readers / "read_segmentations.cjs")],
        input=json.dumps(jobs),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    answers = json.loads(done.stdout)
    for result, answer in zip(results, answers, strict=True):
        assert "error" not in answer, answer["error"]
        points = {
            name: np.array(places, float).reshape(-1, 3) * (-1, -1, 1)
            for name, places in answer["segments"].items()
        }
        assert_same_voxels(result, points)


@pytest.mark.dicom
@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
@pytest.mark.parametrize("way", ["straight", "oblique"])  # ITK knows no tilted grids
@pytest.mark.parametrize("number", range(0, 48, 5))
def test_dcmqi_reads_them_in_every_orientation(
    readers, tmp_path, number, way, seg_type
):
    folder = drawn_series(tmp_path / "s", ORDERS[number], way)
    result = written(folder, tmp_path, number, seg_type=seg_type)
    subprocess.run(
        [
            str(readers / "venv" / "bin" / "segimage2itkimage"),
            "--inputDICOM",
            str(tmp_path / "a.seg.dcm"),
            "--outputDirectory",
            str(tmp_path),
        ],
        capture_output=True,
        check=True,
    )
    described = json.loads((tmp_path / "meta.json").read_text())
    points = {}
    for file, group in zip(
        sorted(tmp_path.glob("*.nrrd")), described["segmentAttributes"], strict=True
    ):
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        for segment in group:
            indices = np.argwhere(array == segment["labelID"])[:, ::-1].tolist()
            places = [image.TransformIndexToPhysicalPoint(index) for index in indices]
            points[segment["SegmentLabel"]] = np.array(places).reshape(-1, 3) * (
                -1,
                -1,
                1,
            )
    assert masks_of(result).keys() >= points.keys()
    assert_same_voxels(result, points)
