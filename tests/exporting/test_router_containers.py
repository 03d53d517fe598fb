"""Containers for any machine, for mercure and as MONAI Application Packages keep their
contracts.
"""

import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from container_inputs import files_below, random_model, scan
from locked_down import locked
from trivox import read_volume
from trivox.errors import BundleError, RecipeError
from trivox.exporting.containers import copy_bundle, package_model
from trivox.exporting.contract import read_contract
from trivox.exporting.packaging.delivery import doubted
from trivox.exporting.packaging.scans import make, write_series
from trivox.inference.bundle import read_bundle, write_bundle

TARGETS = ("docker", "mercure", "map")
each_target = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture
def context(contexts, target):
    return contexts[target]


@pytest.fixture
def run(context, enter):
    """Runs the entry point with the bundles of the context."""

    def start(**options):
        return enter(context, **{"models": context / "models"} | options)

    return start


@pytest.fixture
def start(context, monkeypatch, capsys):
    """Runs the entry point with nothing but the given arguments."""

    def begin(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict.py", *arguments])
        code = 0
        try:
            runpy.run_path(str(context / "predict.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr()

    return begin


@pytest.fixture
def scans(context, tmp_path):
    """What the platform would mount."""
    return make(tmp_path / "in", read_contract(context / "contract.json"))


def smoke_test(context):
    file = context / "smoke_test.py"
    spec = importlib.util.spec_from_file_location("smoke_test", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def objects(folder):
    """DICOM objects of a folder."""
    from pydicom import dcmread

    return [dcmread(path) for path in sorted(folder.glob("*.dcm"))]


# -- all of them -----------------------------------------------------------------------
@each_target
def test_what_the_smoke_test_asks_for_is_what_the_entry_point_does(
    context, enter, tmp_path, monkeypatch
):
    smoke = smoke_test(context)

    def predict(source, output, models):
        import subprocess

        options = {"input": source, "output": output, "models": models}
        code, lines = enter(context, **options)
        return subprocess.CompletedProcess([], code, "", "\n".join(lines))

    monkeypatch.setattr(smoke, "predict", predict)
    contract = read_contract(context / "contract.json")
    smoke.run_all(tmp_path, contract, context / "models")


@each_target
def test_what_is_written_is_the_result_and_nothing_else(context, scans, run, tmp_path):
    before = files_below(tmp_path / "in")
    assert run()[0] == 0
    assert files_below(tmp_path / "in") == before
    smoke = smoke_test(context)
    contract = read_contract(context / "contract.json")
    smoke.check_all(scans, tmp_path / "out", contract)
    (tmp_path / "out" / "stranger.txt").write_text("hello")
    with pytest.raises(smoke.BrokenContractError, match="stranger"):
        smoke.check_all(scans, tmp_path / "out", contract)


def test_routers_hand_on_one_series_so_the_model_reads_one_channel(bundle, tmp_path):
    for target in ("mercure", "map"):
        with pytest.raises(BundleError, match="package it with --target docker"):
            package_model([bundle], tmp_path / target, target=target)
    package_model([bundle], tmp_path / "docker", target="docker")


@each_target
def test_sockets_are_for_grand_challenge(organs, tmp_path, target):
    with pytest.raises(RecipeError, match=f"leave them out for {target}"):
        package_model(
            [organs], tmp_path / "out", target=target, input_slugs={"ct": "CT"}
        )


def test_codes_of_labels_are_part_of_the_context(organs, tmp_path):
    model = shutil.copytree(organs, tmp_path / "model")
    (model / "codes.json").write_text("{}")
    (model / "other.txt").write_text("mine")
    package_model([model], tmp_path / "out", target="docker")
    copied = {path.name for path in (tmp_path / "out" / "models" / "model0").iterdir()}
    assert copied == {"bundle.json", "weights-fold0.safetensors", "codes.json"}


def test_classifiers_are_copied_with_their_networks(tiny_run, tmp_path):
    model = random_model(tiny_run, tmp_path / "m", channels=("CT",), task="multitask")
    weights = {"0": model / "weights-fold0.safetensors"}
    description = read_bundle(model).description
    bundle = write_bundle(tmp_path / "b", description, weights, classifiers=weights)
    copy_bundle(bundle, tmp_path / "copy")
    assert files_below(tmp_path / "copy") == files_below(tmp_path / "b")
    assert len(files_below(tmp_path / "copy")) == 3


@each_target
def test_models_that_also_answer_with_a_class_are_taken(
    tiny_run, tmp_path, monkeypatch, target
):
    monkeypatch.setattr("trivox.inference.members.fill_network", lambda *_: None)
    model = random_model(tiny_run, tmp_path / "m", channels=("CT",), task="multitask")
    contract = package_model([model], tmp_path / "out", target=target)
    assert contract.task == "multitask"


@pytest.mark.slow
@each_target
def test_a_locked_container_predicts(context, scans, tmp_path):
    """As the image's user, without home and network, nothing writable but the output."""
    out = tmp_path / "locked"
    out.mkdir()
    out.chmod(0o777)
    program = [sys.executable, "-I", "-B", "-u", context / "predict.py"]
    places = ["--input", tmp_path / "in", "--output", out]
    models = ["--models", context / "models", "--device", "cpu"]
    command = ["env", "-u", "HOME", f"TMPDIR={out}", *program, *places, *models]
    done = locked(command, writable=out, user=1000)
    assert done.returncode == 0, done.stderr
    smoke_test(context).check_all(scans, out, read_contract(context / "contract.json"))


# -- docker ----------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["docker"])
def test_label_maps_of_images_and_objects_of_dicom(run, tmp_path):
    scan(tmp_path / "in" / "first.nii.gz", 1)
    write_series(tmp_path / "in" / "second", name=lambda series, image: f"{image}.dcm")
    assert run() == (0, [])
    assert [str(path) for path in files_below(tmp_path / "out")] == [
        "first.nii.gz",
        "predictions.json",
        "second.nii.gz",
        "second.seg.dcm",
    ]


@pytest.mark.parametrize("target", ["docker"])
def test_variables_say_what_arguments_do_not(run, tmp_path, monkeypatch):
    write_series(tmp_path / "in" / "case", name=lambda series, image: f"{image}.dcm")
    monkeypatch.setenv("TRIVOX_FORMAT", "rtstruct")
    assert run() == (0, [])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"predictions.json", "case.rtstruct.dcm"}
    assert run(format="nifti", output=tmp_path / "other") == (0, [])
    names = {path.name for path in (tmp_path / "other").iterdir()}
    assert names == {"predictions.json", "case.nii.gz"}


# -- mercure ---------------------------------------------------------------------------
def settings(folder, process):
    (folder / "task.json").write_text(json.dumps({"process": process}))


@pytest.mark.parametrize("target", ["mercure"])
def test_objects_are_named_as_mercure_names_files(scans, run, tmp_path):
    assert run() == (0, [])
    (file,) = (tmp_path / "out").glob("*.dcm")
    (made,) = objects(tmp_path / "out")
    assert file.name == f"{made.SeriesInstanceUID}#{made.SOPInstanceUID}.dcm"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["trivox"]["objects"] == [file.name]
    (case,) = result["trivox"]["cases"]
    assert not {"inputs", "output", "sources", "written"} & case.keys()
    assert str(tmp_path) not in json.dumps(result)
    assert "trivox" in result["__mercure_notification"]["text"]
    assert result["__mercure_notification"]["requested"] is False


@pytest.mark.parametrize("target", ["mercure"])
def test_people_hear_of_answers_that_are_not_to_be_trusted(context, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict.py"])
    names = runpy.run_path(str(context / "predict.py"))
    text, asked = names["notice"](2, 1)
    assert asked is True
    assert "1 of its answers" in text
    text, asked = names["notice"](2, 0)
    assert asked is False
    assert "answers" not in text
    assert doubted({"a": {"abstain": True}, "b": {"abstain": False}, "c": {}}) == 1


@pytest.mark.parametrize("target", ["mercure"])
def test_variables_of_mercure_name_the_folders(
    context, scans, start, tmp_path, monkeypatch
):
    monkeypatch.setenv("MERCURE_IN_DIR", str(tmp_path / "in"))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "there"))
    assert start("--device", "cpu")[0] == 0
    assert len(objects(tmp_path / "there")) == 1


@pytest.mark.parametrize("target", ["mercure"])
def test_settings_of_the_task_are_heard(scans, run, tmp_path):
    process = {"settings": {"format": "rtstruct,dicom-seg,sr", "series": 1}}
    settings(tmp_path / "in", [process])
    assert run() == (0, [])
    kinds = sorted(made.Modality for made in objects(tmp_path / "out"))
    assert kinds == ["RTSTRUCT", "SEG", "SR"]


WRONG = [
    ({"settings": {"formt": "dicom-seg"}}, "the settings are format"),
    ({"settings": {"format": "dicom"}}, "choose of"),
    ({"settings": {"series": "7"}}, "7"),
    ({"settings": ["dicom-seg"]}, "the settings are format"),
    ([{"settings": {}}, {"settings": {}}], "names 2 modules"),
]


@pytest.mark.parametrize("target", ["mercure"])
@pytest.mark.parametrize(("process", "message"), WRONG)
def test_wrong_settings_are_one_line_and_no_object(
    scans, run, tmp_path, process, message
):
    settings(tmp_path / "in", process)
    code, lines = run()
    assert code == 1
    (line,) = lines
    assert message in line
    assert not list(tmp_path.glob("out/*.dcm"))


@pytest.mark.parametrize("target", ["mercure"])
@pytest.mark.parametrize("process", [None, {}, [], {"settings": None}])
def test_a_task_without_settings_has_the_usual_ones(
    context, tmp_path, monkeypatch, process
):
    monkeypatch.setattr(sys, "argv", ["predict.py"])
    read = runpy.run_path(str(context / "predict.py"))["read_settings"]
    settings(tmp_path, process)
    assert read(tmp_path / "task.json") == read(tmp_path / "nothing.json")


# -- map -------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["map"])
def test_manifests_say_where_things_are_in_the_image(context):
    app = json.loads((context / "app.json").read_text())
    package = json.loads((context / "pkg.json").read_text())
    lines = (context / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    assert (
        package["applicationRoot"].rstrip("/")
        == dict(
            line.split(maxsplit=1) for line in lines if line.startswith("WORKDIR /opt")
        )["WORKDIR"]
    )
    assert f"COPY models/ {package['modelRoot']}" in lines
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert json.loads(entry.split(maxsplit=1)[1]) == app["command"].split()
    (variables,) = (line for line in lines if line.startswith("ENV"))
    assert dict(pair.split("=") for pair in variables.split()[1:]) == app["environment"]
    root = Path(app["workingDirectory"])
    for folder, variable in (("input", "INPUT"), ("output", "OUTPUT")):
        path = root / app[folder]["path"]
        assert path == Path(app["environment"][f"HOLOSCAN_{variable}_PATH"])
    for model in package["models"]:
        assert (context / "models" / model["path"] / "bundle.json").is_file()


@pytest.mark.parametrize("target", ["map"])
def test_variables_of_the_package_name_the_folders(
    context, scans, start, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOLOSCAN_WORKDIR", str(tmp_path))
    monkeypatch.setenv("HOLOSCAN_INPUT_PATH", "in/")
    monkeypatch.setenv("HOLOSCAN_OUTPUT_PATH", str(tmp_path / "out"))
    monkeypatch.setenv("HOLOSCAN_MODEL_PATH", str(context / "models"))
    assert start("--device", "cpu")[0] == 0
    assert len(objects(tmp_path / "out")) == 1
    short = ("-i", tmp_path / "in", "-o", tmp_path / "o", "-m", context / "models")
    assert start(*map(str, short))[0] == 0
    assert len(objects(tmp_path / "o")) == 1


@pytest.mark.parametrize("target", ["map"])
def test_several_series_are_all_predicted(context, run, tmp_path):
    contract = read_contract(context / "contract.json")
    make(tmp_path / "in", contract)
    source = next((tmp_path / "in").rglob("*.dcm")).parent
    other = shutil.copytree(source, tmp_path / "in" / "other")
    from pydicom import dcmread

    for path in other.iterdir():
        dataset = dcmread(path)
        dataset.SeriesInstanceUID += ".1"
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID += ".1"
        dataset.save_as(path)
    code, _ = run()
    assert code == 0
    assert len(objects(tmp_path / "out")) == 2


@pytest.mark.parametrize("target", ["map"])
def test_manifests_are_shown_and_parts_are_copied(
    context, start, tmp_path, monkeypatch
):
    places = {
        "APPLICATION": context,
        "MODEL_PATH": context / "models",
        "DOCS_PATH": tmp_path / "docs",
        "APP_MANIFEST_PATH": context / "app.json",
        "PKG_MANIFEST_PATH": context / "pkg.json",
        "CONFIG_PATH": context / "app.yaml",
    }
    (tmp_path / "docs").mkdir()
    for name, place in places.items():
        monkeypatch.setenv(f"HOLOSCAN_{name}", str(place))
    out = tmp_path / "export"

    code, said = start("show")
    assert code == 0
    assert '"applicationRoot"' in said.out
    code, said = start("extract", "--export", str(out))
    assert (code, "not mounted" in said.err) == (1, True)
    (out / "config").mkdir(parents=True)
    assert start("export", "--export", str(out))[0] == 0
    assert [path.name for path in out.iterdir()] == ["config"]
    names = sorted(path.name for path in (out / "config").iterdir())
    assert names == ["app.json", "app.yaml", "pkg.json"]
    whole = tmp_path / "whole"
    whole.mkdir()
    assert start("extract", "--export", str(whole))[0] == 0
    assert sorted(path.name for path in whole.iterdir()) == [
        "app",
        "config",
        "docs",
        "models",
    ]
    assert (whole / "models" / "model0" / "bundle.json").is_file()


def test_values_of_the_label_maps_are_those_of_the_model(contexts, tmp_path, enter):
    scan(tmp_path / "in" / "one.nii.gz", 1)
    context = contexts["docker"]
    assert enter(context, models=context / "models") == (0, [])
    labels = read_volume(tmp_path / "out" / "one.nii.gz").array
    assert set(labels.ravel().tolist()) <= {0, 1, 2}
