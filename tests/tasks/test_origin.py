"""A run belongs to the data that it began on."""

import shutil

import pytest

from trivox.config.recipe import make_recipe
from trivox.datasets.content import CaseContent
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import BusyError, DataError, PlanError, RecipeError
from trivox.files import read_json, write_json
from trivox.learning.runtime import make_runtime
from trivox.locks import claimed
from trivox.planning.fingerprint import measure
from trivox.tasks.choice import task_named
from trivox.tasks.console import Quiet
from trivox.tasks.origin import FILE, differences, read_origin
from trivox.tasks.run import run_request
from trivox.tasks.stages import fingerprint_of, prepare
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_labels, write_volume

pytestmark = pytest.mark.usefixtures("without_figures")


class Lines(Quiet):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def data(tiny_data, tmp_path):
    """A dataset of which files may change."""
    return load_dataset(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def run(tiny_run, tmp_path):
    """A finished run that may be gone on with."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def corrected(case):
    """A person draws the label map anew."""
    volume = read_labels(case.label)
    write_volume(case.label, volume.with_array(volume.array[:, ::-1].copy()))


def with_cases(data, *cases):
    return data.model_copy(update={"cases": cases})


def changed(data, number, **what):
    cases = list(data.cases)
    cases[number] = cases[number].model_copy(update=what)
    return with_cases(data, *cases)


def origin_of(run):
    origin = read_origin(run)
    assert origin is not None
    return origin


def test_the_same_files_in_another_place_are_the_same_data(run, data):
    assert data.root != load_dataset(data.root.parent / "run" / "dataset.json").root
    assert differences(data, origin_of(run)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: changed(d, 0, patient="another"), "1 case changed (phantom_000)"),
        (lambda d: changed(d, 1, split="validation"), "1 case changed (phantom_001)"),
        (
            lambda d: changed(d, 1, clinical={"age": "61"}),
            "1 case changed (phantom_001)",
        ),
        (lambda d: with_cases(d, *d.cases[1:]), "1 case is gone (phantom_000)"),
        (lambda d: changed(d, 0, name="b"), "1 case is new (b)"),
        (lambda d: d.model_copy(update={"channels": ("ct",)}), "the channels changed"),
        (lambda d: d.model_copy(update={"classes": ("x",)}), "the classes changed"),
        (
            lambda d: changed(
                d.model_copy(update={"classes": ("x",)}), 2, class_name="x"
            ),
            "1 case changed (phantom_002)",
        ),
        (
            lambda d: d.model_copy(
                update={"labels": LabelScheme(labels={"lesion": 7, "organ": 300})}
            ),
            "the labels changed",
        ),
        (lambda d: changed(d, 3, absent=(1,)), "1 case changed (phantom_003)"),
        (
            lambda d: changed(d, 3, label=d.cases[2].label),
            "1 case changed (phantom_003)",
        ),
    ],
)
def test_whatever_changed_is_named(run, data, change, said):
    assert said in differences(change(data), origin_of(run))


@pytest.mark.parametrize("fold", ["0", "all"])
def test_a_run_is_never_resumed_on_other_data(run, data, tiny_settings, fold):
    """A finished fold is not taken for one of the new data either."""
    if fold == "all":
        (run / "fold0").mkdir()
        (run / "checkpoints").rename(run / "fold0" / "checkpoints")
        write_json(run / "run.json", {**read_json(run / "run.json"), "fold": "all"})
    corrected(data.cases[1])
    before = {file: file.read_bytes() for file in run.rglob("*.json")}
    request = RunRequest(
        data.root, run, "quick_test", tiny_settings, resume=True, fold=fold
    )
    with pytest.raises(
        DataError,
        match=r"1 case changed \(phantom_001\) since this run began; train into another",
    ):
        run_request(request)
    assert before == {file: file.read_bytes() for file in run.rglob("*.json")}


def test_a_run_is_never_resumed_under_other_settings(run, data, tmp_path):
    request = RunRequest(data.root, run, "production", resume=True)
    with pytest.raises(RecipeError, match="preset quick_test, not production"):
        run_request(request)
    plan = read_json(run / "plan.json")
    write_json(tmp_path / "plan.json", {**plan, "batch_size": 1})
    request = RunRequest(
        data.root, run, "quick_test", resume=True, plan=tmp_path / "plan.json"
    )
    with pytest.raises(PlanError, match="started with another plan than"):
        run_request(request)


def test_a_plan_that_changed_after_a_run_began_is_refused_and_comes_back(
    run, data, tiny_settings
):
    file = run / "plan.json"
    before = file.read_bytes()
    request = RunRequest(data.root, run, "quick_test", tiny_settings, resume=True)
    run_request(request)
    write_json(file, {**read_json(file), "spacing": [4, 4, 4], "batch_size": 1})
    with pytest.raises(
        PlanError, match=r"plan\.json: spacing, batch_size changed since"
    ):
        run_request(request)
    file.unlink()
    run_request(request)
    assert file.read_bytes() == before


def test_a_run_of_which_the_plan_was_not_recorded_goes_on(run, data, tiny_settings):
    write_json(run / FILE, {**read_json(run / FILE), "plan": None})
    run_request(RunRequest(data.root, run, "quick_test", tiny_settings, resume=True))
    assert origin_of(run).plan == read_json(run / "plan.json")


def prepared(data, out, settings, **request):
    console = Lines()
    prepare(
        task_named("segmentation"),
        data,
        RunRequest(data.root, out, **request),
        make_recipe("quick_test", settings),
        runtime=make_runtime("cpu", "fp32"),
        console=console,
    )
    return console.lines


def test_data_that_change_before_training_are_checked_planned_and_prepared_again(
    data, tmp_path, tiny_settings
):
    out = tmp_path / "out"
    prepared(data, out, tiny_settings)
    again = prepared(data, out, tiny_settings)
    assert not [line for line in again if "again" in line]
    corrected(data.cases[2])
    write_json(out / "check.json", {"errors": 0, "findings": []})
    lines = prepared(data, out, tiny_settings)
    name = data.cases[2].name
    assert lines[0] == f"{out}: 1 case changed ({name}); checked and planned again"
    assert "checked_cases" in read_json(out / "check.json")
    fingerprint = f"all cases are measured again: {name}"
    assert any(line.endswith(fingerprint) for line in lines)
    assert any(line.endswith(f"prepared again: {name}") for line in lines)
    origin = read_json(out / FILE)["cases"][name]["content"]
    assert CaseContent.model_validate(origin).files.keys() == {"image 0", "label"}


def test_a_plan_that_is_named_later_is_taken(data, tmp_path, tiny_settings):
    out = tmp_path / "out"
    prepared(data, out, tiny_settings)
    plan = read_json(out / "plan.json")
    write_json(tmp_path / "plan.json", {**plan, "batch_size": 1})
    prepared(data, out, tiny_settings, plan=tmp_path / "plan.json")
    assert read_json(out / "plan.json")["batch_size"] == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_fingerprint_belongs_to_its_files(data, tmp_path, known):
    console = Lines()
    file = tmp_path / "fingerprint.json"
    first = fingerprint_of(data, file, console)
    assert fingerprint_of(data, file, console) == first
    assert console.lines == []
    if known:
        corrected(data.cases[0])
    else:  # as 0.1.0 wrote it
        write_json(file, {**read_json(file), "content": {}})
    second = fingerprint_of(data, file, console)
    assert second == measure(data)
    assert len(console.lines) == 1
    assert "measured again" in console.lines[0]


def test_two_trainings_into_one_run_are_refused(data, run, tiny_settings):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    request = RunRequest(data.root, run, "quick_test", tiny_settings, resume=True)
    with (
        claimed(run, "train"),
        pytest.raises(BusyError, match="choose another --out"),
    ):
        run_request(request)
    after = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert before == after


def test_a_run_that_did_not_record_clinical_columns_goes_on(run, data):
    origin = origin_of(run)
    cases = {
        name: case.model_copy(update={"clinical": None})
        for name, case in origin.cases.items()
    }
    older = origin.model_copy(update={"cases": cases})
    assert differences(changed(data, 1, clinical={"age": "61"}), older) == []
