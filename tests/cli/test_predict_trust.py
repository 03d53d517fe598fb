"""Doubt on the command line: maps beside the labels, flagged cases by name, one clear
line for what cannot be.
"""

import json
import shutil

import pytest
from typer.testing import CliRunner

from trivox.cli import app
from trivox.errors import BundleError, RecipeError


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
    assert record["votes"] == 16
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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--uncertainty", "variance"], RecipeError, "single vote"),
        (["--mc-samples", "3"], BundleError, r"network_options\.dropout=0\.1"),
    ],
)
def test_what_cannot_be_given_is_said_in_one_line(predict, options, error, message):
    with pytest.raises(error, match=message):
        predict(*options)


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
