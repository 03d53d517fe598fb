import json
import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from trivox.cli import app, main
from trivox.tasks.console import Quiet
from trivox.verbs.demo import PHANTOMS
from trivox.version import __version__

pytestmark = pytest.mark.usefixtures("without_figures")

VERBS = (
    "check",
    "plan",
    "preprocess",
    "drr",
    "train",
    "pretrain",
    "import",
    "predict",
    "evaluate",
    "report",
    "explain",
    "export",
    "distill",
    "pacs",
    "node",
    "info",
    "doctor",
    "demo",
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if (
            result.exit_code != code
            and result.exception
            and not isinstance(result.exception, SystemExit)
        ):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout if "--json" in arguments else result.output

    return call


@pytest.fixture
def tiny_options(tiny_settings):
    return [
        "--preset",
        "quick_test",
        *(f"--set={key}={json.dumps(value)}" for key, value in tiny_settings.items()),
    ]


# -- starting --------------------------------------------------------------------------
@pytest.mark.parametrize("verb", ["--help", "doctor", "--version"])
def test_starts_at_once_without_torch(verb):
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['trivox', {verb!r}]\nfrom trivox.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False"
    assert done.stdout


def test_help_names_every_verb_and_the_notice(run):
    text = " ".join(run("--help").split())
    assert "Research use only" in text
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run, verb):
    assert "Usage" in run(verb, "--help")


def test_version(run):
    assert run("--version").strip() == __version__


def test_doctor_lists_the_machine(run):
    text = run("doctor")
    assert all(
        word in text
        for word in ("trivox", "python", "torch", "cores", "memory", "gpu", "free disk")
    )


# -- data ------------------------------------------------------------------------------
def test_check_counts_cases_and_writes_findings(run, tiny_data, tmp_path):
    text = run("check", tiny_data, "--out", "check.json")
    assert "6 cases, 5 to train on, manifest layout" in text
    assert json.loads((tmp_path / "check.json").read_text())["errors"] == 0


def test_plan_shows_decisions_and_writes_two_files(run, tiny_data, tmp_path):
    text = run(
        "plan",
        tiny_data,
        "--network",
        "unet-tiny",
        "--memory-gb",
        1,
        "--out",
        "p/plan.json",
    )
    assert "spacing" in text
    assert (
        json.loads((tmp_path / "p" / "plan.json").read_text())["network"] == "unet-tiny"
    )
    assert (tmp_path / "p" / "fingerprint.json").exists()
    again = json.loads((tmp_path / "p" / "plan.json").read_text())
    run(
        "plan",
        tiny_data,
        "--network",
        "unet-tiny",
        "--patch-size",
        "16,16,16",
        "--out",
        "p/plan.json",
    )
    assert (
        json.loads((tmp_path / "p" / "plan.json").read_text())["patch_size"]
        == [16, 16, 16]
        != again["patch_size"]
    )


def test_preprocess_then_train_from_what_it_prepared(
    run, tiny_data, tiny_options, tmp_path
):
    run(
        "plan",
        tiny_data,
        "--network",
        "unet-tiny",
        "--patch-size",
        16,
        16,
        16,
        "--out",
        "plan.json",
    )
    assert "5 cases ready" in run(
        "preprocess", tiny_data, "--out", "ready", "--plan", "plan.json"
    )
    stamp = (
        (tmp_path / "ready" / "prepared" / "phantom_000.image.b2nd").stat().st_mtime_ns
    )
    run("preprocess", tiny_data, "--out", "ready", "--plan", "plan.json")
    run(
        "train",
        tiny_data,
        "--out",
        "run",
        "--plan",
        "plan.json",
        "--prepared",
        "ready",
        *tiny_options,
    )
    assert (
        tmp_path / "ready" / "prepared" / "phantom_000.image.b2nd"
    ).stat().st_mtime_ns == stamp
    assert not (tmp_path / "run" / "prepared").exists()


