"""Whatever is wrong with the input: one line that says what, where and what to do; exit
1; nothing half-written.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from json_schemas import complaints
from trivox.cli import main
from trivox.cli.answers import FLAG
from trivox.config.choices import (
    ConventionName,
    DemoName,
    PresetName,
    TaskName,
    Uncertainty,
    ViewFormat,
)
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

pytestmark = pytest.mark.usefixtures("without_figures")


def line_of(answer, remarks):
    """The last line of a command that answered a program; before it are remarks."""
    document = json.loads(answer, parse_constant=pytest.fail)
    schemas = ["error"]
    if "file" in document or "folder" in document:  # something was done
        schemas.append(document["verb"].replace(" ", "-"))
    assert [line for name in schemas for line in complaints(name, document)] == []
    line = f"error: {document['error']['message']}\n"
    assert remarks.endswith(line)
    return line


WAYS = [
    pytest.param((), id=""),
    pytest.param((FLAG,), marks=pytest.mark.slow, id="json"),
]
"""For people, and for programs."""


@pytest.fixture(params=WAYS)
def fails(tmp_path, monkeypatch, capsys, request):
    """Run a command that must fail; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=1):
        given = [*(str(a) for a in arguments), *request.param]
        monkeypatch.setattr(sys, "argv", ["trivox", *given])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, text = capsys.readouterr()
        if request.param:
            text = line_of(out, text)
        assert stop.value.code == code, text
        assert text.startswith("error: ")
        assert text.count("\n") == 1
        assert "Traceback" not in text
        assert not [p for p in tmp_path.rglob(".tmp-*") if "prepared" not in p.parts]
        return text

    return call


@pytest.fixture
def succeeds(trivox):
    """Run a command that must succeed; returns all that it says."""

    def call(*arguments):
        code, said = trivox(*arguments)
        assert not code, said
        return said

    return call


@pytest.fixture
def data(tmp_path):
    """Three small phantoms to spoil."""
    return write_phantoms(
        tmp_path / "data",
        PhantomSettings(cases=3, shape=(12, 14, 10), label_values=(7, 300)),
    )


@pytest.fixture
def options(tiny_settings):
    changes = {"epochs": 1, "iterations_per_epoch": 1, "patch_size": [8, 8, 8]}
    settings = {**tiny_settings, **changes}
    return [
        "--preset",
        "quick_test",
        *(f"--set={key}={json.dumps(value)}" for key, value in settings.items()),
    ]


IMAGE, LABEL = Path("images/phantom_001.nii.gz"), Path("labels/phantom_001.nii.gz")


def change(data, file, function):
    volume = read_volume(data / file)
    array = function(volume.array.copy())
    write_volume(data / file, Volume(array, volume.affine))


def missing_image(data):
    (data / IMAGE).unlink()


def missing_label(data):
    (data / LABEL).unlink()


def corrupt_image(data):
    (data / IMAGE).write_bytes((data / IMAGE).read_bytes()[:200])


def empty_file(data):
    (data / IMAGE).write_bytes(b"")


def text_as_label(data):
    (data / LABEL).write_text("not an image")


def wrong_shape(data):
    """A row more and a plane less: no part of the image's grid, nor it of this one."""
    change(
        data,
        LABEL,
        lambda array: np.pad(array[:, 1:], [(0, 0), (0, 0), (0, 1), (0, 0)]),
    )


def wrong_geometry(data):
    volume = read_volume(data / LABEL)
    affine = volume.affine.copy()
    affine[0, 3] += 30
    write_volume(data / LABEL, Volume(volume.array, affine))


def with_nan(data):
    def spoil(array):
        array = array.astype(np.float32)
        array[0, 3, 3, 3] = np.nan
        return array

    change(data, IMAGE, spoil)


def unknown_label(data):
    change(data, LABEL, lambda array: np.where(array == 7, 9, array))


def fractional_label(data):
    change(
        data,
        LABEL,
        lambda array: np.where(array == 7, np.float32(1.4), array).astype(np.float32),
    )


def two_channels(data):
    change(data, IMAGE, lambda array: np.concatenate([array, array]))


