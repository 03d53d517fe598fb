"""Answers of a model that reads clinical columns beside the image: what a table says, and
what nobody says.
"""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import save_file

import trivox
from trivox.datasets.clinical.columns import ClinicalColumn
from trivox.datasets.dataset import Case
from trivox.errors import FormatError, UsageError
from trivox.files import file_hash
from trivox.inference.bundle import read_bundle, write_bundle
from trivox.inference.classes.files import read_classes
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.networks.class_head import LesionMasks, add_class_head
from trivox.tasks.choice import task_of
from trivox.tasks.console import Quiet
from trivox.tasks.task import PredictOptions
from untrained_models import plan_of, untrained, write_scans, write_untrained

LESION = (2,)
COLUMNS = (
    ClinicalColumn(name="age"),
    ClinicalColumn(name="sex", categories=("f", "m")),
)
NAMES = ("clinical age", "clinical sex f", "volume of lesion")


class Lines(Quiet):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Its class is b for those older than 60, men a little rather."""
    folder = tmp_path_factory.mktemp("clinical")
    plan = plan_of().model_copy(update={"task": "multitask"})
    network = add_class_head(
        untrained(plan, balanced=True),
        plan.topology,
        name=plan.network,
        channels=1,
        classes=2,
        masks=LesionMasks.of(plan.labels, LESION, plan.spacing),
        width=8,
    )
    save_file(network.state_dict(), folder / "weights.safetensors")
    layer = (np.array([[0.0, 0.0, 0.0], [1.0, -0.5, 0.0]]), np.zeros(2))
    classifier = CaseClassifier(
        names=NAMES,
        fill=np.array([60.0, 0.0, 1.0]),
        mean=np.array([60.0, 0.0, 1.0]),
        scale=np.array([10.0, 1.0, 1.0]),
        networks=((layer,),),
        temperature=1.0,
        classes=("a", "b"),
    )
    classifier.save(folder / "classifier.safetensors")
    description = LabelDescription(
        task="multitask",
        plan=plan,
        classification=ClassDescription(
            classes=("a", "b"), lesion=LESION, width=8, clinical=COLUMNS
        ),
    )
    write_bundle(
        folder / "bundle",
        description,
        {"0": folder / "weights.safetensors"},
        classifiers={"0": folder / "classifier.safetensors"},
    )
    return folder / "bundle"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_scans(folder, (20, 20, 20), (20, 20, 20))
    return folder


def line(case, age, sex):
    return {"case": case, "age": age, "sex": sex}


def predicted(model, scans, out, *lines):
    """Answers to the scans by what a table says of them."""
    table = None
    if lines:
        table = out.parent / f"{out.name}.csv"
        with table.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    trivox.predict(model, scans, out, clinical=table, device="cpu")
    return {answer.case: answer for answer in read_classes(out / "classes.csv")}


def expected(age, woman=0.0):
    return 1 / (1 + np.exp(-((age - 60) / 10 - 0.5 * woman)))


def test_what_a_table_says_decides_the_answer(model, scans, tmp_path):
    lines = (line("scan_0", "45", "f"), line("scan_1.nii.gz", "83.5", "M"))
    answers = predicted(model, scans, tmp_path / "out", *lines)
    chances = {name: answer.probabilities["b"] for name, answer in answers.items()}
    assert chances["scan_0"] == pytest.approx(expected(45, woman=1), abs=2e-6)
    assert chances["scan_1"] == pytest.approx(expected(83.5), abs=2e-6)
    assert answers["scan_0"].flags == answers["scan_1"].flags == ()


def test_what_is_not_known_is_filled_in_and_said(model, scans, tmp_path):
    answers = predicted(model, scans, tmp_path / "out", line("scan_0", "", "x"))
    assert answers["scan_0"].probabilities["b"] == pytest.approx(0.5)
    assert answers["scan_0"].flags == (
        "age not known: the usual value is taken",
        "sex 'x' was not learnt: no category is taken",
    )
    # no row at all
    assert answers["scan_1"].flags == (
        "age not known: the usual value is taken",
        "sex not known: no category is taken",
    )


def test_a_number_far_from_those_learnt_from_is_said(model, scans, tmp_path):
    lines = (line("scan_0", "99", "f"), line("scan_1", "101", "f"))
    answers = predicted(model, scans, tmp_path / "out", *lines)
    assert answers["scan_0"].flags == ()
    assert answers["scan_1"].flags == ("age 101 lies far from what was learnt",)


@pytest.fixture(scope="module")
def of_age(model, tmp_path_factory):
    """The same model without the column that it asks for last."""
    folder = tmp_path_factory.mktemp("of age") / "bundle"
    shutil.copytree(model, folder)
    content = json.loads((folder / "bundle.json").read_text())
    del content["classification"]["clinical"][1]
    weights = np.array([[0.0, 0.0], [1.0, 0.0]])
    classifier = replace(
        CaseClassifier.load(next(folder.glob("classifier*"))),
        names=(NAMES[0], NAMES[2]),
        fill=np.array([60.0, 1.0]),
        mean=np.array([60.0, 1.0]),
        scale=np.array([10.0, 1.0]),
        networks=(((weights, np.zeros(2)),),),
    )
    file = next(folder.glob("classifier*"))
    classifier.save(file)
    digest = file_hash(file)
    content["classification"]["classifiers"][0]["sha256"] = digest
    (folder / "bundle.json").write_text(json.dumps(content))
    return folder


def test_models_that_vote_each_read_their_columns_in_any_order(
    model, of_age, scans, tmp_path
):
    lines = (line("scan_0", "45", "f"), line("scan_1", "83.5", "M"))
    answers = []
    for number, models in enumerate(([model, of_age], [of_age, model])):
        answers.append(predicted(models, scans, tmp_path / f"{number}", *lines))
    for case in ("scan_0", "scan_1"):
        first, second = (each[case] for each in answers)
        assert first.flags == second.flags == ()
        assert first.probabilities == pytest.approx(second.probabilities)


def test_a_table_that_is_given_decides_what_is_known(model, scans, tmp_path):
    predictor = task_of(model).predictor([model], PredictOptions(clinical=None))
    said = {"age": "50", "sex": "f"}
    case = Case(name="scan_0", images=(scans / "scan_0.nii.gz",), clinical=said)
    assert predictor.extras.cells(case) == said
    (tmp_path / "t.csv").write_text("case,age,sex\nscan_0,,m\n")
    asked = PredictOptions(clinical=tmp_path / "t.csv")
    predictor = task_of(model).predictor([model], asked)
    assert predictor.extras.cells(case) == {"age": "", "sex": "m"}


def test_a_table_of_other_cases_is_said(model, scans, tmp_path):
    (tmp_path / "t.csv").write_text("case,age,sex\nsomebody,50,m\n")
    console = Lines()
    trivox.predict(
        model, scans, tmp_path / "out", clinical=tmp_path / "t.csv", console=console
    )
    assert any(
        "none of its 1 rows names one of the 2 cases" in x for x in console.lines
    )


def test_without_a_table_nothing_is_known_of_any_case(model, scans, tmp_path):
    answers = predicted(model, scans, tmp_path / "out")
    assert {len(answer.flags) for answer in answers.values()} == {2}
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert "age not known" in str(record["cases"]["scan_0"]["class"]["flags"])


def test_another_table_is_predicted_anew(model, scans, tmp_path):
    out = tmp_path / "out"
    before = predicted(model, scans, out, line("scan_0", 40, "f"))
    after = predicted(model, scans, out, line("scan_0", 90, "f"))
    assert before["scan_0"].answer == "a"
    assert after["scan_0"].answer == "b"


def test_a_table_that_the_model_cannot_read_is_one_line(model, scans, tmp_path):
    with pytest.raises(FormatError, match="age is 'old', the model learnt numbers"):
        predicted(model, scans, tmp_path / "out", line("scan_0", "old", "f"))
    assert not (tmp_path / "out").exists()


def test_the_bundle_and_info_say_which_columns_are_read(model):
    assert read_bundle(model).description.classification.clinical == COLUMNS
    assert trivox.info(model)["clinical"] == ["age", "sex"]


def test_a_model_that_reads_none_refuses_a_table(scans, tmp_path):
    plain = write_untrained(tmp_path / "plain")
    (tmp_path / "t.csv").write_text("case,age\n")
    with pytest.raises(UsageError, match="reads no clinical columns"):
        trivox.predict(plain, scans, tmp_path / "out", clinical=tmp_path / "t.csv")


def test_bundles_without_columns_are_written_as_before(model):
    written = json.loads((model / "bundle.json").read_text())
    assert [each["name"] for each in written["classification"]["clinical"]] == [
        "age",
        "sex",
    ]
    without = ClassDescription(classes=("a", "b"), lesion=LESION, width=8)
    assert "clinical" not in without.model_dump(mode="json")


def test_an_export_refuses_what_it_could_not_be_given(model, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    with pytest.raises(UsageError, match=r"reads clinical columns \(age, sex\)"):
        trivox.export(model, tmp_path / "export", to="onnx")
    assert not (tmp_path / "export").exists()
