"""Doubt on the command line: maps beside the labels, flagged cases by name, one clear
line for what cannot be.
"""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from trivox.cli import app
from trivox.errors import BundleError, UsageError
from trivox.inference.doubt import shift
from trivox.volumes.formats import read_volume


@pytest.fixture
def bundle(tiny_run, tmp_path):
    """A copy of the tiny bundle that flags whatever holds any doubt."""
    folder = shutil.copytree(tiny_run / "bundle", tmp_path / "bundle")
    file = folder / "bundle.json"
    rule = {
        "threshold": 0.0,
        "poor_dice": 0.5,
        "rule": "",
        "cases": 9,
        "poor": 1,
        "flagged": 1,
        "flagged_poor": 1,
    }
    file.write_text(
        json.dumps(
            {**json.loads(file.read_text()), "abstention": rule, "temperature": 1.5}
        )
    )
    return folder


@pytest.fixture
def predict(bundle, tiny_data, tmp_path):
    """Predict one case; returns what was printed and the record."""

    def call(*options, code=0):
        (tmp_path / "names.txt").write_text("phantom_000")
        arguments = [
            "predict",
            bundle,
            tiny_data,
            "--out",
            tmp_path / "out",
            "--cases",
            tmp_path / "names.txt",
            "--precision",
            "fp32",
            *options,
        ]
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        file = tmp_path / "out" / "predictions.json"
        return result.output, json.loads(file.read_text()) if file.exists() else None

    return call


def test_doubt_stands_beside_the_labels_and_in_the_record(predict, tmp_path):
    _, written = predict(
        "--tta",
        "--scales",
        "0.9,1",
        "--uncertainty",
        "entropy",
        "--uncertainty",
        "variance",
    )
    record = written["cases"]["phantom_000"]
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {
        f"phantom_000{end}.nii.gz" for end in ("", "_entropy", "_variance")
    }
    assert record["votes"] == 4
    assert record["volumes"]["organ"]["method"] == "t_of_votes"
    assert (written["settings"]["scales"], written["settings"]["temperature"]) == (
        [0.9, 1.0],
        [1.5, 1.5],
    )


def test_flagged_cases_are_named(predict):
    text, written = predict()
    record = written["cases"]["phantom_000"]
    assert record["abstain"] is (record["reason"] is not None) is True
    assert f"look at phantom_000: {record['reason']}" in text


def test_cases_may_be_flagged_by_votes(predict, bundle):
    file = bundle / "bundle.json"
    content = json.loads(file.read_text())
    rule = {**content["abstention"], "score": "disagreement_of_votes"}
    areas = {"entropy": 0.2, "agreement": 0.1}
    flag = {"chosen": "agreement", "aurc": areas, "cases": 9, "votes": 2, "rule": rule}
    file.write_text(json.dumps({**content, "flag": flag}))
    text, written = predict("--tta")
    record = written["cases"]["phantom_000"]
    assert (record["flag"], record["votes"]) == ("agreement", 2)
    assert record["score"] == pytest.approx(1 - record["agreement"])
    assert f"look at phantom_000: {record['reason']}" in text
    _, written = predict("--no-tta")
    record = written["cases"]["phantom_000"]
    assert record["flag"] == "entropy"
    assert "agreement" not in record


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--uncertainty", "variance"], UsageError, "single vote"),
        (["--mc-samples", "3"], BundleError, r"network_options\.dropout=0\.1"),
    ],
)
def test_what_cannot_be_given_is_said_in_one_line(predict, options, error, message):
    with pytest.raises(error, match=message):
        predict(*options)


@pytest.mark.parametrize("share", ["1.5", "0", "0.009", "-0.1", "nan", "inf"])
def test_a_share_that_is_none_is_refused_before_the_model_is_read(
    predict, bundle, share
):
    next(bundle.glob("*.safetensors")).unlink()
    with pytest.raises(UsageError, match=r"--max-missed .*: give a share from 0\.01"):
        predict("--max-missed", share)


FURTHER_MAPS = (
    ["--probabilities"],
    ["--uncertainty", "entropy"],
    ["--detection", "lesion"],
    ["--max-missed", "0.1"],
)