SPOILT = {
    missing_image: "does not exist",
    missing_label: "does not exist",
    corrupt_image: "cannot be read",
    empty_file: "is empty",
    text_as_label: "cannot be read",
    wrong_shape: "sizes differ",
    wrong_geometry: "mm apart",
    with_nan: "NaN",
    unknown_label: "not declared",
    fractional_label: "1.4",
    two_channels: "2 channels",
}
each_way = pytest.mark.parametrize(
    ("spoil", "message"), SPOILT.items(), ids=[f.__name__ for f in SPOILT]
)


def test_training_refuses_a_dataset_that_is_mostly_spoilt(
    fails, data, options, tmp_path
):
    for spoil in (corrupt_image, empty_file):
        spoil(data)
        (data / IMAGE).rename(data / "images" / "phantom_002.nii.gz")
    line = fails("train", data, "--out", "run", *options)
    assert "2 problems would make training wrong: phantom_001: " in line
    assert not (tmp_path / "run" / "plan.json").exists()
    assert not (tmp_path / "run" / "bundle").exists()


@each_way
def test_check_lists_what_is_spoilt(fails, data, capsys, spoil, message):
    spoil(data)
    assert "1 problems" in fails("check", data)


@each_way
def test_planning_and_preprocessing_set_the_case_aside(
    succeeds, data, tmp_path, spoil, message
):
    spoil(data)
    said = succeeds("plan", data, "--network", "unet-tiny")
    assert "set aside: phantom_001: " in said
    ready = succeeds("preprocess", data, "--out", "ready", "--network", "unet-tiny")
    assert "phantom_001: set aside: " in ready
    assert message in ready
    prepared = json.loads((tmp_path / "ready" / "check.json").read_text())
    assert list(prepared["set_aside"]) == ["phantom_001"]
    stored = {path.name.split(".")[0] for path in (tmp_path / "ready").rglob("*.b2nd")}
    assert stored == {"phantom_000", "phantom_002"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (corrupt_image, "phantom_001"),
        (missing_image, "phantom_001"),
        (empty_file, "phantom_001"),
        (with_nan, "phantom_001"),
        (two_channels, "phantom_001"),
    ],
)
def test_prediction_sets_bad_cases_aside(
    fails, data, tiny_run, tmp_path, spoil, message
):
    spoil(data)
    line = fails("predict", tiny_run, data, "--out", "out")
    assert "1 cases failed" in line
    assert message in line
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "phantom_000.nii.gz",
        "phantom_002.nii.gz",
        "predictions.json",
    ]


@pytest.mark.parametrize(
    "spoil",
    [wrong_shape, wrong_geometry, fractional_label, unknown_label],
)
def test_evaluation_names_the_case(fails, data, tmp_path, spoil):
    shutil.copytree(data / "labels", tmp_path / "predicted")
    spoil(data)
    if spoil in (fractional_label, unknown_label):  # as a prediction
        shutil.copytree(data / "labels", tmp_path / "predicted", dirs_exist_ok=True)
    assert "phantom_001" in fails("evaluate", "predicted", data)
    assert not (tmp_path / "metrics.json").exists()


def test_a_prediction_that_cannot_be_read_is_named_and_left_out(
    succeeds, data, tmp_path
):
    text_as_label(data)
    shutil.copytree(data / "labels", tmp_path / "predicted")
    assert "phantom_001: not measured: " in succeeds("evaluate", "predicted", data)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert sorted(metrics["cases"]) == ["phantom_000", "phantom_002"]


def test_a_dataset_without_any_foreground_is_refused(fails, data, options):
    for file in (data / "labels").iterdir():
        volume = read_volume(file)
        write_volume(file, Volume(np.zeros_like(volume.array), volume.affine))
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["labels"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    assert "no label but background" in fails("train", data, "--out", "run", *options)


def test_one_empty_mask_is_a_warning_not_an_error(
    data, options, tmp_path, monkeypatch, capsys
):
    change(data, LABEL, np.zeros_like)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["trivox", "train", str(data), "--out", "run", *options]
    )
    monkeypatch.setattr(
        "trivox.tasks.labels.segmentation.report_run", lambda *args, **kwargs: None
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "2 warnings" in capsys.readouterr().out


# -- paths and files -------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "none"],
        ["plan", "none"],
        ["preprocess", "none", "--out", "o"],
        ["train", "none", "--out", "o"],
        ["predict", "none", "none", "--out", "o"],
        ["explain", "none", "none", "--out", "o"],
        ["evaluate", "none", "none"],
        ["report", "none"],
        ["report", "none.json"],
        ["info", "none"],
        ["demo", "--data", "none", "--out", "o"],
    ],
)
def test_paths_that_do_not_exist(fails, arguments):
    line = fails(*arguments)
    assert "none" in line


