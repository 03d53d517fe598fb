"""What a prediction may write over and remove: what a prediction wrote."""

import json
import shutil
from dataclasses import replace

import pytest

from trivox.datasets.layouts.choice import load_inputs
from trivox.datasets.names import LONGEST
from trivox.errors import DataError
from trivox.files import read_json
from trivox.inference import folder
from trivox.inference.doubt.kinds import EXTRAS, Extras
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.inference.records import RECORDS, PredictionRecords, owners_of
from trivox.inference.writing import file_names


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def cases(tiny_data, predictor):
    return load_inputs(tiny_data, channels=predictor.channels)[:2]


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def named(case, name):
    return case.model_copy(update={"name": name})


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("extra", ["", *(f"_{extra}" for extra in EXTRAS)])
def test_a_file_that_no_prediction_wrote_is_never_written_over(
    predictor, cases, tmp_path, overwrite, extra
):
    asked = [kind for kind in EXTRAS if kind == extra[1:] and kind != "probabilities"]
    extras = Extras(probabilities=extra == "_probabilities")
    (tmp_path / f"{cases[1].name}{extra}.nii.gz").write_bytes(b"of a person")
    before = content_of(tmp_path)
    giving = Giving(predictor, [f"_{kind}" for kind in asked], extras)
    with pytest.raises(DataError, match=f"{cases[1].name}{extra}.nii.gz would be"):
        predict_cases(giving, cases, tmp_path, overwrite=overwrite)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".MHA"])
def test_no_second_image_of_one_name_is_put_beside_somebody_s(
    predictor, cases, tmp_path, ending
):
    (tmp_path / f"{cases[1].name}{ending}").write_bytes(b"of a person")
    before = content_of(tmp_path)
    with pytest.raises(DataError, match=f"{cases[1].name}{ending} would have a second"):
        predict_cases(predictor, cases, tmp_path)
    assert content_of(tmp_path) == before


class Giving:
    """A predictor that says it leaves more files; it is never asked to predict."""

    def __init__(self, predictor, endings, extras):
        self.identity = predictor.identity
        self.about = predictor.about
        self.device = predictor.device
        self.tables = predictor.tables
        self.endings = [*endings, *(["_probabilities"] if extras.probabilities else [])]

    def files(self, case):
        return [f"{case.name}{ending}.nii.gz" for ending in ("", *self.endings)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_written_over(predictor, cases, tmp_path, overwrite):
    source = tmp_path / "source.nii.gz"
    shutil.copyfile(cases[0].images[0], source)
    given = cases[0].model_copy(update={"name": "source", "images": (source,)})
    # not even where its name is that of an output which was claimed before
    (tmp_path / RECORDS).write_text(
        json.dumps({"cases": {}, "files": {"source.nii.gz": "source"}})
    )
    before = content_of(tmp_path)
    with pytest.raises(DataError, match="is an input"):
        predict_cases(predictor, [given], tmp_path, overwrite=overwrite)
    assert content_of(tmp_path) == before


def test_a_failed_case_removes_nothing_of_a_person(predictor, cases, tmp_path):
    for extra in EXTRAS:
        (tmp_path / f"{cases[0].name}_{extra}.nii.gz").write_bytes(b"of a person")
    before = content_of(tmp_path)
    gone = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    records = predict_cases(predictor, [gone], tmp_path)
    assert "error" in records[gone.name]
    assert content_of(tmp_path).items() >= before.items()


@pytest.mark.parametrize("fails", [False, True])
def test_a_case_never_takes_the_map_of_another_for_its_own(
    predictor, cases, tmp_path, fails
):
    other = named(cases[1], f"{cases[0].name}_entropy")
    predict_cases(predictor, [other], tmp_path)
    kept = content_of(tmp_path)[f"{other.name}.nii.gz"]
    images = (tmp_path / "gone.nii.gz",) if fails else cases[0].images
    case = cases[0].model_copy(update={"images": images})
    predict_cases(predictor, [case], tmp_path)
    assert content_of(tmp_path)[f"{other.name}.nii.gz"] == kept
    assert set(read_json(tmp_path / RECORDS)["cases"]) == {case.name, other.name}


def test_outputs_that_share_a_name_are_refused(predictor, cases, tmp_path):
    giving = Giving(predictor, ["_entropy"], Extras())
    both = [cases[0], named(cases[1], f"{cases[0].name}_entropy")]
    with pytest.raises(DataError, match="rename one case"):
        predict_cases(giving, both, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_never_has_the_name_of_the_records(predictor, cases, tmp_path):
    exam = named(cases[0], "predictions")
    with pytest.raises(DataError, match="of all cases together"):
        predict_cases(predictor, [exam], tmp_path, also_endings=[".json"])


OUTSIDE = '{"cases": {}, "files": {"../escaped": "phantom_000"}}'


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"cases": [1]}',
        '{"cases": {"a": null}}',
        '{"cases": {}, "files": []}',
        '{"cases": {"../../escaped": {}}}',
        OUTSIDE,
        '"text"',
    ],
)
def test_records_that_no_prediction_wrote_are_left_alone(
    predictor, cases, tmp_path, content
):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "escaped").write_bytes(b"of a person")
    (out / RECORDS).write_text(content)
    with pytest.raises(DataError, match="was not written by a prediction"):
        predict_cases(predictor, cases, out, overwrite=True)
    assert (out / RECORDS).read_text() == content
    assert (tmp_path / "escaped").exists()