@pytest.mark.parametrize("options", FURTHER_MAPS, ids=lambda options: options[0])
def test_maps_that_a_format_leaves_out_are_not_asked_for(predict, tmp_path, options):
    with pytest.raises(UsageError, match=f"{options[0]} writes maps in NIfTI, which"):
        predict(*options, "--format", "png")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scales", ["", "0", "1,-1", "one", "nan"])
def test_scales_are_positive_numbers(predict, scales):
    assert "--scales" in predict("--scales", scales, code=2)[0]


def test_passes_of_a_network_with_dropout(tiny_data, tiny_settings, tmp_path):
    options = [
        f"--set={key}={json.dumps(value)}"
        for key, value in {**tiny_settings, "epochs": 1}.items()
    ]
    train = [
        "train",
        tiny_data,
        "--out",
        tmp_path / "run",
        "--preset",
        "quick_test",
        *options,
        "--set",
        "network_options.dropout=0.2",
    ]
    assert CliRunner().invoke(app, [str(a) for a in train]).exit_code == 0
    predict = [
        "predict",
        tmp_path / "run",
        tiny_data,
        "--out",
        tmp_path / "out",
        "--mc-samples",
        "3",
        "--seed",
        "4",
        "--uncertainty",
        "mutual_information",
    ]
    result = CliRunner().invoke(app, [str(a) for a in predict])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {record["votes"] for record in written["cases"].values()} == {3}
    assert (written["settings"]["mc_samples"], written["settings"]["seed"]) == (3, 4)


def with_thresholds(bundle, thresholds, *, field="missed"):
    """Let a bundle know from what probability on each target counts."""
    file = bundle / "bundle.json"
    known = {
        target: {"cases": 12, "thresholds": [None] * 7 + [value] * 43}
        for target, value in thresholds.items()
    }
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, field: {"targets": known}}))


def test_a_map_in_which_few_voxels_are_missed(predict, bundle, tmp_path):
    with_thresholds(bundle, {"organ": 0.4, "lesion": 0.0})
    _, written = predict("--max-missed", "0.105", "--probabilities")
    record = written["cases"]["phantom_000"]["sensitive"]
    assert written["settings"]["max_missed"] == 0.1
    labels = read_volume(tmp_path / "out" / "phantom_000.nii.gz")
    chance = read_volume(tmp_path / "out" / "phantom_000_probabilities.nii.gz")
    marked = read_volume(tmp_path / "out" / "phantom_000_sensitive.nii.gz")
    assert list(record) == ["organ", "lesion"]
    assert marked.array.shape == (2, *labels.shape)
    organ = (chance.array[1] >= 0.4) | (labels.array[0] == 7)
    assert np.array_equal(marked.array[0], organ)
    assert (labels.array[0] == 7).sum() < organ.sum()
    assert marked.array[1].all()
    volume = np.count_nonzero(organ) * labels.voxel_ml
    assert record["organ"] == {
        "max_missed": 0.1,
        "missed": "voxels",
        "threshold": 0.4,
        "cases": 12,
        "volume_ml": pytest.approx(volume),
    }


def test_another_share_is_another_map_and_none_leaves_the_labels_alone(
    predict, bundle, tmp_path
):
    with_thresholds(bundle, {"organ": 0.4})
    out = tmp_path / "out"
    _, plain = predict()
    labels = (out / "phantom_000.nii.gz").read_bytes()
    assert "sensitive" not in plain["cases"]["phantom_000"]
    _, written = predict("--max-missed", "0.1")
    assert (out / "phantom_000.nii.gz").read_bytes() == labels
    assert written["cases"]["phantom_000"]["sensitive"]["lesion"]["threshold"] is None
    lesion = read_volume(out / "phantom_000.nii.gz").array[0] == 300
    marked = read_volume(out / "phantom_000_sensitive.nii.gz").array
    assert np.array_equal(marked[1], lesion)
    _, again = predict("--max-missed", "0.2")
    organ = again["cases"]["phantom_000"]["sensitive"]["organ"]
    assert organ["max_missed"] == 0.2


def test_lesions_have_thresholds_that_voxels_have_not(predict, bundle, tmp_path):
    with_thresholds(bundle, {"organ": 0.4, "lesion": 0.4})
    with_thresholds(bundle, {"organ": 0.0}, field="missed_lesions")
    _, written = predict("--max-missed", "0.1", "--missed", "lesions")
    organ = written["cases"]["phantom_000"]["sensitive"]["organ"]
    assert (organ["missed"], organ["threshold"]) == ("lesions", 0.0)
    assert written["settings"]["missed"] == "lesions"
    marked = read_volume(tmp_path / "out" / "phantom_000_sensitive.nii.gz").array
    assert marked[0].all()
    _, again = predict("--max-missed", "0.1")
    assert again["cases"]["phantom_000"]["sensitive"]["organ"]["threshold"] == 0.4
    assert "missed" not in again["settings"]


