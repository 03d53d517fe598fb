"""Multi-frame images that give one position, and a distance from frame to frame."""

import numpy as np
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLosslessSV1

from dicom_slices import (
    AXIAL,
    COLUMNS,
    ROWS,
    enhanced,
    film,
    lossless_jpeg,
    one,
    pixels_of,
    save,
)
from trivox.errors import FormatError, GeometryError
from trivox.volumes.formats import read_header, read_volume

UNPLACED = {"ImagePositionPatient": None, "ImageOrientationPatient": None}


def stacked(*numbers):
    return np.stack([pixels_of(i) for i in numbers]).astype(int) - 1024


@pytest.mark.parametrize(("step", "order"), [(2.5, (0, 1, 2)), (-2.5, (2, 1, 0))])
def test_frames_follow_each_other_by_the_spacing_between_slices(tmp_path, step, order):
    dataset = film(3, SpacingBetweenSlices=step)
    folder = save(tmp_path / "s", [dataset])
    volume = read_volume(folder)
    assert volume.spacing == (2.5, 0.75, 0.5)
    assert read_header(folder).affine[2, 2] == 2.5
    np.testing.assert_array_equal(volume.array[0], stacked(*order))
    lowest = min(0, 2 * step)
    np.testing.assert_allclose(volume.affine[:3, 3], [10.5, -20.25, lowest])
    assert volume.remarks == ()


def test_frames_by_offsets_and_by_slice_numbers(tmp_path):
    offsets = film(3, GridFrameOffsetVector=[0, 4, 2])
    volume = read_volume(save(tmp_path / "a", [offsets]))
    assert volume.spacing[0] == 2
    np.testing.assert_array_equal(volume.array[0], stacked(0, 2, 1))
    vector = film(3, SpacingBetweenSlices=3, SliceVector=[3, 1, 2])
    volume = read_volume(save(tmp_path / "b", [vector]))
    assert volume.spacing[0] == 3
    np.testing.assert_array_equal(volume.array[0], stacked(1, 2, 0))


def test_spacing_and_distance_in_shared_groups_or_at_the_detector(tmp_path):
    dataset = film(3, PixelSpacing=None, **UNPLACED)
    shared = one(PixelMeasuresSequence=one(PixelSpacing=[2, 1], SpacingBetweenSlices=5))
    dataset.SharedFunctionalGroupsSequence = shared
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": list(AXIAL)}
    dataset.DetectorInformationSequence = Sequence([one(**place)[0], one()[0]])
    volume = read_volume(save(tmp_path / "s", [dataset]))
    assert volume.spacing == (5, 2, 1)
    np.testing.assert_array_equal(volume.affine[:3, 3], [-1, -2, 3])


def test_frames_that_say_not_where_they_lie_are_read_with_a_remark(tmp_path):
    dataset = film(3, SpacingBetweenSlices=2, **UNPLACED)
    volume = read_volume(save(tmp_path / "s", [dataset]))
    assert volume.shape == (3, ROWS, COLUMNS)
    assert volume.spacing == (2, 0.75, 0.5)
    (remark,) = volume.remarks
    assert remark.startswith("place: ImagePositionPatient")


@pytest.mark.parametrize(
    "attributes",
    [{}, {"SpacingBetweenSlices": 2, "FrameIncrementPointer": 0x00181063}],
)
def test_films_are_no_volumes(tmp_path, attributes):
    folder = save(tmp_path / "s", [film(3, **attributes)])
    with pytest.raises(FormatError, match=r"3 frames without positions or Spacing"):
        read_volume(folder)


def test_gated_frames_are_told_apart(tmp_path):
    dataset = film(4, SpacingBetweenSlices=2)
    dataset.SliceVector = [1, 2, 1, 2]
    dataset.TimeSlotVector = [1, 1, 2, 2]
    with pytest.raises(GeometryError, match=r"told apart by TimeSlotVector \(1, 2\)"):
        read_volume(save(tmp_path / "s", [dataset]))


def test_positions_within_an_ultrasound_volume(tmp_path):
    dataset = enhanced([(0, 0, 0), (0, 0, 2), (0, 0, 4)])
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        del group.PlanePositionSequence
        position = one(ImagePositionVolume=[0, 0, 3 * index])
        group.PlanePositionVolumeSequence = position
    assert read_volume(save(tmp_path / "s", [dataset])).spacing[0] == 3


def test_compressed_frames(tmp_path):
    dataset = film(3, SpacingBetweenSlices=2)
    plain = read_volume(save(tmp_path / "a", [dataset]))
    count = {"number_of_frames": 1}
    packed = [
        next(generate_frames(lossless_jpeg(pixels_of(i)), **count)) for i in range(3)
    ]
    dataset.PixelData = encapsulate(packed)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    volume = read_volume(save(tmp_path / "b", [dataset]))
    np.testing.assert_array_equal(volume.array, plain.array)
