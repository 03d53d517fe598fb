"""Map and likelihood of a case as `trivox predict` gives them: they cannot disagree."""

from dataclasses import replace

import numpy as np
import pytest

import trivox
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import UsageError
from trivox.files import read_json
from trivox.inference.detection.candidates import candidates_of, detection_map
from trivox.inference.detection.pair import chosen_lesion, lesion_probability
from trivox.inference.doubt.kinds import Extras
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.volumes.formats import read_volume
from untrained_models import write_scans, write_untrained


@pytest.fixture(scope="module", params=[False, True], ids=["labels", "regions"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    return write_untrained(folder, balanced=True, regions=request.param)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    (case,) = write_scans(tmp_path_factory.mktemp("scan"), (30, 26, 28))
    return case.images[0]


def innermost(model):
    """The label c, or the region that is it alone."""
    return list(Predictor.load(model, device="cpu").labels.targets)[-1]


def test_the_likelihood_is_the_maximum_of_the_map_that_is_read_back(
    model, scan, tmp_path
):
    name = innermost(model)
    done = trivox.predict(
        model, scan, tmp_path, device="cpu", precision="fp32", detection=name
    )
    written = read_volume(tmp_path / "scan_0_detection.nii.gz")
    labels = read_volume(tmp_path / "scan_0.nii.gz")
    record = read_json(done.file)["cases"]["scan_0"]["detection"]
    assert written.array.dtype == np.float32
    assert written.shape == labels.shape
    assert np.array_equal(written.affine, labels.affine)
    assert record["likelihood"] == float(written.array.max()) > 0
    assert record["lesion"] == ["c"]
    numbers, likelihoods = candidates_of(written.array[0])
    rows = record["candidates"]
    assert [row["likelihood"] for row in rows] == sorted(likelihoods, reverse=True)
    volume = sum(row["volume_ml"] for row in rows)
    assert volume == pytest.approx((numbers > 0).sum() * written.voxel_ml)


def test_the_map_is_of_the_probabilities_and_changes_no_label(model, scan):
    predictor = Predictor.load(model, device="cpu", precision="fp32")
    case = Case(name="scan_0", images=(scan,))
    plain = predictor.predict_case(case, probabilities=True)
    asked = replace(predictor, extras=Extras(detection=("c",)))
    given = asked.predict_case(case)
    assert np.array_equal(plain.labels.array, given.labels.array)
    assert given.probabilities is None
    chance = plain.probabilities.array[-1]
    expected = detection_map(chance)
    assert np.array_equal(given.detection.map.array[0], expected)
    assert given.detection.likelihood == expected.max()


def test_other_labels_are_predicted_anew_and_the_same_are_kept(model, scan, tmp_path):
    first, second, *_ = Predictor.load(model, device="cpu").labels.labels
    predictor = Predictor.load(model, device="cpu", precision="fp32")
    case = Case(name="scan_0", images=(scan,))
    lines = []
    for name in (first, first, second):
        asked = replace(predictor, extras=Extras(detection=(name,)))
        records = predict_cases(asked, [case], tmp_path, say=lines.append)
    assert "1 of 1 cases were predicted before" in lines[0]
    assert records["scan_0"]["detection"]["lesion"] == [second]


def test_labels_that_are_no_lesion_are_refused(model):
    description = Predictor.load(model, device="cpu").descriptions[0]
    with pytest.raises(UsageError, match="no label 'tumor'"):
        chosen_lesion("tumor", description)
    with pytest.raises(
        UsageError, match=r"none of the model's labels .* is named like"
    ):
        chosen_lesion("auto", description)
    every = ",".join(description.plan.labels.targets)
    assert chosen_lesion(every, description) == ("a", "b", "c")


def test_maps_need_a_format_that_has_some(model, scan, tmp_path):
    with pytest.raises(UsageError, match="add nifti"):
        trivox.predict(model, scan, tmp_path, format="sr", detection=innermost(model))


def test_probabilities_of_labels_add_up_and_of_regions_do_not():
    import torch

    chance = torch.tensor([[0.5], [0.25], [0.25]])[:, :, None, None]
    labels = LabelScheme(labels={"a": 1, "b": 2})
    assert lesion_probability(chance, labels, ["a", "b"]).item() == 0.5
    regions = LabelScheme(
        labels={"a": 1, "b": 2},
        regions={"whole": (1, 2), "core": (2,)},
        region_order=(1, 2),
    )
    nested = torch.tensor([[0.75], [0.5]])[:, :, None, None]
    assert lesion_probability(nested, regions, ["a", "b"]).item() == 0.75
    assert lesion_probability(nested, regions, ["b"]).item() == 0.5
