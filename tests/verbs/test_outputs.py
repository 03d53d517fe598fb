"""No verb writes over a file that trivox did not write, and each says before it begins
that it cannot write.
"""

import json
import os
import shutil
import sys

import pytest

import trivox
from trivox.cli import main
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes

pytestmark = pytest.mark.usefixtures("without_figures")

FOREIGN = b'{"this": "is somebody\'s own"}\n'
OPTIONS = ["--network", "unet-tiny", "--patch-size", 16, 16, 16]
FILES = ("check", "plan", "evaluate", "rank", "report", "report-run")
FOLDERS = ("preprocess", "train", "pretrain", "explain", "drr", "demo")


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_data, tiny_run, xray_data):
    """For each verb: what it is given, and where it puts what it is asked for."""
    place = tmp_path_factory.mktemp("made")
    maps = tiny_run / "validation" / "predictions"
    metrics = place / "first.json"
    trivox.evaluate(maps, tiny_data, metrics)
    shutil.copy(metrics, place / "second.json")
    scan = next((xray_data / "patients").iterdir()) / "ct.nii.gz"
    image = next((tiny_data / "images").iterdir())
    return {
        "check": (["check", tiny_data], "check.json"),
        "plan": (["plan", tiny_data, *OPTIONS], "plan.json"),
        "evaluate": (["evaluate", maps, tiny_data], "metrics.json"),
        "rank": (["rank", metrics, place / "second.json"], "ranking.json"),
        "report": (["report", metrics], "page.html"),
        "report-run": (["report", tiny_run], "page.html"),
        "preprocess": (["preprocess", tiny_data, *OPTIONS[:2]], ""),
        "train": (["train", tiny_data, *OPTIONS], ""),
        "pretrain": (["pretrain", tiny_data, *OPTIONS], ""),
        "explain": (["explain", tiny_run, image], ""),
        "drr": (["drr", scan, "--detector", 16], ""),
        "demo": (["demo", "--data", tiny_data], ""),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory, made, tiny_run):
    """For each verb: a folder that was empty, and names of what it leaves there."""
    runs = ["run.json", "recipe.json", "pretrained.safetensors", "prepared", "fold7"]
    demos = ["demo.json", "run", "predictions", "unseen-cases.txt", "metrics.json"]
    results = {
        "train": (tiny_run, [path.name for path in tiny_run.iterdir()]),
        "pretrain": (None, runs),
        "demo": (None, demos),
    }
    for verb, (arguments, name) in made.items():
        if verb not in results:
            out = tmp_path_factory.mktemp(verb)
            assert call(*arguments, "--out", out / name) == 0
            names = [str(path.relative_to(out)) for path in out.rglob("*")]
            results[verb] = (out, names)
    return results


def call(*arguments):
    """Exit code of a command."""
    before = sys.argv
    sys.argv = ["trivox", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    finally:
        sys.argv = before
    return 0


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *arguments):
    """The one line that a command is refused with."""
    capsys.readouterr()
    assert call(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == "", "refused before any work"
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("verb", [*FILES, *FOLDERS])
def test_a_file_of_somebody_is_never_written_over(
    made, written, tmp_path, capsys, verb
):
    arguments, name = made[verb]
    _, names = written[verb]
    assert names
    for number, taken in enumerate(names):
        out = tmp_path / f"{number}"
        (out / taken).parent.mkdir(parents=True)
        (out / taken).write_bytes(FOREIGN)
        before = files_in(out)
        refused(capsys, *arguments, "--out", out / name)
        assert files_in(out) == before, taken


@pytest.mark.parametrize("verb", [*FILES, "preprocess", "explain", "drr"])
def test_what_a_verb_wrote_it_writes_again(made, written, verb):
    arguments, name = made[verb]
    out, _ = written[verb]
    (out / "notes.txt").write_bytes(FOREIGN)
    assert call(*arguments, "--out", out / name) == 0
    assert (out / "notes.txt").read_bytes() == FOREIGN


@pytest.mark.parametrize("verb", [*FILES, *FOLDERS])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    made, tmp_path, capsys, verb
):
    arguments, name = made[verb]
    (tmp_path / "file").write_bytes(FOREIGN)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    wrong = ["folder"] if name else ["file"]
    for place in [*wrong, "file/under", "dangling", "dangling/under", "x" * 300]:
        refused(capsys, *arguments, "--out", tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dangling",
        "file",
        "folder",
    ]


