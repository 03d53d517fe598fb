"""`trivox package` on the command line: options reach the container, wrong ones are
said in one line.
"""

import json
import shutil

import pytest
from typer.testing import CliRunner

from trivox.cli import app
from trivox.errors import RecipeError


@pytest.fixture
def package(tiny_run, tmp_path):
    """Package the tiny run, with a label value that fits into a byte."""
    folder = shutil.copytree(tiny_run / "bundle", tmp_path / "bundle")
    content = json.loads((folder / "bundle.json").read_text())
    content["plan"]["labels"]["labels"] = {"organ": 7, "lesion": 200}
    (folder / "bundle.json").write_text(json.dumps(content))

    def call(*options, code=0):
        arguments = ["package", str(folder), "--out", str(tmp_path / "out"), *options]
        result = CliRunner().invoke(app, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return call


def test_options_reach_the_contract(package, tmp_path):
    text = package(
        "--target",
        "grand-challenge",
        "--input-slug",
        "ct-image=contrast_0",
        "--output-slug",
        "organs",
        "--mounted-weights",
        "--missing-channels",
        "zeros",
    )
    contract = json.loads((tmp_path / "out" / "contract.json").read_text())
    assert (contract["input_slugs"], contract["output_slug"]) == (
        {"ct-image": "contrast_0"},
        "organs",
    )
    assert (contract["mounted_weights"], contract["missing_channels"]) == (
        True,
        "zeros",
    )
    assert contract["values"] == [0, 7, 200]
    assert f"python {tmp_path / 'out' / 'smoke_test.py'}" in text


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "mars"],
        ["--target", "grand-challenge", "--input-slug", "ct-image"],
        ["--target", "grand-challenge", "--input-slug", "a=x", "--input-slug", "a=y"],
        ["--target", "brats", "--missing-channels", "guess"],
        [],
    ],
)
def test_wrong_options_are_wrong_usage(package, tmp_path, options):
    package(*options, code=2)
    assert not (tmp_path / "out").exists()


def test_channels_that_the_model_does_not_read_are_named(package):
    with pytest.raises(RecipeError, match="the model reads contrast_0"):
        package(
            "--target",
            "grand-challenge",
            "--input-slug",
            "ct-image=CT",
            "--output-slug",
            "organs",
        )
