"""Training with clinical columns: from the table of classes to figures with and without."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

import trivox
from classed_phantoms import CASES, UNKNOWN, write_classed_phantoms
from trivox.config.recipe import make_recipe
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import FormatError, UsageError
from trivox.files import read_json
from trivox.inference.bundle import read_bundle
from trivox.tasks.console import Quiet
from trivox.tasks.labels import classes, segmentation
from trivox.tasks.labels.classes import WITHOUT_CLINICAL, TrainingRows
from trivox.tasks.labels.held_out_classes import clinical_warnings

pytestmark = pytest.mark.usefixtures("without_figures")

SETTINGS = {
    "network": "unet-tiny",
    "patch_size": [16, 16, 16],
    "batch_size": 2,
    "epochs": 1,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "precision": "fp32",
    "workers": 0,
    "classification.classifier": "lda",
}


class Lines(Quiet):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def rows():
    """Age tells the class but for one case in ten; sex tells nothing."""
    for index in range(CASES):
        name = f"case_{index:02d}"
        truth = "" if index == UNKNOWN else "ab"[index % 2]
        age = 40 + 30 * (index % 2) + index if index != 6 else ""
        yield {"case": name, "class": truth, "age": age, "sex": "fm"[index // 2 % 2]}


def write_table(file, lines):
    lines = list(lines)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classed_phantoms(tmp_path_factory.mktemp("clinical") / "data")


@pytest.fixture(scope="module")
def table(data):
    return write_table(data.parent / "classes.csv", rows())


@pytest.fixture(scope="module")
def run(data, table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "report_run", lambda *given, **options: None)
        trained = trivox.train(
            data,
            data.parent / "run",
            task="multitask",
            preset="quick_test",
            classes=table,
            clinical="age, sex",
            device="cpu",
            set=SETTINGS,
        )
    return trained.folder


@pytest.mark.slow
def test_features_of_columns_are_those_of_the_training_cases(run):
    with np.load(run / "case-features.npz") as stored:
        names = stored["names"].tolist()
        cases = stored["cases"].tolist()
        features = stored["features"]
    expected = {row["case"]: row for row in rows()}
    for case, values in zip(cases, features, strict=True):
        by_name = dict(zip(names, values.tolist(), strict=True))
        age = expected[case]["age"]
        assert by_name["clinical age"] == pytest.approx(age or np.nan, nan_ok=True)
        assert by_name["clinical age not known"] == (age == "")
        assert by_name["clinical sex f"] == (expected[case]["sex"] == "f")


@pytest.mark.slow
def test_the_bundle_says_which_columns_are_read(run):
    description = read_bundle(run).description.classification
    assert [column.name for column in description.clinical] == ["age", "sex"]
    assert description.clinical[0].categories == ()
    assert description.clinical[1].categories == ("f", "m")
    assert trivox.info(run)["clinical"] == ["age", "sex"]


@pytest.mark.slow
def test_figures_with_and_without_them_stand_beside_each_other(run):
    metrics = read_json(run / "validation" / "metrics.json")["classification"]
    named = {row["name"]: row for row in metrics["rows"]}
    assert {"without clinical columns", "clinical columns alone"} <= set(named)
    assert "auc" in named["without clinical columns"]["difference"]
    assert metrics["classifier"]["0"]["clinical"] == ["age", "sex"]


REFUSED = {
    "has no column 'weight'": ("age,weight", FormatError),
    "is the class itself": ("class", FormatError),
    "name columns that a model with classes reads": (" , ", UsageError),
}


@pytest.mark.parametrize("why", REFUSED)
def test_training_refuses_before_anything_is_written(data, table, tmp_path, why):
    columns, kind = REFUSED[why]
    with pytest.raises(kind, match=why):
        trivox.train(
            data, tmp_path / "run", task="multitask", classes=table, clinical=columns
        )
    assert not (tmp_path / "run").exists()


def test_a_segmentation_reads_no_columns(data, table, tmp_path):
    with pytest.raises(UsageError, match="--clinical age"):
        trivox.train(data, tmp_path / "run", classes=table, clinical="age")


def section(auc, without, interval):
    row = {
        "name": "without clinical columns",
        "summary": {"auc": {"value": without}},
        "difference": {"auc": {"ci95": interval}},
    }
    return {"rows": [row], "summary": {"auc": {"value": auc}}}


def test_columns_that_do_not_help_are_said_to():
    assert clinical_warnings({"rows": [], "summary": {}}) == []
    assert clinical_warnings(section(0.9, 0.8, [0.02, 0.2])) == []
    (warning,) = clinical_warnings(section(0.81, 0.8, [-0.1, 0.12]))
    assert "do not measurably help: AUC 0.810 with and 0.800 without" in warning
    (warning,) = clinical_warnings(section(None, None, None))
    assert "AUC unknown with" in warning


@pytest.mark.parametrize("says", [np.nan, 1.0])
def test_columns_that_say_nothing_in_a_fold_do_not_end_its_training(tmp_path, says):
    count = 12
    rng = np.random.default_rng(0)
    told = rng.normal(size=count)
    rows = TrainingRows(
        cases=[Case(name=f"{i}", images=(), patient=f"{i}") for i in range(count)],
        readings=(),
        names=["volume of lesion", "clinical x"],
        features=np.stack([told, np.full(count, says)], axis=1),
        truth=(told > 0).astype(int),
        classes=("a", "b"),
        deep={},
        clinical=["clinical x"],
    )
    labels = LabelScheme(labels={"lesion": 1})
    prepared = SimpleNamespace(plan=SimpleNamespace(labels=labels))
    recipe = make_recipe("quick_test", {"classification": {"clinical": ["x"]}})
    console = Lines()
    answers = classes._fitted(rows, prepared, recipe, tmp_path, "0", console)
    assert answers.file.is_file()
    assert not answers.simpler.keys() & {"clinical columns alone", WITHOUT_CLINICAL}
    assert "fold 0: clinical columns say the same of all" in console.lines[0]