# -- training --------------------------------------------------------------------------
def test_train_leaves_the_run_that_the_contract_names(tiny_run):
    for name in (
        "recipe.json",
        "plan.json",
        "dataset.json",
        "metrics.jsonl",
        "log.txt",
        "report.html",
    ):
        assert (tiny_run / name).stat().st_size > 0
    for name in ("checkpoints/best", "checkpoints/latest", "bundle"):
        assert (tiny_run / name).is_dir()
    metrics = json.loads((tiny_run / "validation" / "metrics.json").read_text())
    assert set(metrics) >= {"convention", "cases", "summary"}
    assert not list(tiny_run.rglob("*.pkl"))
    assert not list(tiny_run.rglob(".tmp-*"))


def test_train_options_reach_the_recipe(run, tiny_data, tmp_path, tiny_settings):
    (tmp_path / "recipe.json").write_text(
        json.dumps({**tiny_settings, "preset": "x", "momentum": 0.5, "seed": 1})
    )
    options = [
        "--recipe",
        "recipe.json",
        "--seed",
        9,
        "--lr",
        0.02,
        "--set",
        "augmentation.rotation=0.5",
        "--epochs",
        1,
    ]
    assert "Dice:" in run(
        "train", tiny_data, "--out", "run", "--preset", "quick_test", *options
    )
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (
        recipe["momentum"],
        recipe["seed"],
        recipe["learning_rate"],
        recipe["epochs"],
    ) == (0.5, 9, 0.02, 1)
    assert recipe["augmentation"]["rotation"] == 0.5
    assert recipe["preset"] == "quick_test"


def test_a_run_is_resumed_only_on_request_and_under_its_own_settings(
    run, tiny_data, tiny_run, tiny_options, tmp_path
):
    shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(Exception, match="--resume"):
        run("train", tiny_data, "--out", "run", *tiny_options)
    with pytest.raises(Exception, match="was started with seed=12345, not 4"):
        run("train", tiny_data, "--out", "run", "--resume", "--seed", 4, *tiny_options)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "already finished" in run(
        "train", tiny_data, "--out", "run", "--resume", *tiny_options
    )
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_a_run_is_never_continued_under_another_fold(
    run, tiny_data, tiny_run, tiny_options, tmp_path
):
    shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(Exception, match="holds fold 0, not 1"):
        run("train", tiny_data, "--out", "run", "--resume", "--fold", 1, *tiny_options)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(Exception, match=r"run\.json: file not found"):
        run("train", tiny_data, "--out", "run", "--resume", "--fold", 1, *tiny_options)


def test_a_mistyped_dataset_leaves_no_run_behind(run, tiny_options, tmp_path):
    with pytest.raises(Exception, match="nowhere: not found"):
        run("train", tmp_path / "nowhere", "--out", "run", *tiny_options)
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_continued_on_other_cases(
    run, tiny_data, tiny_run, tiny_options, tmp_path
):
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copytree(tiny_data, tmp_path / "fewer")
    manifest = tmp_path / "fewer" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(
        json.dumps({**content, "cases": content["cases"][1:]}), encoding="utf-8"
    )
    with pytest.raises(Exception, match=r"1 case is gone .* since this run began"):
        run("train", tmp_path / "fewer", "--out", "run", "--resume", *tiny_options)


def test_a_run_does_not_continue_on_other_labels(run, tiny_run, tmp_path, tiny_options):
    from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms

    shutil.copytree(tiny_run, tmp_path / "run")
    write_phantoms(
        tmp_path / "other", PhantomSettings(cases=4, shape=(12, 12, 12), neighbour=True)
    )
    with pytest.raises(Exception, match="the labels changed since this run began"):
        run("train", tmp_path / "other", "--out", "run", "--resume", *tiny_options)


def test_fold_all_trains_every_fold_into_one_bundle(
    run, tiny_data, tiny_options, tmp_path
):
    options = [*tiny_options, "--set=epochs=1", "--set=iterations_per_epoch=1"]
    run("train", tiny_data, "--out", "run", "--fold", "all", *options)
    bundle = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())
    assert [weights["fold"] for weights in bundle["weights"]] == list("01234")
    cases = json.loads((tmp_path / "run" / "validation" / "metrics.json").read_text())[
        "cases"
    ]
    assert len(cases) == 5  # every training case was held out once
    assert "1 of 1" in run(
        "predict", "run", tiny_data / "images" / "phantom_005.nii.gz", "--out", "p"
    )


