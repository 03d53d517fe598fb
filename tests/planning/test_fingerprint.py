"""Fingerprints: what is measured on the training cases, against plain numpy."""

import numpy as np
import pytest

from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import (
    PhantomSettings,
    phantom_case,
    write_phantoms,
)
from trivox.errors import DataError
from trivox.planning.fingerprint import measure, read_fingerprint, write_fingerprint

SETTINGS = PhantomSettings(
    cases=3, shape=(12, 20, 18), channels=2, test_cases=1, label_values=(7, 300)
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(
        write_phantoms(tmp_path_factory.mktemp("phantoms") / "d", SETTINGS)
    )


def test_spacings_and_sizes_of_the_training_cases_are_recorded(dataset):
    fingerprint = measure(dataset)
    assert [case.name for case in fingerprint.cases] == ["phantom_000", "phantom_001"]
    for index, case in enumerate(fingerprint.cases):
        image, _ = phantom_case(SETTINGS, index)
        assert case.shape == image.shape
        assert case.spacing == pytest.approx(image.spacing, rel=1e-5)
        assert case.relative_size == 1
    assert fingerprint.relative_size == 1


def test_intensities_are_those_of_the_pooled_training_foreground(dataset):
    fingerprint = measure(dataset)
    cases = [phantom_case(SETTINGS, index) for index in (0, 1)]
    for channel, name in enumerate(dataset.channels):
        pooled = np.concatenate(
            [image.array[channel][label.array[0] > 0] for image, label in cases]
        ).astype(float)
        statistics = fingerprint.intensities[name]
        assert statistics.mean == pytest.approx(pooled.mean(), rel=1e-5)
        assert statistics.std == pytest.approx(pooled.std(), rel=1e-4)
        assert (statistics.minimum, statistics.maximum) == (pooled.min(), pooled.max())
        low, median, high = np.percentile(pooled, [0.5, 50, 99.5])
        assert (statistics.percentile_00_5, statistics.median) == pytest.approx(
            (low, median), rel=1e-5
        )
        assert statistics.percentile_99_5 == pytest.approx(high, rel=1e-5)


def test_measuring_twice_gives_the_same(dataset, monkeypatch):
    # So that voxels are drawn.
    monkeypatch.setattr("trivox.planning.fingerprint.SAMPLES", 200)
    assert measure(dataset) == measure(dataset)


def test_a_fingerprint_survives_json(dataset, tmp_path):
    fingerprint = measure(dataset)
    write_fingerprint(fingerprint, tmp_path / "fingerprint.json")
    assert read_fingerprint(tmp_path / "fingerprint.json") == fingerprint


def test_a_dataset_without_labels_cannot_be_measured(dataset):
    with pytest.raises(DataError, match="no labelled training cases"):
        measure(dataset.model_copy(update={"cases": ()}))