@pytest.mark.parametrize("verb", [*FILES, *FOLDERS])
def test_a_disk_that_only_reads_is_said_before_any_work(
    made, tmp_path, capsys, monkeypatch, verb
):
    arguments, name = made[verb]
    really = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_CREAT):
            raise OSError(30, "Read-only file system")
        return really(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    line = refused(capsys, *arguments, "--out", tmp_path / "new" / name)
    assert "Read-only file system" in line
    assert not any(tmp_path.iterdir())


def test_an_input_is_no_output(made, tiny_data, tiny_run, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    metrics = tmp_path / "metrics.json"
    shutil.copy(tiny_run / "validation" / "metrics.json", metrics)
    shutil.copytree(tiny_run / "validation" / "predictions", tmp_path / "maps")
    image = next((tmp_path / "maps").iterdir())
    chests = write_thoraxes(
        tmp_path / "chests", ThoraxSettings(cases=1, test_cases=0, size=16)
    )
    before = files_in(tmp_path)
    for arguments in (
        ["plan", data, "--out", data / "manifest.json"],
        ["check", data, "--out", data / "manifest.json"],
        ["evaluate", tmp_path / "maps", data, "--out", image],
        ["evaluate", tmp_path / "maps", data, "--out", data / "manifest.json"],
        ["report", metrics, "--out", metrics],
        ["rank", metrics, metrics, "--out", metrics],
        ["preprocess", data, "--out", data],
        ["train", data, "--out", data],
        ["pretrain", data, "--out", data],
        ["demo", "--data", data, "--out", data],
        ["drr", chests, "--out", chests],
        ["drr", chests / "patients", "--out", chests],
    ):
        refused(capsys, *arguments)
        assert files_in(tmp_path) == before, arguments


def test_what_a_run_goes_by_is_written_by_its_own_training(
    made, tiny_data, tiny_run, tmp_path, capsys
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    maps = run / "validation" / "predictions"
    before = files_in(tmp_path)
    for arguments in (
        ["check", tiny_data, "--out", run / "check.json"],
        ["plan", tiny_data, *OPTIONS, "--out", run / "plan.json"],
        ["plan", tiny_data, *OPTIONS, "--out", run / "second.json"],
        ["evaluate", maps, tiny_data, "--out", run / "validation" / "metrics.json"],
        ["preprocess", tiny_data, *OPTIONS[:2], "--out", run],
    ):
        assert "run" in refused(capsys, *arguments)
        assert files_in(tmp_path) == before, arguments
    for _ in range(2):
        assert call("evaluate", maps, tiny_data, "--out", run / "metrics.json") == 0


def test_a_rendering_replaces_only_what_was_rendered(made, tmp_path, capsys):
    arguments, _ = made["drr"]
    assert call(*arguments, "--out", tmp_path) == 0
    exam = next((tmp_path / "patients").iterdir())
    aside = exam.with_name(f"{exam.name}.old")
    shutil.copytree(exam, aside)
    before = files_in(aside)
    assert call(*arguments, "--out", tmp_path) == 0
    assert files_in(aside) == before
    (exam / "remarks.txt").write_bytes(FOREIGN)
    before = files_in(tmp_path)
    assert "remarks.txt" in refused(capsys, *arguments, "--out", tmp_path)
    assert files_in(tmp_path) == before
    (exam / "remarks.txt").unlink()
    shutil.rmtree(aside)
    (tmp_path / "rendered.json").unlink()  # as 0.1.0 left it
    assert call(*arguments, "--out", tmp_path) == 0
    assert json.loads((tmp_path / "rendered.json").read_text())["exams"] == [exam.name]
    (exam / "preview.png").unlink()
    (tmp_path / "rendered.json").unlink()  # made by hand
    assert exam.name in refused(capsys, *arguments, "--out", tmp_path)


def test_cases_are_prepared_in_no_folder_but_a_preparation(tiny_data, tmp_path, capsys):
    (tmp_path / "mine" / "prepared").mkdir(parents=True)
    (tmp_path / "mine" / "prepared" / "phantom_000.json").write_bytes(FOREIGN)
    before = files_in(tmp_path)
    line = refused(
        capsys,
        *["train", tiny_data, "--out", tmp_path / "run"],
        *["--prepared", tmp_path / "mine"],
    )
    assert "trivox preprocess" in line
    assert files_in(tmp_path) == before


INNER = {"state.json", "splits.json", "preparation-key.json"}
"""What nobody reads but the run itself, and lists."""


def test_every_json_says_what_it_is_about_and_how_it_is_written(
    written, tiny_run, tiny_data, xray_run, xray_data, tmp_path
):
    trivox.predict(tiny_run, tiny_data, tmp_path / "maps", device="cpu")
    trivox.predict(xray_run, xray_data, tmp_path / "volumes", device="cpu")
    folders = [tiny_run, xray_run, tmp_path]
    folders += [out for out, _ in written.values() if out is not None]
    files = {file for folder in folders for file in folder.rglob("*.json")}
    seen = {file.name for file in files}
    for file in files:
        if file.name in INNER or "prepared" in file.parts:
            continue
        content = json.loads(file.read_text())
        assert content["format_version"] == 1, file
        assert "task" in content, file
    assert {"recipe.json", "run.json", "check.json", "plan.json", "ranking.json"} < seen
    assert {"fingerprint.json", "dataset.json", "predictions.json"} < seen
    assert {"bundle.json", "metrics.json", "explain.json", "rendered.json"} < seen


@pytest.mark.parametrize("name", ["recipe.json", "fingerprint.json", "dataset.json"])
def test_a_later_version_of_a_file_is_refused_in_one_line(
    tiny_run, tiny_data, tmp_path, capsys, name
):
    for file in ("recipe.json", "fingerprint.json", "dataset.json"):
        shutil.copy(tiny_run / file, tmp_path / file)
    content = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(content | {"format_version": 2}))
    capsys.readouterr()
    commands = {
        "recipe.json": [
            "train",
            tiny_data,
            "--recipe",
            tmp_path / name,
            "--out",
            tmp_path / "o",
        ],
        "fingerprint.json": ["plan", tiny_data, "--out", tmp_path / "plan.json"],
        "dataset.json": ["check", tmp_path / name],
    }
    assert call(*commands[name]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_plan_is_not_written_where_its_measurements_stand(tiny_data, tmp_path):
    out = tmp_path / "fingerprint.json"
    assert call("plan", tiny_data, *OPTIONS, "--out", out) == 2
    assert not out.exists()