# -- models ----------------------------------------------------------------------------
def test_predict_with_run_bundle_and_both(run, tiny_run, tiny_data, tmp_path):
    run("predict", tiny_run, tiny_data, "--out", "a")
    run(
        "predict",
        tiny_run / "bundle",
        tiny_data / "images",
        "--out",
        "b",
        "--tta",
        "--probabilities",
    )
    run(
        "predict",
        tiny_run,
        tiny_run / "bundle",
        tiny_data / "images" / "phantom_001.nii.gz",
        "--out",
        "c",
    )
    assert len(list((tmp_path / "a").glob("*.nii.gz"))) == 6
    assert len(list((tmp_path / "b").glob("*_probabilities.nii.gz"))) == 6
    assert [p.name for p in (tmp_path / "c").glob("*.nii.gz")] == ["phantom_001.nii.gz"]


def test_predict_only_the_named_cases(run, tiny_run, tiny_data, tmp_path):
    (tmp_path / "names.txt").write_text("phantom_002\nphantom_004\n")
    assert "2 of 2" in run(
        "predict", tiny_run, tiny_data, "--out", "a", "--cases", "names.txt"
    )


def test_evaluate_from_files_gives_the_figures_of_the_run(
    run, tiny_run, tiny_data, tmp_path
):
    run(
        "evaluate",
        tiny_run / "validation" / "predictions",
        tiny_data,
        "--out",
        "m.json",
    )
    found, expected = (
        json.loads((tmp_path / "m.json").read_text()),
        json.loads((tiny_run / "validation" / "metrics.json").read_text()),
    )
    assert found["cases"] == expected["cases"]
    assert found["summary"] == expected["summary"]
    assert found["convention"] == expected["convention"]


def test_report_of_a_run_and_of_metrics(run, tiny_run, tmp_path):
    run("report", tiny_run, "--out", "r.html")
    shutil.copy(tiny_run / "validation" / "metrics.json", tmp_path)
    run("report", "metrics.json")
    for name in ("r.html", "metrics.html"):
        assert "Research use only" in (tmp_path / name).read_text(encoding="utf-8")


def test_explain_a_case_of_a_dataset(run, tiny_run, tiny_data, tmp_path):
    options = [
        "--case",
        "phantom_002",
        "--point",
        9,
        12,
        10,
        "--layers",
        0,
        "--layers",
        2,
    ]
    text = run("explain", tiny_run, tiny_data, "--out", "x", *options)
    assert "phantom_002: voxel (9, 12, 10) (z y x), as given" in text
    assert "written to x: feature_maps.png, saliency.png, explain.json" in text
    assert json.loads((tmp_path / "x" / "explain.json").read_text())["point"][
        "source_voxel"
    ] == [9, 12, 10]


def test_info_of_networks_and_bundles(run, tiny_run):
    facts = json.loads(run("info", "unet-tiny", "--json", "--input", 2, 32, 32, 32))
    assert {"parameters", "gflop", "saved_activation_gib"} <= set(facts)
    assert facts["input"] == [2, 32, 32, 32]
    facts = json.loads(run("info", tiny_run / "bundle", "--json"))
    assert {"parameters", "gflop", "saved_activation_gib"} <= set(facts)
    assert facts["labels"] == {"organ": 7, "lesion": 300}
    assert "parameters" in run("info", "unet-small")


def test_known_parameter_counts(run):
    """nnU-Net's plain network and ResEnc at six stages of 128^3."""
    for name, millions in (("nnunet-plain", 31.2), ("resenc-m", 102.35)):
        facts = json.loads(run("info", name, "--json"))
        assert facts["parameters"] / 1e6 == pytest.approx(millions, rel=0.005)


def test_demo_goes_all_the_way(run, tmp_path, monkeypatch, tiny_data):
    text = run("demo", "--out", "demo", "--minutes", 0.01, "--data", tiny_data)
    assert "test Dice" in text
    assert (tmp_path / "demo" / "run" / "report.html").exists()
    assert (tmp_path / "demo" / "predictions" / "phantom_005.nii.gz").exists()
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())[
        "cases"
    ].keys() == {"phantom_005"}
    assert PHANTOMS.test_cases > 0
    assert list(Quiet().track([1, 2], 2, "x")) == [1, 2]


