"""Reading a case: channels stacked, canonical axes, cropped, and every error names the
case.
"""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets import reading
from trivox.datasets.checks.examine import examine
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import crop_volume, nonzero_box, read_case, read_channels
from trivox.errors import DataError, GeometryError, LabelError
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

LABELS = LabelScheme(labels={"a": 7, "b": 300})
AFFINE = affine_from_spacing((2.0, 1.0, 0.5), (10.0, -20.0, 30.0))


def image_in_air(shape=(10, 12, 14), box=((2, 7), (3, 11), (0, 9)), *, seed=0):
    """Non-zero noise inside the box, zero around it, `(1, z, y, x)`."""
    image = np.zeros((1, *shape), np.float32)
    inside = (slice(None), *(slice(*edge) for edge in box))
    image[inside] = np.random.default_rng(seed).uniform(1, 2, image[inside].shape)
    return image


def write_case(folder, images, label=None, *, label_affine=AFFINE):
    files = []
    for index, image in enumerate(images):
        files.append(folder / f"c1_{index}.nii.gz")
        write_volume(files[-1], Volume(image, AFFINE))
    label_file = None
    if label is not None:
        label_file = folder / "c1_label.nii.gz"
        write_volume(label_file, Volume(label[None], label_affine))
    return Case(name="c1", images=tuple(files), label=label_file)


def labels_like(image):
    return (
        np.random.default_rng(1)
        .choice([0, 7, 300], size=image.shape[1:])
        .astype(np.int32)
    )


ORDERS = [
    Orientation(axes, flips)
    for axes in permutations((0, 1, 2))
    for flips in product((False, True), repeat=3)
]


def turn(file, orientation):
    """The same voxels at the same places, stored with other axes."""
    turned = reorient(read_volume(file), orientation)
    write_volume(file, replace(turned, array=np.ascontiguousarray(turned.array)))


@pytest.mark.parametrize("orientation", ORDERS)
def test_labels_and_channels_may_be_stored_with_other_axes(tmp_path, orientation):
    images = [image_in_air(seed=seed) for seed in (0, 1)]
    label = labels_like(images[0])
    straight = read_case(write_case(tmp_path, images, label), channels=2, labels=LABELS)
    turn(tmp_path / "c1_label.nii.gz", orientation)
    turn(tmp_path / "c1_1.nii.gz", orientation)
    case = Case(
        name="c1",
        images=(tmp_path / "c1_0.nii.gz", tmp_path / "c1_1.nii.gz"),
        label=tmp_path / "c1_label.nii.gz",
    )
    turned = read_case(case, channels=2, labels=LABELS)
    np.testing.assert_array_equal(turned.image, straight.image)
    np.testing.assert_array_equal(turned.label, straight.label)
    examined = examine(case, ("a", "b"), LABELS)
    assert "geometry-mismatch" not in {each.code for each in examined.findings}


def test_channels_of_several_files_are_stacked_in_order(tmp_path):
    images = [image_in_air(seed=seed) for seed in (0, 1)]
    volume = read_channels(write_case(tmp_path, images), channels=2)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, np.concatenate(images))


def test_one_file_may_hold_all_channels(tmp_path):
    image = np.concatenate([image_in_air(seed=seed) for seed in (0, 1, 2)])
    volume = read_channels(write_case(tmp_path, [image]), channels=3)
    np.testing.assert_array_equal(volume.array, image)


def test_a_missing_channel_is_an_error_that_names_the_case(tmp_path):
    with pytest.raises(DataError, match="c1: 1 channels found, 2 expected"):
        read_channels(write_case(tmp_path, [image_in_air()]), channels=2)


def test_image_and_label_are_cropped_alike_and_the_record_puts_them_back(tmp_path):
    image = image_in_air()
    box = tuple(slice(*edge) for edge in ((2, 7), (3, 11), (0, 9)))
    label = labels_like(image)
    case = read_case(write_case(tmp_path, [image], label), channels=1, labels=LABELS)
    assert case.shape == tuple(stop - start for start, stop in case.box)
    assert case.canonical_shape == image.shape[1:]
    assert case.relative_size == pytest.approx(5 * 8 * 9 / (10 * 12 * 14))
    assert case.spacing == pytest.approx((2.0, 1.0, 0.5))
    whole = np.zeros((2, *case.canonical_shape), np.float32)
    inside = (slice(None), *(slice(*edge) for edge in case.box))
    whole[inside] = np.stack([case.image[0], LABELS.decode(case.label)])
    back = case.orientation.undo(whole)
    np.testing.assert_array_equal(back[0], image[0])
    np.testing.assert_array_equal(back[1][box], label[box])


