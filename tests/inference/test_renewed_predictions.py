"""A prediction belongs to its inputs and its model: what changed is predicted again,
and nothing of another model stands there as if this one had made it.
"""

import os
import shutil
import threading
from dataclasses import replace

import pytest

from trivox.datasets.layouts.choice import load_inputs
from trivox.errors import BusyError, DataError
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.evaluation.folders.measured import changed_since
from trivox.files import read_json, write_json
from trivox.inference.doubt.kinds import Extras
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.inference.records import RECORDS, unfinished_cases
from trivox.locks import claimed
from trivox.tasks.console import Quiet
from trivox.verbs.rank import rank
from trivox.verbs.report import report
from trivox.volumes.formats import read_labels, read_volume, write_volume


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def other(tiny_run):
    """Another model, for what is written about it."""
    return Predictor.load([tiny_run, tiny_run], device="cpu", precision="fp32")


@pytest.fixture
def cases(tiny_data, predictor, tmp_path):
    """Three cases of which files may change."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    return load_inputs(data, channels=predictor.channels)[:3]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def stamps(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.nii.gz")}


def exported_again(path):
    volume = read_volume(path)
    write_volume(path, volume.with_array(volume.array[:, ::-1].copy()))


class Lines(Quiet):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def map_of(case):
    return f"{case.name}.nii.gz"


def test_a_case_of_which_the_input_changed_is_predicted_again(predictor, cases, out):
    predict_cases(predictor, cases, out)
    before = stamps(out)
    exported_again(cases[1].images[0])
    os.utime(cases[0].images[0])
    lines = []
    records = predict_cases(predictor, cases, out, say=lines.append)
    assert lines == [
        "1 input changed since it was predicted and is predicted again: "
        f"{cases[1].name}",
        "2 of 3 cases were predicted before by this model and are kept",
    ]
    after = stamps(out)
    assert {name for name in after if after[name] != before[name]} == {map_of(cases[1])}
    assert len(records) == 3


def test_what_does_not_say_what_it_was_made_from_is_kept(predictor, cases, out):
    """As 0.1.0 wrote it."""
    predict_cases(predictor, cases[:1], out)
    content = read_json(out / RECORDS)
    del content["cases"][cases[0].name]["sources"]
    write_json(out / RECORDS, content)
    before = stamps(out)
    predict_cases(predictor, cases[:1], out)
    assert stamps(out) == before


@pytest.mark.parametrize("sources", [7, [7], [], [{"size": 1}], [None, None]])
def test_a_source_that_is_none_is_predicted_again(predictor, cases, out, sources):
    predict_cases(predictor, cases[:1], out)
    content = read_json(out / RECORDS)
    content["cases"][cases[0].name]["sources"] = sources
    write_json(out / RECORDS, content)
    before = stamps(out)
    predict_cases(predictor, cases[:1], out)
    assert stamps(out) != before


def test_maps_of_another_model_are_never_taken_for_this_one(
    predictor, other, cases, out
):
    predict_cases(predictor, cases, out)
    (out / "note.txt").write_text("of a person")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    refused = f"holds predictions of {cases[1].name}, {cases[2].name} by another model"
    with pytest.raises(DataError, match=refused):
        predict_cases(other, cases[:1], out)
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}
    lines = []
    predict_cases(other, cases[:1], out, overwrite=True, say=lines.append)
    assert list(stamps(out)) == [map_of(cases[0])]
    assert lines[0].startswith("3 cases were predicted before by another model")
    assert (out / "note.txt").exists()
    assert set(read_json(out / RECORDS)["cases"]) == {cases[0].name}


def test_maps_of_another_model_are_gone_before_the_first_case(
    predictor, other, cases, out
):
    """A killed process leaves none of them beside its own."""
    predict_cases(predictor, cases, out)

    def killed(todo, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_cases(other, cases, out, progress=killed)
    assert not stamps(out)
    assert not (out / RECORDS).read_text().count('"output"')


def test_what_is_removed_for_another_model_is_no_input(predictor, other, cases, out):
    """The map of one model is what another one reads."""
    predict_cases(predictor, cases[:2], out)
    source = out / map_of(cases[0])
    reads = cases[1].model_copy(update={"name": "new", "images": (source,)})
    before = stamps(out)
    with pytest.raises(DataError, match="is an input"):
        predict_cases(other, [reads], out, overwrite=True)
    assert stamps(out) == before


def test_a_model_that_was_edited_is_another_model(predictor, cases, out):
    """The same weights, another spacing, other values of labels, another rule."""
    predict_cases(predictor, cases[:1], out)
    (description,) = predictor.descriptions
    spacing = (9.0, *description.plan.spacing[1:])
    plan = description.plan.model_copy(update={"spacing": spacing})
    edited = description.model_copy(update={"plan": plan})
    before = stamps(out)
    retold = description.model_copy(update={"training": {"dataset": "x"}})
    predict_cases(replace(predictor, descriptions=(retold,)), cases[:1], out)
    assert stamps(out) == before
    predict_cases(replace(predictor, descriptions=(edited,)), cases[:1], out)
    assert stamps(out) != before


# -- two processes ---------------------------------------------------------------------
def test_two_predictions_of_other_cases_go_side_by_side(predictor, cases, out):
    """Threads: each opens the locks anew, as processes do."""
    parts = [cases[:1], cases[1:]]
    together = threading.Barrier(2)

    def progress(todo, total):
        together.wait(60)
        yield from todo

    threads = [
        threading.Thread(
            target=predict_cases,
            args=(predictor, part, out),
            kwargs={"progress": progress},
        )
        for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = read_json(out / RECORDS)
    assert set(content["cases"]) == {case.name for case in cases}
    assert not list(out.glob(".*"))


def test_a_case_that_another_process_predicts_is_refused(predictor, cases, out):
    with (
        claimed(out, "predict", [cases[1].name]),
        pytest.raises(BusyError, match="trivox predict"),
    ):
        predict_cases(predictor, cases, out)
    assert not (out / RECORDS).exists()


def test_what_another_model_predicts_just_now_is_never_removed(
    predictor, other, cases, out
):
    predict_cases(predictor, cases, out)
    before = stamps(out)
    with claimed(out, "predict", ["later"]), pytest.raises(BusyError):
        predict_cases(other, cases, out, overwrite=True)
    assert stamps(out) == before


# -- maps that a person corrected ------------------------------------------------------
def corrected_map(out, case):
    """A person draws a predicted map anew, and the file keeps its time."""
    file = out / map_of(case)
    stamp = file.stat()
    volume = read_labels(file)
    write_volume(file, volume.with_array(volume.array[:, ::-1].copy()))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return file.read_bytes()


def test_a_map_that_a_person_corrected_is_kept_and_said(predictor, cases, out):
    predict_cases(predictor, cases, out)
    drawn = corrected_map(out, cases[1])
    said = []
    predict_cases(predictor, cases, out, say=said.append)
    assert said[0] == (
        "1 prediction was changed by hand since and is kept as such (--overwrite "
        f"predicts again): {cases[1].name}"
    )
    assert (out / map_of(cases[1])).read_bytes() == drawn
    predict_cases(predictor, cases, out, overwrite=True)
    assert (out / map_of(cases[1])).read_bytes() != drawn


@pytest.mark.parametrize("why", ["another model", "another input", "more files"])
def test_a_map_that_a_person_corrected_is_lost_to_no_prediction(
    predictor, other, cases, out, why
):
    predict_cases(predictor, cases, out)
    drawn = corrected_map(out, cases[1])
    model = other if why == "another model" else predictor
    if why == "another input":
        exported_again(cases[1].images[0])
    if why == "more files":
        model = replace(predictor, extras=Extras(probabilities=True))
    before = stamps(out)
    with pytest.raises(DataError, match=f"{cases[1].name} changed since .*--overwrite"):
        predict_cases(model, cases, out)
    assert stamps(out) == before
    assert (out / map_of(cases[1])).read_bytes() == drawn


def test_another_dataset_of_the_same_names_is_predicted_anew_and_said(
    predictor, cases, out, tmp_path
):
    predict_cases(predictor, cases, out)
    second = shutil.copytree(tmp_path / "data", tmp_path / "second")
    moved = [
        case.model_copy(
            update={
                "images": tuple(
                    second / p.relative_to(tmp_path / "data") for p in case.images
                )
            }
        )
        for case in cases
    ]
    said = []
    predict_cases(predictor, moved, out, say=said.append)
    assert said[0].startswith("3 inputs changed since they were predicted and are")


# -- measuring -------------------------------------------------------------------------
@pytest.fixture
def metrics(predictor, cases, out, tmp_path):
    predict_cases(predictor, cases, out)
    content = evaluate_folders(out, tmp_path / "data", task="segmentation")
    write_json(tmp_path / "metrics.json", content)
    return content


def test_a_prediction_that_was_begun_and_not_ended_is_not_measured(
    predictor, cases, out, metrics, tmp_path
):
    content = read_json(out / RECORDS)
    del content["cases"][cases[0].name]
    write_json(out / RECORDS, content)
    assert unfinished_cases(out) == [cases[0].name]
    again = evaluate_folders(out, tmp_path / "data", task="drawn")
    assert set(again["cases"]) == {case.name for case in cases[1:]}
    assert (
        f"prediction not finished, not measured: {cases[0].name}" in again["warnings"]
    )
    write_json(out / RECORDS, {**content, "cases": {}})
    with pytest.raises(DataError, match="no prediction was finished"):
        evaluate_folders(out, tmp_path / "data", task="drawn")


@pytest.mark.parametrize("role", ["prediction", "reference"])
def test_figures_say_when_what_they_measured_has_changed(
    cases, metrics, tmp_path, role
):
    assert changed_since(metrics) == []
    file = metrics["sources"][cases[2].name][role]["file"]
    volume = read_labels(file)
    write_volume(file, volume.with_array(volume.array[:, ::-1].copy()))
    line = "1 of 3 cases changed since they were measured, measure again: "
    assert changed_since(metrics) == [line + cases[2].name]
    said = Lines()
    report(tmp_path / "metrics.json", tmp_path / "r.html", console=said)
    assert said.lines[0] == f"warning: {line}{cases[2].name}"
    assert line in (tmp_path / "r.html").read_text(encoding="utf-8")
    write_json(tmp_path / "again.json", metrics)
    files = [tmp_path / "metrics.json", tmp_path / "again.json"]
    warnings = rank(files, tmp_path / "ranking.json", permutations=10).warnings
    assert sum(line in warning for warning in warnings) == 2


def test_figures_whose_files_are_elsewhere_say_nothing(metrics, out, tmp_path):
    out.rename(tmp_path / "moved")
    assert changed_since(metrics) == []
    assert changed_since({**metrics, "sources": {"a": {"b": {"file": "x"}}}}) == []
