"""Segmentations of 3D Slicer: names in an NRRD header, in one layer or in several."""

import numpy as np
import pytest

import segmentation_files as files
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, FormatError, LabelError
from trivox.volumes.formats import read_labels
from trivox.volumes.segmentations.segments import Grid

AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])
AFFINE[:3, 3] = (4, -5, 6)
SHAPE = (3, 5, 6)


def layers(*boxes):
    """Layers with the values 1, 2... in boxes `(layer, value, z, y, x)`."""
    array = np.zeros((1 + max(box[0] for box in boxes), *SHAPE), np.uint8)
    for layer, value, z, y, x in boxes:
        array[layer, slice(*z), slice(*y), slice(*x)] = value
    return array


def test_names_decide_and_layers_join(tmp_path):
    array = layers((0, 1, (0, 2), (0, 2), (0, 3)), (1, 1, (2, 3), (1, 4), (2, 6)))
    segments = [("left lung", 0, 1), ("right_lung", 1, 1)]
    files.slicer_file(tmp_path / "a.seg.nrrd", array, AFFINE, segments)
    scheme = LabelScheme(labels={"Right lung": 4, "left lung": 9})
    volume = read_labels(tmp_path / "a.seg.nrrd", meaning=scheme)
    np.testing.assert_array_equal(volume.array[0], 9 * array[0] + 4 * array[1])
    np.testing.assert_allclose(volume.affine, AFFINE)
    plain = read_labels(tmp_path / "a.seg.nrrd")  # one value twice: places instead
    np.testing.assert_array_equal(plain.array[0], array[0] + 2 * array[1])


def test_the_part_that_slicer_saves_is_placed_in_the_image(tmp_path):
    array = layers((0, 3, (0, 3), (0, 5), (0, 6)))
    files.slicer_file(tmp_path / "a.seg.nrrd", array, AFFINE, [("liver", 0, 3)])
    whole = AFFINE.copy()
    whole[:3, 3] -= AFFINE[:3, :3] @ [1, 2, 3]
    volume = read_labels(tmp_path / "a.seg.nrrd", onto=Grid((9, 9, 9), whole))
    assert (volume.array[0, 3:6, 2:7, 1:7] == 3).all()
    assert np.count_nonzero(volume.array) == 90


def test_layers_that_overlap_in_part_are_refused(tmp_path):
    array = layers((0, 1, (0, 2), (0, 2), (0, 3)), (1, 1, (1, 3), (1, 4), (2, 6)))
    segments = [("liver", 0, 1), ("cyst", 1, 1)]
    files.slicer_file(tmp_path / "a.seg.nrrd", array, AFFINE, segments)
    with pytest.raises(LabelError, match=r"a\.seg\.nrrd: .*'cyst'.* share 1 voxels"):
        read_labels(tmp_path / "a.seg.nrrd")


def test_a_name_that_slicer_gave_is_known_by_its_value(tmp_path):
    array = layers((0, 2, (0, 2), (0, 2), (0, 3)))
    files.slicer_file(tmp_path / "a.seg.nrrd", array, AFFINE, [("Segment_1", 0, 2)])
    scheme = LabelScheme(labels={"tumour": 2})
    volume = read_labels(tmp_path / "a.seg.nrrd", meaning=scheme)
    np.testing.assert_array_equal(volume.array[0], array[0])


@pytest.mark.parametrize("kind", ["unlisted", "twice", "layer"])
def test_headers_that_contradict_themselves_are_refused(tmp_path, kind):
    array = layers((0, 2, (0, 2), (0, 2), (0, 3)))
    segments = {
        "unlisted": [("a", 0, 1)],
        "twice": [("a", 0, 2), ("b", 0, 2)],
        "layer": [("a", 5, 2)],
    }[kind]
    files.slicer_file(tmp_path / "a.seg.nrrd", array, AFFINE, segments)
    with pytest.raises(FormatError, match=r"a\.seg\.nrrd: ") as caught:
        read_labels(tmp_path / "a.seg.nrrd")
    assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    array = layers((0, 2, (0, 2), (0, 2), (0, 3)))
    path = tmp_path / "a.seg.nrrd"
    files.slicer_file(path, array, AFFINE, [("a", 0, 2)])
    path.write_bytes(
        path.read_bytes().replace(b"sizes: 6 5 3", b"sizes: 90000 90000 90000")
    )
    with pytest.raises(DataError, match="declares"):
        read_labels(path)