def test_the_source_grid_is_kept_without_its_voxels(tmp_path):
    case = read_case(write_case(tmp_path, [image_in_air()]), channels=1, labels=LABELS)
    assert case.label is None
    assert case.source.array.shape == (1, 10, 12, 14)
    assert case.source.array.strides == (0, 0, 0, 0)  # one broadcast value, no memory
    np.testing.assert_allclose(case.source.affine, AFFINE)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_the_orientation_of_the_file_does_not_matter(flips):
    image = image_in_air()
    reference = crop_volume(Volume(image, AFFINE), None, where="c")
    affine = AFFINE.copy()
    array = image
    # the same voxels at the same places, stored back to front
    for axis, flip in enumerate(flips):
        if flip < 0:
            column = 2 - axis
            affine[:3, 3] += affine[:3, column] * (image.shape[axis + 1] - 1)
            affine[:3, column] *= -1
            array = np.flip(array, axis + 1)
    flipped = crop_volume(Volume(np.ascontiguousarray(array), affine), None, where="c")
    np.testing.assert_array_equal(flipped.image, reference.image)
    assert flipped.box == reference.box


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_box_is_the_smallest_that_holds_all_that_is_not_zero(data):
    image = np.zeros((2, 5, 6, 7))
    points = data.draw(
        st.lists(
            st.tuples(*(st.integers(0, n - 1) for n in image.shape)),
            min_size=1,
            max_size=6,
        ),
        label="non-zero",
    )
    for point in points:
        image[point] = -1
    voxels = np.array(points)[:, 1:]
    assert nonzero_box(image) == tuple(
        zip(voxels.min(0).tolist(), (voxels.max(0) + 1).tolist(), strict=True)
    )


@given(st.permutations([1, 2, 3]), st.integers(1, 400), st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_box_is_the_same_some_planes_at_a_time(axes, portion, data):
    image = np.zeros((2, 6, 7, 9), np.int16).transpose(0, *axes)[:, ::-1, :, ::-1]
    drawn = st.tuples(*(st.integers(0, n - 1) for n in image.shape))
    points = data.draw(st.lists(drawn, max_size=4))
    for point in points:
        image[point] = 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "A_PORTION", 10**6)
        at_once = nonzero_box(image)
        patched.setattr(reading, "A_PORTION", portion)
        assert nonzero_box(image) == at_once


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32, np.int32])
def test_a_stored_type_stays_where_single_precision_holds_it(tmp_path, kind):
    case = write_case(tmp_path, [image_in_air().astype(kind)])
    stored = read_channels(case, channels=1, stored=True).array
    plain = read_channels(case, channels=1).array
    assert stored.dtype == (np.float32 if kind == np.int32 else kind)
    assert plain.dtype == np.float32
    np.testing.assert_array_equal(stored, plain)


def test_an_empty_image_is_kept_whole():
    assert nonzero_box(np.zeros((1, 2, 3, 4))) == ((0, 2), (0, 3), (0, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("portion", [1, 10**6])
def test_values_that_are_not_finite_are_refused(monkeypatch, value, portion):
    monkeypatch.setattr(reading, "A_PORTION", portion)
    image = image_in_air()
    image[0, 4, 5, 6] = value
    with pytest.raises(DataError, match=r"c1.*NaN or infinite"):
        crop_volume(Volume(image, AFFINE), None, where="c1")


def test_an_undeclared_label_is_refused_naming_the_case(tmp_path):
    image = image_in_air()
    case = write_case(tmp_path, [image], np.full(image.shape[1:], 5, np.int32))
    with pytest.raises(LabelError, match=r"c1.*\[5\]"):
        read_case(case, channels=1, labels=LABELS)


def test_a_label_on_another_grid_is_refused_naming_the_case(tmp_path):
    image = image_in_air()
    moved = affine_from_spacing((2.5, 1.0, 0.5), (10.0, -20.0, 30.0))
    case = write_case(tmp_path, [image], labels_like(image), label_affine=moved)
    with pytest.raises(GeometryError, match="c1"):
        read_case(case, channels=1, labels=LABELS)


def test_channels_on_different_grids_are_refused_naming_the_case(tmp_path):
    case = write_case(tmp_path, [image_in_air(), image_in_air((10, 12, 13))])
    with pytest.raises(GeometryError, match="c1"):
        read_case(case, channels=2, labels=None)


def test_a_file_that_cannot_be_read_is_refused_naming_the_case(tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    case = Case(name="c1", images=(tmp_path / "broken.nii.gz",))
    with pytest.raises(DataError, match=r"c1: .*broken\.nii\.gz"):
        read_case(case, channels=1, labels=None)