@pytest.mark.parametrize("verb", ["check", "plan", "train", "preprocess"])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        '{"cases": [7]}',
        '{"training": 3}',
        '{"labels": "x", "training": [{"image": 3}], "modality": {"0": "CT"}}',
    ],
)
def test_broken_dataset_files(fails, tmp_path, verb, content):
    (tmp_path / "d").mkdir()
    for name in ("dataset.json", "manifest.json"):
        (tmp_path / "d" / name).write_text(content)
    fails(verb, "d", *(["--out", "o"] if verb != "check" else []))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        '"x"',
        "null",
        '{"summary": 3}',
        '{"summary": {}, "cases": 1}',
    ],
)
def test_broken_json_files(fails, tmp_path, data, content):
    (tmp_path / "broken.json").write_text(content)
    assert "broken.json" in fails("report", "broken.json")
    if content != '{"summary": {}, "cases": 1}':
        assert "broken.json" in fails(
            "train",
            data,
            "--out",
            "o",
            "--plan",
            "broken.json",
            "--network",
            "unet-tiny",
        )
        line = fails("train", data, "--out", "o2", "--recipe", "broken.json")
        assert "broken.json" in line or "summary" in line
    fails("info", "broken.json")
    fails("predict", "broken.json", data, "--out", "o")


def test_a_recipe_that_does_not_exist(fails, data):
    line = fails("train", data, "--out", "o", "--recipe", "lits")
    assert "recipe 'lits' does not exist" in line
    assert "brats" in line


@pytest.mark.parametrize(
    "name", ["recipe.json", "plan.json", "validation/metrics.json", "dataset.json"]
)
@pytest.mark.parametrize("content", ["{", "[]", '{"cases": 3}'])
def test_broken_files_of_a_run(fails, tiny_run, tiny_data, tmp_path, name, content):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / name).write_text(content)
    fails("report", run)
    if name in ("recipe.json", "plan.json"):
        fails("train", tiny_data, "--out", run, "--resume")


@pytest.mark.parametrize("name", ["plan.json", "fingerprint.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"cases": 3}'])
def test_broken_plan_or_fingerprint_beside_a_new_plan(
    fails, data, tmp_path, name, content
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text(content)
    assert name in fails("train", data, "--out", "run", "--network", "unet-tiny")


# -- settings --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "bogus=1"], "bogus"),
        (["--set", "novalue"], "key=value"),
        (["--set", "epochs=many"], "epochs"),
        (["--set", "augmentation=3"], "augmentation"),
        (["--set", "augmentation.rotation=7"], "rotation"),
        (["--set", "epochs.a=7"], "epochs"),
        (["--set", "patch_size=[16]"], "patch_size"),
        (["--set", "patch_size=[0,8,8]"], "patch_size"),
        (["--lr", "-1"], "learning_rate"),
        (["--epochs", "0"], "epochs"),
        (["--minutes", "0"], "minutes"),
        (["--seed", "-4"], "seed"),
        (["--network", "vgg"], "unet-tiny"),
        (["--fold", "9"], "fold"),
        (["--fold", "x"], "fold"),
        (["--device", "toaster"], "toaster"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "meta"], "meta"),
        (["--set", "precision=fp16", "--device", "cpu"], "fp16"),
    ],
)
def test_impossible_settings(fails, tiny_data, arguments, message):
    preset = [] if "--preset" in arguments else ["--preset", "quick_test"]
    assert message in fails("train", tiny_data, "--out", "run", *preset, *arguments)


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (["train", "x", "--out", "o", "--task", "dreaming"], get_args(TaskName)),
        (["train", "x", "--out", "o", "--preset", "fast"], get_args(PresetName)),
        (["evaluate", "x", "y", "--convention", "brats"], get_args(ConventionName)),
        (["drr", "x", "--out", "o", "--format", "png"], get_args(ViewFormat)),
        (["predict", "m", "x", "--out", "o", "--uncertainty", "doubt"], Uncertainty),
        (["predict", "m", "x", "--out", "o", "--precision", "fp8"], ["bf16", "fp16"]),
        (["demo", "nonsense"], get_args(DemoName)),
    ],
)
def test_choices_that_do_not_exist_are_wrong_usage_and_the_right_ones_are_listed(
    tmp_path, monkeypatch, capsys, arguments, choices
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trivox", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    text = capsys.readouterr().err
    assert stop.value.code == 2
    assert all(f"'{choice}'" in text for choice in choices)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "size", [(0, 8, 8, 8), (1, 0, 8, 8), (1, -8, 8, 8), (-1, 8, 8, 8)]
)
def test_impossible_input_sizes(fails, size):
    fails("info", "unet-tiny", "--input", *size)