def test_a_killed_prediction_owns_what_it_was_about_to_write(
    predictor, cases, tmp_path, monkeypatch
):
    monkeypatch.setattr(PredictionRecords, "save", saving_once(PredictionRecords.save))
    with pytest.raises(KeyboardInterrupt):
        predict_cases(predictor, cases, tmp_path)
    assert (tmp_path / f"{cases[0].name}.nii.gz").exists()
    monkeypatch.undo()
    assert set(predict_cases(predictor, cases, tmp_path)) == {c.name for c in cases}


def test_a_case_that_was_written_before_ctrl_c_is_not_predicted_again(
    predictor, cases, tmp_path, monkeypatch
):
    """Also one that another thread wrote, of which nobody had heard yet."""

    def interrupted(lines, todo, *, abreast):
        lines[0].alone(todo[0])
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(folder, "ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_cases(predictor, cases, tmp_path)
    monkeypatch.undo()
    first, *others = (case.name for case in cases)
    assert set(read_json(tmp_path / RECORDS)["cases"]) == {first}
    asked = []

    def shown(todo, total):
        asked.extend(case.name for case in todo)
        return todo

    predict_cases(predictor, cases, tmp_path, progress=shown)
    assert asked == others


def saving_once(save):
    """The first save is done; at the second the process dies."""
    calls = []

    def once(self):
        calls.append(self)
        if len(calls) > 1:
            raise KeyboardInterrupt
        save(self)

    return once


def test_two_predictions_into_one_folder_keep_the_records_of_each_other(tmp_path):
    model = {"model": "m"}
    first, second = (
        PredictionRecords(tmp_path, model, {"": (), name: (f"{name}.nii.gz",)})
        for name in "ab"
    )
    for records, name in ((first, "a"), (second, "b")):
        records.claim(name)
        records.save()
        records.cases[name] = {"inputs": []}
    first.save()
    second.save()
    content = read_json(tmp_path / RECORDS)
    assert content["cases"] == {"a": {"inputs": []}, "b": {"inputs": []}}
    assert content["files"] == {"a.nii.gz": "a", "b.nii.gz": "b"}


def test_a_file_in_the_place_of_the_folder_is_left_alone(predictor, cases, tmp_path):
    out = tmp_path / "note.txt"
    out.write_text("of a person")
    with pytest.raises(DataError, match="is a file, not a folder"):
        predict_cases(predictor, cases, out, overwrite=True)
    assert out.read_text() == "of a person"


def test_a_case_with_the_longest_name_is_gone_on_with(predictor, cases, tmp_path):
    long = named(cases[0], "x" * LONGEST)
    rich = replace(predictor, extras=Extras(probabilities=True))
    first = predict_cases(rich, [long], tmp_path)
    assert "error" not in first[long.name]
    assert predict_cases(rich, [long], tmp_path) == first


def test_in_a_folder_of_0_1_0_what_a_case_may_have_had_is_its_own(tmp_path):
    for name in file_names("a", ["entropy", "votes"]):
        (tmp_path / name).write_bytes(b"a map")
    (tmp_path / "b.png").write_bytes(b"a figure")
    (tmp_path / "note.txt").write_bytes(b"of a person")
    content = {"cases": {"a": {}, "a_entropy": {}, "b": {}}}
    assert owners_of(content, tmp_path) == {
        "a.nii.gz": "a",
        "a_entropy.nii.gz": "a_entropy",
        "b.png": "b",
    }
