"""A model of one BraTS release on cases of every other: from folders to label maps in
the values of each release.
"""

import numpy as np
import pytest

from trivox.datasets.layouts.brats import FAMILIES
from trivox.datasets.layouts.choice import load_inputs
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_header, read_labels

pytestmark = pytest.mark.usefixtures("without_figures")

SETTINGS = BrainPhantomSettings(cases=8, shape=(28, 32, 30), seed=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_settings):
    """Trained on the 2020 release by the recipe, long enough to find tumours."""
    root = tmp_path_factory.mktemp("brats")
    data = write_brain_phantoms(root / "brains", SETTINGS)
    longer = {**tiny_settings, "epochs": 1, "iterations_per_epoch": 50, "batch_size": 2}
    run_request(
        RunRequest(
            data, root / "run", "quick_test", longer, device="cpu", named="brats"
        )
    )
    return root / "run"


def predicted(run, tmp_path, family, **changes):
    settings = SETTINGS.model_copy(
        update={"family": family, "cases": 1, "labelled": False, **changes}
    )
    data = write_brain_phantoms(tmp_path / family, settings)
    predictor = Predictor.load(run, device="cpu", missing="zeros", mirror=False)
    records = predict_cases(
        predictor,
        load_inputs(data, channels=predictor.channels),
        tmp_path / "out" / family,
    )
    return data, records


def regions_of(labels, family):
    return {
        name: np.isin(labels, values)
        for name, values in FAMILIES[family].labels.regions.items()
    }


def test_label_maps_come_back_in_the_values_of_each_release_and_mean_the_same(
    run, tmp_path
):
    maps = {}
    for family in FAMILIES:
        data, records = predicted(run, tmp_path, family)
        ((name, record),) = records.items()
        assert "error" not in record
        file = tmp_path / "out" / family / record["output"]
        labels = read_labels(file).array[0]
        assert set(np.unique(labels)) - {0} <= set(
            FAMILIES[family].labels.labels.values()
        )
        source = read_header(next(data.rglob(f"*{name}*t1*")))
        assert np.allclose(read_header(file).affine, source.affine)
        maps[family] = regions_of(labels, family)
    assert maps["2020"]["ET"].any()  # else nothing was shown
    for other in ("2021", "2023"):  # the same patient
        for region in ("WT", "TC", "ET"):
            assert np.array_equal(maps["2020"][region], maps[other][region])
    assert not maps["post-treatment"]["RC"].any()  # the model does not know it


def test_a_missing_sequence_is_predicted_with_a_warning_that_names_it(run, tmp_path):
    _, records = predicted(run, tmp_path, "2023", missing=((0, "T1ce"),))
    ((_, record),) = records.items()
    assert "no T1ce" in record["warnings"][0]


def test_regions_of_the_validation_cases_are_measured_by_every_convention(run):
    dataset = run.parent / "brains"
    for convention in ("trivox", "brats-legacy", "brats-lesion-wise", "brats-instance"):
        metrics = evaluate_folders(
            run / "validation" / "predictions",
            dataset,
            task="segmentation",
            convention=convention,
        )
        assert {"WT", "TC", "ET"} <= set(metrics["summary"])
        assert metrics["summary"]["WT"]["dice"]["mean"] > 0.2