def test_two_dataset_patients_are_the_least(fails, tmp_path, options):
    write_phantoms(tmp_path / "one", PhantomSettings(cases=1, shape=(12, 12, 12)))
    assert "too-few-cases" in fails("train", "one", "--out", "run", *options)


def test_case_lists_are_checked(fails, tiny_run, tiny_data, tmp_path):
    assert "names.txt" in fails(
        "predict", tiny_run, tiny_data, "--out", "o", "--cases", "names.txt"
    )
    (tmp_path / "names.txt").write_text("phantom_000\nnobody\n")
    assert "nobody" in fails(
        "predict", tiny_run, tiny_data, "--out", "o", "--cases", "names.txt"
    )
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00\xd8")
    assert "names.txt" in fails(
        "predict", tiny_run, tiny_data, "--out", "o", "--cases", "names.txt"
    )


def test_no_case_in_common(fails, tiny_data, tmp_path):
    write_volume(
        tmp_path / "p" / "stranger.nii.gz",
        read_volume(next((tiny_data / "labels").iterdir())),
    )
    assert "stranger" in fails("evaluate", "p", tiny_data)


def test_what_cannot_be_explained(fails, tiny_run, tiny_data, tmp_path):
    about = ["explain", tiny_run, tiny_data, "--out", "o"]
    assert "6 cases; choose one with --case" in fails(*about)
    assert "no case 'nobody'; its cases: phantom_000" in fails(
        *about, "--case", "nobody"
    )
    assert "point (16, 0, 0) (z y x) is not in the image" in fails(
        *about, "--case", "phantom_001", "--point", 16, 0, 0
    )
    assert "layer 9 does not exist" in fails(
        *about, "--case", "phantom_001", "--layers", 9
    )
    assert not (tmp_path / "o").exists()


# -- disks -----------------------------------------------------------------------------
@pytest.fixture
def full_disk(monkeypatch):
    """From now on no byte fits."""

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill():
        monkeypatch.setattr(Path, "write_bytes", full)
        monkeypatch.setattr(os, "fsync", full)

    return fill


@pytest.mark.parametrize(
    "verb",
    [
        *("check", "plan", "preprocess", "train", "predict", "explain", "evaluate"),
        *("report", "rank", "drr", "demo"),
    ],
)
def test_a_full_disk(fails, full_disk, tiny_run, tiny_data, tmp_path, options, verb):
    metrics = tiny_run / "validation" / "metrics.json"
    arguments = {
        "check": [tiny_data, "--out", "c.json"],
        "rank": [metrics, metrics, "--names", "a,b"],
        "drr": [tiny_data / IMAGE, "--out", "o", "--detector", 16],
        "demo": ["--out", "o"],
        "plan": [tiny_data, "--network", "unet-tiny"],
        "preprocess": [tiny_data, "--out", "o", "--network", "unet-tiny"],
        "train": [tiny_data, "--out", "o", *options],
        "predict": [tiny_run, tiny_data, "--out", "o"],
        "explain": [tiny_run, tiny_data / IMAGE, "--out", "o"],
        "evaluate": [tiny_run / "validation" / "predictions", tiny_data],
        "report": [tiny_run, "--out", "r.html"],
    }[verb]
    full_disk()
    assert "No space left" in fails(verb, *arguments)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("verb", ["preprocess", "train", "predict", "explain"])
