"""Abdominal phantoms: the subtype of the lesion is its texture alone, and only pooling
over the lesion finds it.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.abdomens import (
    CLASSES,
    FREQUENCIES,
    HU,
    LESION,
    TEXTURE,
    PancreasPhantomSettings,
    apportion,
    pancreas_phantom,
    texture_field,
    write_pancreas_phantoms,
)
from trivox.volumes.formats import read_labels, read_volume

SMALL = (24, 48, 48)
COHORT = PancreasPhantomSettings(cases=90, shape=SMALL)


@pytest.fixture(scope="module")
def cohort():
    """Image and label map `(z, y, x)` and class of 90 small cases."""
    cases = []
    for index in range(COHORT.cases):
        image, label = pancreas_phantom(COHORT, index)
        cases.append((image.array[0].astype(float), label.array[0]))
    return cases, np.array(COHORT.subtypes)


def macro_f1(features, truth):
    """Out-of-fold macro-F1 of shrinkage LDA on features `(case, feature)`."""
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    answers = cross_val_predict(lda, np.array(features), truth, cv=folds)
    return f1_score(truth, answers, labels=range(3), average="macro", zero_division=0)


def texture_of(image, inside):
    """How neighbours in a row and in a column agree, as shares of the variance; of the
    voxels `inside`.
    """
    centred = image - image[inside].mean()
    across = inside[:, :, 1:] & inside[:, :, :-1]
    down = inside[:, 1:] & inside[:, :-1]
    in_rows = (centred[:, :, 1:] * centred[:, :, :-1])[across].mean()
    in_columns = (centred[:, 1:] * centred[:, :-1])[down].mean()
    return np.array([in_rows, in_columns]) / centred[inside].var()


# -- what tells the subtype ------------------------------------------------------------
def test_the_texture_inside_the_lesion_tells_its_subtype(cohort):
    cases, truth = cohort
    textures = []
    for image, labels in cases:
        core = ndimage.binary_erosion(labels == 2)
        textures.append(texture_of(image, core))
    assert macro_f1(textures, truth) > 0.95


def test_mean_deviation_and_size_of_the_lesion_do_not_tell_its_subtype(cohort):
    cases, truth = cohort
    values = [image[labels == 2] for image, labels in cases]
    assert macro_f1([(v.mean(), v.std(), len(v)) for v in values], truth) < 0.5


@pytest.mark.parametrize("region", ["image", "body", "organ", "outside the lesion"])
def test_texture_pooled_over_more_than_the_lesion_does_not_tell_the_subtype(
    cohort, region
):
    cases, truth = cohort
    pooled = []
    for image, labels in cases:
        lesion = labels == 2
        inside = {
            "image": np.ones_like(lesion),
            "body": (image > -300),
            "organ": labels == 1,
            "outside the lesion": ~lesion,
        }[region]
        values = image[inside]
        pooled.append([*texture_of(image, inside), values.mean(), values.std()])
    assert macro_f1(pooled, truth) < 0.5


def test_the_subtype_changes_nothing_outside_the_lesion():
    images = [pancreas_phantom(COHORT, 3, subtype=subtype) for subtype in range(3)]
    lesion = images[0][1].array == 2
    for (one, label), (other, other_label) in pairwise(images):
        assert np.array_equal(label.array, other_label.array)
        assert np.array_equal(one.array[~lesion], other.array[~lesion])
        assert (one.array[lesion] != other.array[lesion]).mean() > 0.5
    values = [image.array[lesion] for image, _ in images]
    assert np.ptp([inside.mean() for inside in values]) < 1
    # The soft edge on top of the texture is not standardised with it.
    assert np.ptp([inside.std() for inside in values]) < 2


class Impulse:
    """Draws a single 1 among zeros in place of white noise."""

    def standard_normal(self, shape, dtype):
        drawn = np.zeros(shape, dtype)
        drawn[0, 0, 0] = 1
        return drawn


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(1, 24)] * 3), st.tuples(*[st.floats(0, 4)] * 3))
def test_texture_has_unit_variance_at_any_size(shape, sigma):
    """The variance of filtered white noise is the sum of squares of the impulse
    response; cyclic, so in every voxel.
    """
    response = texture_field(Impulse(), shape, sigma)
    assert response.shape == shape
    assert np.sum(response**2) == pytest.approx(1, abs=1e-4)


def test_texture_has_the_correlation_of_its_sigma():
    """Neighbours agree by exp(-1 / 4 sigma^2), the autocorrelation of a blurred white
    field.
    """
    field = texture_field(np.random.default_rng(0), (64, 64, 64), (0, 2.0, 1.0))
    agreement = [np.mean(field * np.roll(field, 1, axis)) for axis in range(3)]
    assert agreement == pytest.approx([0, np.exp(-1 / 16), np.exp(-1 / 4)], abs=0.02)


# -- the scans -------------------------------------------------------------------------
def test_the_default_lesion_is_large_enough_to_show_texture():
    wanted = PancreasPhantomSettings(cases=6)
    for index in range(6):
        image, label = pancreas_phantom(wanted, index)
        assert image.shape == (32, 80, 96)
        assert image.array.dtype == np.int16
        assert label.array.dtype == np.uint8
        assert (label.array == 2).sum() > 600
        assert (label.array == 1).sum() > 600
        assert np.allclose(image.spacing, (2.0, 0.73, 0.73), rtol=0.0401)


def test_values_are_hounsfield_units():
    image, label = pancreas_phantom(PancreasPhantomSettings(), 0)
    air = image.array[0, :, 0, 0]
    lesion = image.array[label.array == 2]
    assert air.mean() == pytest.approx(-1000, abs=10)
    assert lesion.mean() == pytest.approx(HU[LESION], abs=30)
    assert TEXTURE < lesion.std() < 2 * TEXTURE
    assert image.array.max() > 250  # bone


def test_no_threshold_finds_the_lesion(cohort):
    """The best interval of intensities, chosen with the truth at hand, is far off."""
    cases, _ = cohort
    for image, labels in cases[:8]:
        lesion = labels == 2
        blurred = ndimage.gaussian_filter(image, 1.0)
        low, high = np.percentile(blurred[lesion], [5, 95])
        within = (blurred >= low) & (blurred <= high)
        assert 2 * (within & lesion).sum() / (within.sum() + lesion.sum()) < 0.5


def test_a_case_depends_on_seed_and_index_only():
    image, label = pancreas_phantom(COHORT, 2, subtype=0)
    again, label_again = pancreas_phantom(COHORT, 2, subtype=0)
    assert np.array_equal(image.array, again.array)
    assert np.array_equal(label.array, label_again.array)
    other = COHORT.model_copy(update={"seed": 1})
    for changed in (pancreas_phantom(COHORT, 5), pancreas_phantom(other, 2)):
        assert not np.array_equal(label.array, changed[1].array)
    assert other.subtypes != COHORT.subtypes


# -- classes and splits ----------------------------------------------------------------
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 500), st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_shares_are_kept_to_the_item(total, shares):
    counts = apportion(total, shares)
    assert sum(counts) == total
    exact = np.array(shares) * total / sum(shares)
    assert np.abs(counts - exact).max() < 1


def test_the_imitated_set_has_its_own_counts():
    assert apportion(252, FREQUENCIES) == FREQUENCIES
    assert apportion(36, FREQUENCIES) == (9, 15, 12)


def test_each_split_has_the_same_shares_in_random_order():
    wanted = PancreasPhantomSettings(cases=135, validation_cases=18, test_cases=45)
    splits = np.array(wanted.splits)
    subtypes = np.array(wanted.subtypes)
    for split, total in (("train", 72), ("validation", 18), ("test", 45)):
        chosen = subtypes[splits == split]
        assert tuple(np.bincount(chosen, minlength=3)) == apportion(total, FREQUENCIES)
        assert (np.diff(chosen) < 0).any()


@pytest.mark.parametrize(
    "wrong",
    [{"cases": 3, "test_cases": 2, "validation_cases": 2}, {"shape": (8, 48, 48)}],
)
def test_impossible_phantoms_are_refused(wrong):
    with pytest.raises(ValidationError):
        PancreasPhantomSettings(**wrong)


# -- files -----------------------------------------------------------------------------
def test_a_manifest_of_phantoms_is_a_dataset_with_classes(tmp_path):
    wanted = PancreasPhantomSettings(
        cases=8, validation_cases=2, test_cases=2, shape=(16, 24, 24)
    )
    folder = write_pancreas_phantoms(tmp_path / "set", wanted)
    dataset = load_dataset(folder)
    assert dataset.classes == CLASSES
    assert dataset.labels.labels == {"pancreas": 1, "lesion": 2}
    assert [case.split for case in dataset.cases] == list(wanted.splits)
    assert [case.class_name for case in dataset.cases] == [
        CLASSES[i] for i in wanted.subtypes
    ]
    for case in dataset.cases:
        assert not any(name in case.name for name in CLASSES)
    image, label = pancreas_phantom(wanted, 5)
    assert np.array_equal(read_volume(dataset.cases[5].images[0]).array, image.array)
    assert np.array_equal(read_labels(dataset.cases[5].label).array, label.array)
    assert not check_dataset(dataset).errors


def test_class_folders_are_those_of_the_imitated_set(tmp_path):
    wanted = PancreasPhantomSettings(
        cases=12,
        validation_cases=3,
        test_cases=3,
        shape=(16, 24, 24),
        layout="class-folders",
        float_masks=True,
    )
    folder = write_pancreas_phantoms(tmp_path / "set", wanted)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*.nii.gz")}
    cases = zip(wanted.splits, wanted.subtypes, strict=True)
    expected = set()
    for number, (split, subtype) in enumerate(cases, start=1):
        if split == "test":
            expected.add(f"test/quiz_{number:03d}_0000.nii.gz")
            continue
        stem = f"{split}/subtype{subtype}/quiz_{subtype}_{number:03d}"
        expected |= {f"{stem}_0000.nii.gz", f"{stem}.nii.gz"}
    assert files == expected
    assert "test/quiz_012_0000.nii.gz" in files
    dataset = load_dataset(folder)
    assert dataset.classes == CLASSES
    training = [case.class_name for case in dataset.cases if case.split == "train"]
    assert Counter(training) == Counter(CLASSES[i] for i in wanted.subtypes[:6])
    assert {case.class_name for case in dataset.cases if case.split == "test"} == {None}
    mask = next(case.label for case in dataset.cases if case.label)
    assert np.unique(read_labels(mask).array).tolist() == [0, 1, 2]


def test_float_masks_hold_the_value_of_the_imitated_set(tmp_path):
    wanted = PancreasPhantomSettings(cases=1, shape=(16, 24, 24), float_masks=True)
    folder = write_pancreas_phantoms(tmp_path / "set", wanted)
    stored = read_volume(folder / "labels" / "pancreas_000.nii.gz").array
    assert stored.dtype == np.float32
    assert np.unique(stored).tolist() == [0.0, 1.0000152587890625, 2.0]
