"""A prediction belongs to its inputs and its model: what changed is predicted again,
and nothing of another model stands there as if this one had made it.
"""

import os
import shutil
import threading

import pytest

from trivox.datasets.layouts.choice import load_inputs
from trivox.errors import BusyError, DataError
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.evaluation.folders.measured import changed_since
from trivox.files import read_json, write_json
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.inference.records import RECORDS, unfinished_cases
from trivox.locks import claimed
from trivox.tasks.choice import task_named
from trivox.tasks.report import report_metrics
from trivox.verbs.rank import rank
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


# -- measuring -------------------------------------------------------------------------
@pytest.fixture
def metrics(predictor, cases, out, tmp_path):
    predict_cases(predictor, cases, out)
    content = evaluate_folders(out, tmp_path / "data", task="drawn")
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
    report_metrics(
        task_named("segmentation"), tmp_path / "metrics.json", tmp_path / "r.html"
    )
    assert line in (tmp_path / "r.html").read_text(encoding="utf-8")
    write_json(tmp_path / "again.json", metrics)
    files = [tmp_path / "metrics.json", tmp_path / "again.json"]
    warnings = rank(files, tmp_path / "ranking.json", permutations=10).warnings
    assert sum(line in warning for warning in warnings) == 2


def test_figures_whose_files_are_elsewhere_say_nothing(metrics, out, tmp_path):
    out.rename(tmp_path / "moved")
    assert changed_since(metrics) == []
    assert changed_since({**metrics, "sources": {"a": {"b": {"file": "x"}}}}) == []
