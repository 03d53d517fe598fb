"""A small model from a large one, on phantoms."""

import shutil

import pytest
import torch

import trivox
from trivox.cli import main
from trivox.config.options import DistillationOptions
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.errors import (
    BundleError,
    DataError,
    InterruptedTrainingError,
    PlanError,
    RecipeError,
)
from trivox.files import read_json
from trivox.inference.bundle import read_bundle
from trivox.learning.checkpoints import load_weights
from trivox.learning.trainer import Trainer
from trivox.tasks.labels.teachers import read_teachers
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="session")
def settings(tiny_settings):
    chosen = {name: tiny_settings[name] for name in tiny_settings if name != "network"}
    return {"preset": "quick_test", "set": chosen, "device": "cpu"}


@pytest.fixture(scope="module")
def images(tmp_path_factory, tiny_data):
    """Images: two under the names of cases, one of a labelled case, one that is none."""
    folder = tmp_path_factory.mktemp("images")
    drawn = PhantomSettings(
        cases=2, shape=(16, 20, 18), spacing=(2.0, 1.5, 1.5), seed=9
    )
    others = write_phantoms(tmp_path_factory.mktemp("others") / "data", drawn)
    known, *_ = trivox.load_dataset(tiny_data).cases
    for case in trivox.load_dataset(others).cases:
        shutil.copy(case.images[0], folder / f"{case.name}.nii.gz")
    (folder / "known.nii.gz").symlink_to(known.images[0])
    (folder / "broken.nii.gz").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory, tiny_run, settings, images):
    out = tmp_path_factory.mktemp("distilled") / "student"
    trivox.distill(tiny_run, out, unlabelled=images, temperature=3, **settings)
    return out


@pytest.fixture(scope="module")
def folds(tmp_path_factory, tiny_settings):
    """A run of all three folds of three cases, a step each."""
    folder = tmp_path_factory.mktemp("folds")
    data = write_phantoms(folder / "data", PhantomSettings(cases=3, shape=(16, 16, 16)))
    short = {**tiny_settings, "epochs": 1, "iterations_per_epoch": 1}
    run_request(RunRequest(data, folder / "run", "quick_test", short, fold="all"))
    return folder / "run"


def brief(settings):
    short = {**settings["set"], "epochs": 1, "iterations_per_epoch": 1}
    return {**settings, "set": short}


def test_a_student_is_a_run_that_says_who_taught_it_and_predicts(
    student, tiny_run, tiny_data, tmp_path
):
    model = read_bundle(student).description
    teacher = read_bundle(tiny_run)
    distillation = model.training["recipe"]["distillation"]
    assert distillation["identities"] == [teacher.identity]
    assert distillation["temperature"] == 3
    assert model.plan.preparation_key == teacher.description.plan.preparation_key
    # the teacher of the same fold has not seen what is held out
    warnings = read_json(student / "validation" / "metrics.json")["warnings"]
    assert not [line for line in warnings if "taught" in line]
    predicted = trivox.predict(student, tiny_data, tmp_path / "out", device="cpu")
    assert not predicted.failed


