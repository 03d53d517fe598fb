"""Tables with clinical columns: to learn from, and of cases that are predicted."""

import pytest

from trivox.datasets.class_tables import with_classes
from trivox.datasets.clinical.columns import ClinicalColumn
from trivox.datasets.clinical.tables import read_clinical, with_clinical
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, FormatError, UsageError

COLUMNS = (
    ClinicalColumn(name="age"),
    ClinicalColumn(name="sex", categories=("f", "m")),
)
TABLE = """case,class,age,sex,patient_id,site
case_0,a,61,f,p0,x
case_1.nii.gz,b,,m,p1,x
case_2_0000.nii.gz,a,45.5,,p2,x
case_3,b,70,m,p3,x
"""


@pytest.fixture
def dataset(tmp_path):
    return Dataset(
        name="d",
        root=tmp_path,
        layout="manifest",
        channels=("CT",),
        labels=LabelScheme(labels={"lesion": 1}),
        cases=tuple(
            Case(name=f"case_{i}", images=(), patient=f"p{i}") for i in range(4)
        ),
    )


def written(tmp_path, text=TABLE, name="table.csv"):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def learnt(dataset, file, *wanted):
    return with_clinical(with_classes(dataset, file), file, wanted)


def test_cells_come_to_their_cases_and_no_other_columns_do(dataset, tmp_path):
    made = learnt(dataset, written(tmp_path), "age", "sex")
    assert [case.clinical for case in made.cases] == [
        {"age": "61", "sex": "f"},
        {"age": "", "sex": "m"},
        {"age": "45.5", "sex": ""},
        {"age": "70", "sex": "m"},
    ]


def test_without_columns_nothing_is_read(dataset):
    assert with_clinical(dataset, None, ()) is dataset


REFUSED = {
    "has no column 'weight'; it has case, class, age": (["age", "weight"], FormatError),
    "'class' is the class itself": (["class"], FormatError),
    "'case' names the cases": (["case"], FormatError),
    "'patient_id' names cases or patients": (["age", "patient_id"], FormatError),
    "'site': says 'x' of all cases": (["site"], DataError),
}


@pytest.mark.parametrize("why", REFUSED)
def test_columns_that_are_no_features_are_refused(dataset, tmp_path, why):
    wanted, kind = REFUSED[why]
    with pytest.raises(kind) as raised:
        learnt(dataset, written(tmp_path), *wanted)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_table_has_to_be_given_and_be_one(dataset, tmp_path):
    for table in (None, tmp_path / "classes.json"):
        with pytest.raises(UsageError, match=r"add --classes TABLE.csv"):
            with_clinical(dataset, table, ["age"])


def test_a_saved_dataset_has_its_cells_already(dataset, tmp_path):
    made = learnt(dataset, written(tmp_path), "age", "sex")
    assert with_clinical(made, None, ("age",)) is made
    with pytest.raises(UsageError, match=r"add --classes TABLE.csv"):
        with_clinical(made, None, ("age", "weight"))


def test_rows_that_contradict_each_other_are_refused(dataset, tmp_path):
    file = written(tmp_path, TABLE + "p0,a,62,f,p0,x\n")
    with pytest.raises(DataError, match="line 6: says other things of case_0"):
        learnt(dataset, file, "age")


def test_cases_to_predict_are_known_by_name_file_or_patient(tmp_path):
    text = "name;age;sex\ncase_1_0000.nii.gz;50;F\np7;;divers\n"
    table = read_clinical(written(tmp_path, text), COLUMNS)
    assert table.of(Case(name="case_1", images=())) == {"age": "50", "sex": "F"}
    of_patient = table.of(Case(name="case_8", images=(), patient="p7"))
    assert of_patient == {"age": "", "sex": "divers"}
    assert table.of(Case(name="case_9", images=())) == {}


PROBLEMS = {
    "has no column 'sex', which the model reads": "case,age\na,1\n",
    "line 3: age is '62 years', the model learnt numbers": "case,age,sex\na,1,f\nb,62 "
    "years,m\n",
    "line 2: age is 'inf', the model": "case,age,sex\na,inf,f\n",
    "line 3: 'a' occurs a second time": "case,age,sex\na,1,f\na,2,f\n",
    "the model reads; it has case, Age, sex": "case,Age,sex\na,1,f\n",
    "has no column beside age, sex; add one titled 'case'": "age,sex\n1,f\n",
}


@pytest.mark.parametrize("why", PROBLEMS)
def test_tables_that_a_model_cannot_read_are_refused(tmp_path, why):
    with pytest.raises(FormatError) as raised:
        read_clinical(written(tmp_path, PROBLEMS[why]), COLUMNS)
    assert why in str(raised.value)


def test_another_table_is_another_setting(tmp_path):
    one, same, other = (
        read_clinical(
            written(tmp_path, f"case,age,sex\na,{age},f\n", f"{n}.csv"), COLUMNS
        )
        for n, age in enumerate((1, 1, 2))
    )
    assert one.identity == same.identity != other.identity


def predicted(*names):
    return [Case(name=name, images=(), patient=f"of {name}") for name in names]


@pytest.mark.parametrize(
    "row", ["case_0.nii.gz,2,f", "case_0_0000.nii.gz,2,f", "of case_0,2,f"]
)
def test_rows_of_one_case_may_not_contradict_each_other(tmp_path, row):
    table = read_clinical(
        written(tmp_path, f"case,age,sex\ncase_0,1,f\n{row}\n"), COLUMNS
    )
    with pytest.raises(DataError, match="line 3: says other things of case_0 than"):
        table.require_clear(predicted("case_0", "case_1"))
    table.require_clear(predicted("case_1"))


def test_a_row_is_of_the_case_that_it_names_best(tmp_path):
    rows = "scan_0001,1,f\nscan,2,f\nscan_0001.nii,1,f\n"
    table = read_clinical(written(tmp_path, f"case,age,sex\n{rows}"), COLUMNS)
    numbered, plain = predicted("scan_0001", "scan")
    table.require_clear([numbered, plain])
    assert table.of(numbered)["age"] == "1"
    assert table.of(plain)["age"] == "2"


@pytest.mark.parametrize("titles", ["patient,case", "case,patient"])
def test_all_columns_that_name_cases_are_looked_at(tmp_path, titles):
    rows = [{"case": f"case_{i}", "patient": "p"} for i in range(2)]
    text = [f"{titles},age,sex"]
    for age, row in enumerate(rows):
        names = ",".join(row[title] for title in titles.split(","))
        text.append(f"{names},{age},f")
    table = read_clinical(written(tmp_path, "\n".join(text)), COLUMNS)
    cases = [Case(name=f"case_{i}", images=(), patient="p") for i in range(2)]
    table.require_clear(cases)
    assert [table.of(case)["age"] for case in cases] == ["0", "1"]


def test_cases_without_a_row_are_said(tmp_path):
    text = "case,age,sex\ncase_0,1,f\n,7,f\n"
    table = read_clinical(written(tmp_path, text), COLUMNS)
    assert table.lines(predicted("case_0")) == []
    (some,) = table.lines(predicted("case_0", "case_1"))
    assert "has no row of 1 of 2 cases (case_1)" in some
    (none,) = table.lines(predicted("scan_0", "scan_1"))
    assert "none of its 1 rows names one of the 2 cases (such as scan_0)" in none
