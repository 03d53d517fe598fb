"""Where weights to start from are found, and what is said about everything else."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from json_schemas import complaints
from trivox.config.recipe import make_recipe
from trivox.errors import BundleError, RecipeError
from trivox.inference.bundle import read_bundle
from trivox.tasks.run import run_request
from trivox.tasks.start import find_weights, require_start
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def short(tiny_settings):
    return {**tiny_settings, "epochs": 1, "iterations_per_epoch": 1}


def test_runs_bundles_their_description_and_files_are_found(tiny_run, tmp_path):
    expected = tiny_run / "bundle" / "weights-fold0.safetensors"
    for path in (
        tiny_run,
        tiny_run / "bundle",
        tiny_run / "bundle" / "bundle.json",
        expected,
    ):
        assert find_weights(path) == expected
    (tmp_path / "pretrained.safetensors").write_bytes(expected.read_bytes())
    assert find_weights(tmp_path) == tmp_path / "pretrained.safetensors"


def test_everything_else_is_named(tmp_path, tiny_run):
    for path in (tmp_path / "none", tmp_path / "none.safetensors"):
        with pytest.raises(BundleError, match="none"):
            find_weights(path)
    for name in ("model.pth", "model.pt"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(BundleError, match="trivox import nnunet"):
            find_weights(tmp_path / name)
    (tmp_path / "plans.json").write_text("{}")
    with pytest.raises(BundleError, match="trivox import nnunet"):
        find_weights(tmp_path)
    shutil.copytree(tiny_run / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle" / "weights-fold0.safetensors").write_bytes(b"other")
    with pytest.raises(BundleError, match="checksum differs"):
        find_weights(tmp_path / "bundle")


def test_pretrained_weights_are_no_model_to_predict_with(tmp_path):
    (tmp_path / "pretrained.safetensors").write_bytes(b"x")
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(BundleError, match="pretrained weights and no model"):
        read_bundle(tmp_path)


def test_freezing_needs_weights_worth_keeping():
    with pytest.raises(RecipeError, match="add --pretrained"):
        require_start(make_recipe("quick_test", {"freeze_encoder": 0.5}))
    require_start(make_recipe("quick_test"))


def test_a_mistyped_path_stops_before_anything_is_written(tmp_path, tiny_data, short):
    with pytest.raises(BundleError, match="none"):
        run_request(
            RunRequest(
                tiny_data,
                tmp_path / "run",
                "quick_test",
                {**short, "pretrained": str(tmp_path / "none")},
            )
        )
    assert not (tmp_path / "run").exists()


def test_a_new_run_starts_from_the_weights_and_a_resumed_one_from_its_own(
    tiny_data, tiny_run, tmp_path, short
):
    """Rates of almost zero: what the run ends with is what it began with."""
    settings = {
        **short,
        "learning_rate": 1e-12,
        "weight_decay": 0.0,
        "optimizer": "adamw",
    }
    weights = tmp_path / "start.safetensors"
    shutil.copy(find_weights(tiny_run), weights)
    given, request = (
        load_file(weights),
        RunRequest(
            tiny_data,
            tmp_path / "run",
            "quick_test",
            {**settings, "pretrained": str(weights)},
        ),
    )
    run_request(request)
    ended = load_file(tmp_path / "run" / "bundle" / "weights-fold0.safetensors")
    assert (
        max(float((ended[name] - value).abs().max()) for name, value in given.items())
        < 1e-6
    )
    report = json.loads(
        (tmp_path / "run" / "transfer.json").read_text(encoding="utf-8")
    )
    assert (report["share"], report["source"]) == (1, str(weights))
    assert complaints("transfer-file", report) == []
    save_file({name: torch.zeros_like(value) for name, value in given.items()}, weights)
    (tmp_path / "run" / "transfer.json").unlink()
    run_request(
        RunRequest(
            tiny_data, tmp_path / "run", "quick_test", request.overrides, resume=True
        )
    )
    again = load_file(tmp_path / "run" / "bundle" / "weights-fold0.safetensors")
    assert all(torch.equal(again[name], ended[name]) for name in ended)
    assert not (tmp_path / "run" / "transfer.json").exists()
    weights.unlink()  # what it started from is no longer needed
    run_request(
        RunRequest(
            tiny_data, tmp_path / "run", "quick_test", request.overrides, resume=True
        )
    )


def test_another_network_is_refused_in_one_line(tiny_data, tmp_path, short):
    save_file(
        {"blocks.0.attention.weight": torch.zeros(4)}, tmp_path / "other.safetensors"
    )
    overrides = {**short, "pretrained": str(tmp_path / "other.safetensors")}
    with pytest.raises(
        BundleError, match=r"none of its 1 tensors fits .*choose the --network"
    ):
        run_request(RunRequest(tiny_data, tmp_path / "run", "quick_test", overrides))