def test_images_without_labels_are_trained_on_and_never_held_out(student):
    cases = read_json(student / "dataset.json")["cases"]
    images = {case["name"]: case["complaint"] for case in cases if case["taught"]}
    assert images.pop("broken")
    taught = set(images)
    assert len(taught) == 2
    assert all(name.startswith("unlabelled_") for name in taught)
    for split in read_json(student / "splits.json"):
        assert taught <= set(split["train"])
        assert not taught & set(split["validation"])
        assert "broken" not in split["train"]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    student, tiny_run, settings, images, tmp_path, monkeypatch
):
    given = {"unlabelled": images, "temperature": 3, **settings}
    an_epoch = Trainer._epoch

    def one_epoch(trainer):
        an_epoch(trainer)
        trainer.stopping = True

    monkeypatch.setattr(Trainer, "_epoch", one_epoch)
    with pytest.raises(InterruptedTrainingError):
        trivox.distill(tiny_run, tmp_path / "run", **given)
    monkeypatch.undo()
    # what is not said again is as it was
    trivox.distill(tiny_run, tmp_path / "run", resume=True, **settings)
    weights = [
        load_weights(read_bundle(run).weight_files()[0])
        for run in (student, tmp_path / "run")
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_another_teacher_ends_nothing_that_was_begun(
    student, folds, tiny_run, settings, images, tmp_path
):
    given = {"unlabelled": images, "temperature": 3, "resume": True, **settings}
    with pytest.raises(RecipeError, match="started with distillation="):
        trivox.distill(folds, student, **given)
    with pytest.raises(RecipeError, match=r"'temperature': 3\.0.*'temperature': 2"):
        trivox.distill(tiny_run, student, **{**given, "temperature": 2})


def test_one_student_learns_from_all_folds_and_its_figures_say_so(
    folds, settings, tmp_path
):
    run = trivox.distill(folds, tmp_path / "run", **brief(settings))
    assert run.metrics["warnings"][-1].startswith("2 of the 3 networks that taught")


def test_each_fold_learns_from_its_own_network(folds, settings, tmp_path):
    run = trivox.distill(folds, tmp_path / "run", fold="all", **brief(settings))
    assert not [line for line in run.metrics["warnings"] if "taught" in line]
    assert len(read_bundle(run.folder).description.weights) == 3


def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(
    tiny_run, tiny_data, settings, tmp_path
):
    out = tmp_path / "out"
    with pytest.raises(BundleError, match="no model"):
        trivox.distill(tmp_path / "nowhere", out, **settings)
    with pytest.raises(RecipeError, match="'unet-none' does not exist"):
        trivox.distill(tiny_run, out, network="unet-none", **settings)
    with pytest.raises(RecipeError, match="no network of fold 3"):
        trivox.distill(tiny_run, out, fold=3, **settings)
    with pytest.raises(RecipeError, match="no network of fold 1"):
        trivox.distill(tiny_run, out, fold="all", **settings)
    alone = shutil.copytree(tiny_run / "bundle", tmp_path / "alone")
    with pytest.raises(BundleError, match="--dataset"):
        trivox.distill(alone, out, **settings)
    with pytest.raises(DataError, match="all 6 images have labels"):
        trivox.distill(tiny_run, out, unlabelled=tiny_data, **settings)
    for teacher in (tiny_run, tiny_run / "bundle"):
        with pytest.raises(DataError, match="is the input"):
            trivox.distill(teacher, tiny_run, **settings)
    assert not out.exists()


def test_a_foreign_folder_and_a_finished_run_are_left_alone(
    student, tiny_run, settings, tmp_path
):
    (tmp_path / "run.json").write_text("mine")
    with pytest.raises(DataError, match="no run that trivox wrote"):
        trivox.distill(tiny_run, tmp_path, **settings)
    assert (tmp_path / "run.json").read_text() == "mine"
    with pytest.raises(RecipeError, match="--resume"):
        trivox.distill(tiny_run, student, **settings)


def test_a_teacher_of_other_labels_teaches_nothing(tiny_run, settings, tmp_path):
    drawn = PhantomSettings(cases=3, shape=(16, 16, 16), label_values=(1, 2))
    other = write_phantoms(tmp_path / "data", drawn)
    with pytest.raises(PlanError, match="other channels or labels"):
        trivox.distill(tiny_run, tmp_path / "run", dataset=other, **settings)


def test_a_teacher_whose_files_were_exchanged_is_refused(tiny_run, tmp_path):
    options = DistillationOptions(teachers=(str(tiny_run),), identities=("0" * 12,))
    with pytest.raises(BundleError, match="not 000000000000 as when"):
        read_teachers(options)


def test_x_rays_are_refused(xray_run, settings, tmp_path):
    with pytest.raises(BundleError, match="gives no label maps"):
        trivox.distill(xray_run, tmp_path / "run", **settings)


def test_the_command_is_the_verb(tiny_run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["trivox", "distill", str(tiny_run), "--out", str(out), "--network", "none"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