# -- transfer --------------------------------------------------------------------------
def test_pretrain_then_train_from_it_with_a_frozen_encoder(
    run, tiny_data, tiny_options, tmp_path
):
    text = run(
        "pretrain", tiny_data / "images", "--out", "pre", "--seed", 3, *tiny_options
    )
    assert "R2 of hidden voxels in" in text
    assert "--network unet-tiny --pretrained pre" in text
    assert json.loads((tmp_path / "pre" / "recipe.json").read_text())["seed"] == 3
    run(
        "train",
        tiny_data,
        "--out",
        "run",
        "--pretrained",
        "pre",
        "--freeze-encoder",
        *tiny_options,
    )
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["pretrained"], recipe["freeze_encoder"]) == (
        str(tmp_path / "pre"),
        1,
    )
    assert (
        json.loads((tmp_path / "run" / "transfer.json").read_text())["loaded"][
            "tensors"
        ]
        > 10
    )
    run(
        "train",
        tiny_data,
        "--out",
        "run",
        "--pretrained",
        "pre",
        "--freeze-encoder",
        "--resume",
        *tiny_options,
    )


def test_import_brats_then_check(run, tmp_path):
    from trivox.datasets.phantoms.brains import (
        BrainPhantomSettings,
        write_brain_phantoms,
    )

    brains = BrainPhantomSettings(
        cases=6, test_cases=1, shape=(16, 16, 16), family="2023", missing=((5, "T2"),)
    )
    write_brain_phantoms(tmp_path / "source", brains)
    shutil.make_archive(tmp_path / "download", "zip", tmp_path / "source")
    text = run("import", "brats", "download.zip", "--out", "data")
    assert "6 cases of BraTS 2023 glioma" in text
    assert "1 cases held out" in text
    assert "1 cases without a sequence" in text
    assert "6 cases, 5 to train on, brats layout" in run("check", "data")
    shutil.rmtree(tmp_path / "source" / "test")
    run("import", "brats", "source", "--out", "raw", "--format", "nnunet")
    assert "5 to train on, nnunet layout" in run("check", "raw")


def test_import_nnunet_then_predict(run, tiny_data, tmp_path):
    from nnunet_folder import model_folder

    text = run(
        "import",
        "nnunet",
        model_folder(tmp_path / "model", channels=1),
        "--out",
        "b",
        "--trust",
    )
    assert "model: b (nnunet-plain; labels organ, lesion)" in text
    assert "note: nnU-Net's postprocessing.pkl is not imported" in text
    assert "1 of 1" in run(
        "predict",
        "b",
        tiny_data / "images" / "phantom_001.nii.gz",
        "--out",
        "p",
        "--no-tta",
    )


# -- wrong usage -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "x"],
        ["nonsense"],
        ["train", "x", "--out", "y", "--epochs", "many"],
        ["train", "x", "--out", "y", "--patch-size", "1", "2"],
        ["predict", "model", "--out", "y"],
        ["check", "x", "--wrong"],
        ["pretrain", "x"],
        ["import", "nnunet", "x"],
        ["import", "other", "x", "--out", "y"],
    ],
)
def test_wrong_usage_exits_with_2(run, arguments):
    run(*arguments, code=2)


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    from trivox.errors import TrivoxError

    monkeypatch.setattr(
        sys, "argv", ["trivox", "check", str(tmp_path / "none"), "--debug"]
    )
    with pytest.raises(TrivoxError):
        main()
    assert os.sep in str(tmp_path)


def test_a_recipe_is_asked_for_by_name_and_shown_in_the_plan(run, tiny_data, tmp_path):
    text = run("plan", tiny_data, "--recipe", "brats", "--network", "unet-tiny")
    assert "mask" in text
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["mask_channel"] is True
    assert all(n["masked"] for n in plan["normalisations"])


def test_without_a_preset_the_machine_decides(run, tiny_data, tmp_path):
    import torch

    run("plan", tiny_data, "--out", "by-machine.json")
    run(
        "plan",
        tiny_data,
        "--out",
        "chosen.json",
        "--preset",
        "production" if torch.cuda.is_available() else "quick_test",
    )
    assert (tmp_path / "by-machine.json").read_text() == (
        tmp_path / "chosen.json"
    ).read_text()