def test_what_cannot_be_promised_is_one_line(predict, bundle):
    with pytest.raises(UsageError, match="knows no thresholds"):
        predict("--max-missed", "0.1")
    with_thresholds(bundle, {"organ": 0.4})
    with pytest.raises(UsageError, match=r"takes 19 .* there were 12; ask for 0\.08"):
        predict("--max-missed", "0.05")
    with pytest.raises(UsageError, match=r"from 0\.01 to 0\.5"):
        predict("--max-missed", "0.9")
    with pytest.raises(UsageError, match="one model at scale 1"):
        predict("--max-missed", "0.1", "--scales", "0.9,1")
    with pytest.raises(UsageError, match="no thresholds for missed lesions"):
        predict("--max-missed", "0.1", "--missed", "lesions")
    with pytest.raises(UsageError, match="add the share, for example --max-missed"):
        predict("--missed", "lesions")


def with_volume_cases(bundle, looks=21):
    """Let a bundle know 40 validation cases, whose true volumes were 1 to 40 times the
    predicted ones."""
    ratios = np.log(np.arange(1.0, 41)).tolist()
    band = {"low": 0.0, "high": ratios[-1], "cases": 40}
    known = {
        "volumes": {"offset_ml": 0.001, "targets": {"organ": band, "lesion": None}},
        "volume_cases": {
            "looks": [[float(case)] * looks for case in range(40)],
            "ratios": {"organ": ratios, "lesion": ratios},
        },
    }
    file = bundle / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **known}))


def test_few_new_cases_are_not_weighed_and_that_is_said(predict, bundle):
    with_volume_cases(bundle)
    _, plain = predict()
    text, written = predict("--weighted-intervals")
    before = plain["cases"]["phantom_000"]["volumes"]["organ"]
    organ = written["cases"]["phantom_000"]["volumes"]["organ"]
    assert organ["volume_ml_high"] == before["volume_ml_high"] > before["volume_ml_low"]
    assert "interval" not in before
    assert organ["interval"] == "unweighted"
    assert organ["caution"].startswith("1 new cases, fewer than 20")
    assert "volumes: 1 new cases, fewer than 20" in text
    assert "interval" not in written["cases"]["phantom_000"]["volumes"]["lesion"]
    said = written["settings"]["weighted_intervals"]
    assert (said["new_cases"], said["weighted_cases"]) == (1, 0)
    assert "weighted_intervals" not in plain["settings"]


def test_cases_that_count_for_nothing_change_no_interval(predict, bundle, monkeypatch):
    with_volume_cases(bundle)
    seen = {}

    def first_twenty(known, new):
        seen["shapes"] = known.shape, new.shape
        weights = np.zeros(40)
        weights[:20] = 1
        return shift.Weights(weights, np.ones(1))

    monkeypatch.setattr(shift, "FEWEST_NEW", 1)
    monkeypatch.setattr(shift, "likelihood_ratios", first_twenty)
    text, written = predict("--weighted-intervals")
    volumes = written["cases"]["phantom_000"]["volumes"]
    organ = volumes["organ"]
    assert (organ["interval"], organ["effective_cases"]) == ("weighted", 20)
    shifted = organ["volume_ml"] + 0.001
    assert organ["volume_ml_low"] == pytest.approx(shifted - 0.001)
    assert organ["volume_ml_high"] == pytest.approx(20 * shifted - 0.001)
    assert volumes["lesion"]["volume_ml_high"] is None
    assert "volumes: 40 validation cases count as 20.0" in text
    known, new = seen["shapes"]
    assert new == (1, 21)
    assert known == (40, 21)


def test_weights_need_validation_cases_of_such_images(predict, bundle):
    with pytest.raises(UsageError, match="does not know what its validation cases"):
        predict("--weighted-intervals")
    with_volume_cases(bundle, looks=20)
    with pytest.raises(BundleError, match="have 20 numbers, images of 1 channels 21"):
        predict()
