"""Brain phantoms: seeded, nested, with the contrasts that radiologists know."""

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.brats import FAMILIES, SEQUENCES, family_of, patient_of
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.brains import (
    BrainPhantomSettings,
    brain_phantom,
    write_brain_phantoms,
)

SMALL = BrainPhantomSettings(cases=8)


def labels_of(settings, index):
    return brain_phantom(settings, index)[1].array[0]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    family=st.sampled_from([*FAMILIES]),
    shape=st.tuples(*[st.integers(16, 40)] * 3),
    index=st.integers(0, 3),
)
def test_any_brain_is_whole(seed, family, shape, index):
    chosen = BrainPhantomSettings(cases=4, seed=seed, family=family, shape=shape)
    images, label = brain_phantom(chosen, index)
    again, _ = brain_phantom(chosen, index)
    brain = images["T1"].array > 0
    assert tuple(images) == SEQUENCES
    for name, image in images.items():
        assert image.array.dtype == np.int16
        assert image.shape == shape
        np.testing.assert_array_equal(image.array, again[name].array)
        # Stripped alike, and no hole inside.
        np.testing.assert_array_equal(image.array > 0, brain)
        np.testing.assert_array_equal(image.affine, label.affine)
    assert 0.15 < brain.mean() < 0.6
    values = set(np.unique(label.array)) - {0}
    assert values <= set(FAMILIES[family].labels.labels.values())
    assert 2 in values
    assert brain[label.array > 0].all()


def test_seed_and_index_change_the_brain():
    first = labels_of(SMALL, 0)
    assert (labels_of(SMALL, 1) != first).any()
    assert (labels_of(SMALL.model_copy(update={"seed": 1}), 0) != first).any()


def test_contrasts_are_as_in_the_clinic():
    """Means over eight patients; in single ones bias and texture may turn an order
    round.
    """
    samples = defaultdict(list)
    for index in range(8):
        images, label = brain_phantom(SMALL, index)
        for name, value in product(SEQUENCES, (0, 1, 2, 4)):
            image = images[name].array
            inside = image[(label.array == value) & (image > 0)]
            if inside.size > 8:
                samples[name, value].append(inside.mean())
    mean = {key: np.mean(values) for key, values in samples.items()}
    # Oedema is bright.
    assert mean["FLAIR", 2] > 1.3 * mean["FLAIR", 0]
    assert mean["T2", 2] > 1.2 * mean["T2", 0]
    # The rim takes up contrast agent, and is dark without it.
    assert mean["T1ce", 4] > 1.3 * mean["T1ce", 0]
    assert mean["T1", 4] < mean["T1", 0]
    # Necrosis is dark, though thin and beside the bright rim.
    assert mean["T1ce", 1] < 0.9 * mean["T1ce", 0]
    assert mean["T1ce", 1] < 0.7 * mean["T1ce", 4]
    assert max(mean["T1", value] for value in (1, 2, 4)) < mean["T1", 0]


def test_some_tumours_do_not_enhance_and_most_do():
    many = BrainPhantomSettings(cases=48, shape=(16, 20, 18))
    enhancing = [bool((labels_of(many, i) == 4).any()) for i in range(48)]
    assert 1 <= enhancing.count(False) <= 14


def test_a_resection_cavity_takes_nothing_from_the_tumour():
    after = SMALL.model_copy(update={"family": "post-treatment"})
    before = SMALL.model_copy(update={"family": "2023"})
    cavities = 0
    for index in range(6):
        label = labels_of(after, index)
        other = labels_of(before, index)
        cavities += bool((label == 4).any())
        np.testing.assert_array_equal(np.where(label == 4, 0, label), other)
    assert cavities >= 4


def test_time_points_are_one_brain_with_a_growing_tumour():
    chosen = BrainPhantomSettings(
        cases=4, timepoints=2, family="2023", shape=(40, 44, 42)
    )
    assert [chosen.case_name(i) for i in range(4)] == [
        "BraTS-GLI-00000-000",
        "BraTS-GLI-00000-001",
        "BraTS-GLI-00001-000",
        "BraTS-GLI-00001-001",
    ]
    sizes = [int((labels_of(chosen, i) > 0).sum()) for i in range(4)]
    assert sizes[0] < sizes[1]
    assert sizes[2] < sizes[3]
    early, late = (labels_of(chosen, i) > 0 for i in range(2))
    assert (early & late).sum() > 0.8 * early.sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_written_brains_are_a_dataset_without_findings(tmp_path, family):
    times = 2 if family in ("2023", "post-treatment") else 1
    chosen = BrainPhantomSettings(
        cases=6,
        test_cases=2,
        timepoints=times,
        family=family,
        shape=(16, 20, 18),
        suffix=".nii" if times == 1 else ".nii.gz",
    )
    dataset = load_dataset(write_brain_phantoms(tmp_path / "set", chosen))
    assert [case.split for case in dataset.cases].count("test") == 2
    assert all(family_of(case.name) is FAMILIES[family] for case in dataset.cases)
    assert len({case.patient for case in dataset.cases}) == 6 // times
    patients = [patient_of(case.name) for case in dataset.cases]
    assert [case.patient for case in dataset.cases] == patients
    assert not check_dataset(dataset, workers=1).errors


def test_cases_without_label_and_without_sequences(tmp_path):
    chosen = BrainPhantomSettings(
        cases=1, shape=(16, 16, 16), labelled=False, missing=((0, "T2"),)
    )
    write_brain_phantoms(tmp_path, chosen)
    assert {file.name[21:] for file in tmp_path.rglob("*.nii.gz")} == {
        "t1.nii.gz",
        "t1ce.nii.gz",
        "flair.nii.gz",
    }
    assert load_dataset(tmp_path).labels is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"timepoints": 2},
        {"cases": 3, "timepoints": 2, "family": "2023"},
        {"test_cases": 11},
        {"shape": (8, 20, 20)},
        {"family": "2019"},
        {"missing": ((0, "T3"),)},
    ],
)
def test_settings_that_make_no_brain(wrong):
    with pytest.raises(ValidationError):
        BrainPhantomSettings(**wrong)
