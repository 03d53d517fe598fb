import dataclasses
import itertools
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.errors import DataError
from trivox.inference.members import Member
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing, largest_component
from trivox.inference.windows import SlidingWindows
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

IMAGE, LABEL = phantom_case(
    PhantomSettings(cases=1, shape=(14, 18, 15), spacing=(2.0, 1.5, 1.5)), 0
)


def orientations():
    """All 48 ways to lay a grid along the world's axes."""
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            yield matrix


def turned(volume, matrix):
    """The same body in the same place, stored with other axes: index `(x, y, z)` is
    `matrix` times the new one.
    """
    axes = [int(np.argmax(np.abs(matrix[:, column]))) for column in range(3)]
    array = (
        volume.array[0].transpose(2, 1, 0).transpose(axes)
    )  # (x, y, z) of the new grid
    for new in range(3):
        if matrix[axes[new], new] < 0:
            array = np.flip(array, new)
    step = np.eye(4)
    step[:3, :3] = matrix
    size = np.array(volume.shape[::-1])
    step[:3, 3] = [size[axis] - 1 if matrix[axis].sum() < 0 else 0 for axis in range(3)]
    return Volume(
        np.ascontiguousarray(array.transpose(2, 1, 0))[None], volume.affine @ step
    )


class Threshold(nn.Module):
    """A voxel-wise network: brighter than the mean is foreground.

    It commutes with every flip and permutation.
    """

    def forward(self, images):
        other = torch.full_like(images, -9)
        return torch.cat(
            [torch.zeros_like(images), 20 * (images[:, :1] - 0.5), other], 1
        )


@pytest.fixture(scope="module")
def trained(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def simple(trained):
    """The trained predictor with its network replaced by a threshold, on a cubic grid."""
    member = trained.members[0]
    plan = member.plan.model_copy(
        update={"spacing": (1.5, 1.5, 1.5), "axis_order": (0, 1, 2)}
    )
    windows = computed_by(Threshold(), member)
    return Predictor(trained.descriptions, (Member(plan, windows),))


def computed_by(network, member):
    """The windows of a member with another network."""
    (engine,) = member.windows.engines
    other = dataclasses.replace(engine, network=network)
    return dataclasses.replace(member.windows, engines=[other])


# -- the source's grid -----------------------------------------------------------------
def test_reorienting_the_input_reorients_the_output(simple, tmp_path):
    expected = simple.predict_volume(IMAGE).labels
    assert set(np.unique(expected.array)) == {0, 7}
    for matrix in orientations():
        source = turned(IMAGE, matrix)
        found = simple.predict_volume(source).labels
        assert np.array_equal(found.affine, source.affine)
        assert found.array.shape == source.array.shape
        agreement = (found.array == turned(expected, matrix).array).mean()
        assert agreement > 0.999, matrix


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_the_written_result_has_the_affine_of_the_source_file(
    trained, tmp_path, suffix
):
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    shear = np.eye(3)
    shear[0, 1] = 0.2
    for name, matrix in {
        "oblique": rotation,
        "sheared": shear,
        "mirrored": np.diag([-1, 1, 1]),
    }.items():
        affine = IMAGE.affine.copy()
        affine[:3, :3] = matrix @ affine[:3, :3]
        file = tmp_path / f"{name}{suffix}"
        write_volume(file, Volume(IMAGE.array, affine))
        prediction = trained.predict_case(Case(name=name, images=(file,)))
        out = tmp_path / f"{name}_out{suffix}"
        write_volume(out, prediction.labels)
        source = read_volume(file)
        result = read_volume(out)
        assert np.array_equal(
            result.affine.astype(np.float32), source.affine.astype(np.float32)
        )
        assert result.shape == source.shape


def test_label_values_come_back_in_a_type_that_holds_them(trained):
    labels = trained.predict_volume(IMAGE).labels.array
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) <= {0, 7, 300}