def test_an_output_path_that_is_a_file(
    fails, tiny_run, tiny_data, tmp_path, options, verb
):
    (tmp_path / "o").write_text("mine")
    first = {
        "predict": [tiny_run, tiny_data],
        "explain": [tiny_run, tiny_data / IMAGE],
    }.get(verb, [tiny_data])
    line = fails(verb, *first, "--out", "o", *(options if verb == "train" else []))
    assert "o" in line.split()[1:][0] or "'o'" in line
    assert (tmp_path / "o").read_text() == "mine"


# -- weights from elsewhere ------------------------------------------------------------
def test_weights_to_start_from_that_cannot_be_used(fails, data, options, tmp_path):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    (tmp_path / "model.pth").write_bytes(b"x")
    save_file({"other.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    messages = {
        "none": "give a run or a bundle folder",
        "none.safetensors": "check the path",
        "model.pth": "trivox import nnunet",
        "bad.safetensors": "not readable as safetensors",
        "other.safetensors": "choose the --network",
        "data": "no model",
    }
    for number, (name, message) in enumerate(messages.items()):
        text = fails(
            "train", "data", "--out", f"run{number}", "--pretrained", name, *options
        )
        assert message in text
        assert name in text
    assert "add --pretrained" in fails(
        "train", "data", "--out", "frozen", "--freeze-encoder", *options
    )


def test_images_that_cannot_be_pretrained_on(fails, data, options, tmp_path):
    assert "not found" in fails("pretrain", "nowhere", "--out", "pre", *options)
    assert not (tmp_path / "pre").exists()
    assert "network 'vgg' does not exist" in fails(
        "pretrain", "data", "--out", "p", "--network", "vgg"
    )
    for name in ("phantom_000", "phantom_001"):
        (data / "images" / f"{name}.nii.gz").write_bytes(b"")
    assert "phantom_000" in fails("pretrain", "data", "--out", "pre", *options)
    (tmp_path / "empty").mkdir()
    assert "no image" in fails("pretrain", "empty", "--out", "pre2", *options)


def test_nnunet_folders_that_cannot_be_imported(fails, tmp_path):
    from nnunet_folder import model_folder

    assert "plans.json: not found" in fails(
        "import", "nnunet", "nowhere", "--out", "b", "--trust"
    )
    model = model_folder(tmp_path / "model", channels=1)
    assert "add --trust" in fails("import", "nnunet", "model", "--out", "b")
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"damaged")
    assert "checkpoint_final.pth" in fails(
        "import", "nnunet", "model", "--out", "b", "--trust"
    )
    (model / "plans.json").write_text("[]")
    assert "is not what nnU-Net writes" in fails(
        "import", "nnunet", "model", "--out", "b", "--trust"
    )
    assert not (tmp_path / "b").exists()


# -- interruption ----------------------------------------------------------------------
SLOW = """
import sys, time, torch
torch.set_num_threads(1)
import trivox.preparation.store as s, trivox.learning.trainer as t
step = t.Trainer._step
t.Trainer._step = lambda *a: (time.sleep(0.05), step(*a))[1]
from trivox.cli import main
main()
"""


def interrupted(command, ready, folder):
    child = subprocess.Popen(
        [sys.executable, "-c", command[0], *map(str, command[1:])],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 600
    while not ready() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    return child.wait(600), child.communicate()[1]


def test_ctrl_c_in_training_saves_and_exits_with_130(tiny_data, options, tmp_path):
    run = tmp_path / "run"
    command = [SLOW, "train", tiny_data, "--out", run, *options, "--set=epochs=500"]
    code, text = interrupted(command, (run / "metrics.jsonl").exists, tmp_path)
    assert code == 130
    assert text.count("\n") == 1
    assert "--resume" in text
    assert (run / "checkpoints" / "latest" / "optimizer.pt").exists()
    assert not list(run.rglob(".tmp-*"))


def test_ctrl_c_before_a_verb_begins_is_one_line_and_130(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("trivox.cli.app", interrupted)
    monkeypatch.setattr(sys, "argv", ["trivox", "doctor"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_elsewhere_is_one_line_and_130(tiny_data, tmp_path, monkeypatch, capsys):
    def press(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("trivox.verbs.check.load_dataset", press)
    monkeypatch.setattr(sys, "argv", ["trivox", "check", str(tiny_data)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines == ["interrupted; the same command continues where it can"]