def test_outside_the_crop_box_is_background(simple):
    array = np.zeros((1, 24, 30, 28), np.int16)
    array[:, 5:19, 6:24, 8:23] = IMAGE.array + 20000  # nowhere zero inside
    volume = Volume(array, IMAGE.affine)
    prediction = simple.predict_volume(volume, probabilities=True)
    outside = array[0] == 0
    assert (prediction.labels.array[0][outside] == 0).all()
    assert (prediction.labels.array[0][~outside] == 7).any()
    assert (prediction.probabilities.array[0][outside] == 1).all()
    assert np.allclose(prediction.probabilities.array.sum(0), 1, atol=1e-5)
    assert prediction.probabilities.array.shape == (3, *volume.shape)
    alone = simple.predict_volume(Volume(array[:, 5:19, 6:24, 8:23], IMAGE.affine))
    assert np.array_equal(
        prediction.labels.array[:, 5:19, 6:24, 8:23], alone.labels.array
    )


def test_labels_follow_the_probabilities(trained):
    """But for slivers of a class that wins nowhere around; asking for probabilities
    changes no label.
    """
    prediction = trained.predict_volume(IMAGE, probabilities=True)
    values = np.array([0, 7, 300])[prediction.probabilities.array.argmax(0)]
    cleaned = trained.labels.decode(
        trained.descriptions[0].postprocessing.apply(
            trained.labels.encode(values),
            trained.labels,
            voxel_mm3=IMAGE.voxel_ml * 1000,
        )
    )
    assert (prediction.labels.array[0] == cleaned).mean() > 0.99
    assert np.array_equal(
        trained.predict_volume(IMAGE).labels.array, prediction.labels.array
    )


def test_array_in_labels_out(trained):
    volume = Volume(IMAGE.array, affine_from_spacing(IMAGE.spacing))
    for array in (IMAGE.array, IMAGE.array[0]):
        found = trained.predict_array(array, IMAGE.spacing)
        assert np.array_equal(found, trained.predict_volume(volume).labels.array[0])


def test_files_in_label_file_out(trained, tmp_path):
    channels = [IMAGE.with_array(part[None]) for part in IMAGE.array]
    paths = [tmp_path / f"channel_{index}.nii.gz" for index in range(len(channels))]
    for path, channel in zip(paths, channels, strict=True):
        write_volume(path, channel)
    prediction = trained.predict_file(paths, out=tmp_path / "labels.nii.gz")
    written = read_volume(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(written.array, prediction.labels.array)
    np.testing.assert_array_equal(
        prediction.labels.array, trained.predict_volume(IMAGE).labels.array
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 18, 15), (3, 2, 40)])
def test_images_smaller_than_a_patch_are_predicted_and_doubted(trained, shape):
    array = np.random.default_rng(0).integers(1, 900, (1, *shape)).astype(np.int16)
    prediction = trained.predict_volume(Volume(array, IMAGE.affine))
    assert prediction.labels.shape == shape
    assert any("voxels" in warning for warning in prediction.warnings)


def test_a_constant_image_is_doubted(trained):
    prediction = trained.predict_volume(
        Volume(np.full((1, 12, 12, 12), 5, np.int16), IMAGE.affine)
    )
    assert "the image is constant" in prediction.warnings


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(trained, bad):
    array = IMAGE.array.astype(np.float32)
    array[0, 3, 4, 5] = bad
    with pytest.raises(DataError, match="NaN"):
        trained.predict_volume(Volume(array, IMAGE.affine))


def test_a_wrong_number_of_channels_is_refused(trained):
    with pytest.raises(DataError, match="2 channels found, the model needs 1"):
        trained.predict_volume(Volume(np.concatenate([IMAGE.array] * 2), IMAGE.affine))


# -- models ----------------------------------------------------------------------------
def test_an_ensemble_of_one_model_twice_is_itself(tiny_run, trained):
    twice = Predictor.load(
        [tiny_run, tiny_run / "bundle"], device="cpu", precision="fp32"
    )
    once = trained.predict_volume(IMAGE, probabilities=True)
    both = twice.predict_volume(IMAGE, probabilities=True)
    assert np.allclose(once.probabilities.array, both.probabilities.array, atol=1e-6)
    assert np.array_equal(
        both.labels.array[0],
        trained.labels.decode(
            trained.descriptions[0].postprocessing.apply(
                both.probabilities.array.argmax(0).astype(np.int16),
                trained.labels,
                voxel_mm3=IMAGE.voxel_ml * 1000,
            )
        ),
    )
    assert (once.labels.array == both.labels.array).mean() > 0.99  # slivers, see above


def test_an_ensemble_averages_probabilities_over_different_grids(trained):
    member = trained.members[0]
    plan = member.plan.model_copy(update={"axis_order": (2, 0, 1)})
    windows = computed_by(Threshold(), member)
    ones = [
        Predictor(trained.descriptions, (Member(p, windows),))
        for p in (member.plan, plan)
    ]
    both = Predictor(trained.descriptions * 2, tuple(p.members[0] for p in ones))
    each = [
        p.predict_volume(IMAGE, probabilities=True).probabilities.array for p in ones
    ]
    found = both.predict_volume(IMAGE, probabilities=True).probabilities.array
    assert np.allclose(found, (each[0] + each[1]) / 2, atol=1e-5)


def test_mirroring_and_overlap_can_be_asked_for(tiny_run, trained):
    mirrored = Predictor.load(
        tiny_run, device="cpu", precision="fp32", mirror=True, overlap=0.25
    )
    windows = mirrored.members[0].windows
    assert (windows.mirror_axes, windows.overlap) == ((2,), 0.25)
    assert mirrored.settings != trained.settings
    assert not Predictor.load(tiny_run, mirror=False).members[0].windows.mirror_axes


def ruled(predictor, rules):
    """The predictor with other rules in its bundle."""
    (description,) = predictor.descriptions
    description = description.model_copy(update={"postprocessing": rules})
    return dataclasses.replace(predictor, descriptions=(description,))


def test_postprocessing_of_the_bundle_is_applied(simple):
    rules = Postprocessing(largest_of=(1,))
    cleaned = ruled(simple, rules).predict_volume(IMAGE).labels.array
    plain = simple.predict_volume(IMAGE).labels.array
    assert np.array_equal(cleaned[0] == 7, largest_component(plain[0] == 7))


def test_small_components_are_measured_in_mm3_on_the_source_grid(simple):
    voxel_mm3 = IMAGE.voxel_ml * 1000  # 3.8; on the grid of the network it is 3.4
    array = np.full_like(IMAGE.array, IMAGE.array.min())
    array[:, 1:9, 1:9, 1:9] = array[:, 10:13, 12:16, 10:14] = IMAGE.array.max()
    name = next(name for name, value in simple.labels.labels.items() if value == 7)

    def predicted(least, **options):
        rules = Postprocessing(remove_small={name: least})
        found = ruled(simple, rules).predict_volume(IMAGE.with_array(array), **options)
        mask = found.labels.array[0] == 7
        assert found.trust["volumes"][name]["volume_ml"] == pytest.approx(
            mask.sum() * IMAGE.voxel_ml
        )
        return mask

    plain = predicted(0)
    larger = largest_component(plain)
    smaller = (plain & ~larger).sum()
    assert 20 < smaller < larger.sum()
    for options in ({}, {"probabilities": True}):  # the lean way, and votes
        assert np.array_equal(predicted((smaller - 0.5) * voxel_mm3, **options), plain)
        assert np.array_equal(predicted((smaller + 0.5) * voxel_mm3, **options), larger)


def test_prediction_starts_no_process_and_reads_no_pickle(tiny_run, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("not allowed")

    for owner, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    for owner, name in (
        (subprocess, "Popen"),
        (os, "fork"),
        (os, "system"),
        (os, "posix_spawn"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    Predictor.load(tiny_run, device="cpu").predict_volume(IMAGE)


# -- the run's own ---------------------------------------------------------------------
def test_validation_metrics_of_the_run_come_from_the_bundle(tiny_run, trained):
    """What a user predicts with the bundle is what the run measured."""
    cases = {case.name: case for case in load_dataset(tiny_run / "dataset.json").cases}
    files = list((tiny_run / "validation" / "predictions").glob("*.nii.gz"))
    assert files
    for file in files:
        found = trained.predict_case(cases[file.name.removesuffix(".nii.gz")]).labels
        assert np.array_equal(read_volume(file).array, found.array)


def test_windows_of_the_bundle_use_its_settings(trained):
    windows = trained.members[0].windows
    assert isinstance(windows, SlidingWindows)
    assert (windows.overlap, windows.patch_size) == (0.5, (16, 16, 16))
