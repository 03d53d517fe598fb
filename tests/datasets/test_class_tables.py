import json
from collections import Counter
from pathlib import Path

import pytest

from trivox.datasets.class_tables import (
    class_of,
    class_order,
    read_class_table,
    with_classes,
)
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError, FormatError

NAMES = ("quiz_036", "quiz_037", "quiz_038", "quiz_039")


def dataset_of(names=NAMES, patients=None, **fields):
    cases = tuple(
        Case(
            name=name,
            images=(Path(f"/d/{name}_0000.nii.gz"),),
            patient=(patients or {}).get(name, ""),
        )
        for name in names
    )
    return Dataset(
        name="d",
        root=Path("/d"),
        layout="x",
        channels=("CT",),
        labels=LabelScheme(labels={"a": 1}),
        cases=cases,
        **fields,
    )


@pytest.fixture
def table(tmp_path):
    def write(text, name="t.csv", encoding="utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write


def classes_of(dataset):
    return {case.name: case.class_name for case in dataset.cases}


EXPECTED = dict(zip(NAMES, ("1", "0", None, "10"), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "case,class\nquiz_036,1\nquiz_037,0\nquiz_039,10\n",
        "case;class\nquiz_036;1\nquiz_037;0\nquiz_038;\nquiz_039;10\n",
        "Names,Subtype\nquiz_036.nii.gz,1\nquiz_037.nii.gz,0\nquiz_038.nii.gz,NaN\n"
        "quiz_039.nii.gz,10\n",
        "label,case\n1.0,quiz_036\n0.0,quiz_037\nNA,quiz_038\n10.0,quiz_039\n",
        ",path,age,Grade\n0,d/quiz_036_0000.nii.gz,50,1\n1,d/quiz_037_0000.nii.gz,51,0\n"
        "2,d/quiz_039_0000.nii.gz,52,10\n",
        "who,what\nquiz_036,1\nquiz_037,0\nstranger,7\nquiz_039,10\n",
        "case,class,probability_0,flags\nquiz_036,1,0.1,\nquiz_037,0,0.9,no_lesion\n"
        "quiz_039,10,0.2\n",
        "patient,class\nquiz_036,1\n\nquiz_037,0\nquiz_039, 10 \n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_way_to_write_the_table_says_the_same(table, text, encoding):
    dataset = with_classes(dataset_of(), table(text, encoding=encoding))
    assert classes_of(dataset) == EXPECTED
    assert dataset.classes == ("0", "1", "10")


def test_json_says_the_same_as_csv(table):
    dataset = with_classes(
        dataset_of(),
        table(json.dumps({**EXPECTED, "quiz_036": 1, "stranger": "7"}), "t.json"),
    )
    assert classes_of(dataset) == EXPECTED
    assert dataset.classes == ("0", "1", "10")


def test_a_case_that_the_table_does_not_know_has_no_class(table):
    """The seed's script gave it the majority class."""
    dataset = with_classes(
        dataset_of(), table("case,class\nquiz_036,1\nquiz_037,1\nquiz_039,0\n")
    )
    assert classes_of(dataset)["quiz_038"] is None


def test_rows_of_other_cases_are_counted(table):
    file = table("case,class\nquiz_036,1\nother,1\nyet_another,0\n")
    content = read_class_table(file, dataset_of().cases)
    assert (dict(content.classes), content.passed_over) == ({"quiz_036": "1"}, 2)
    assert with_classes(dataset_of(), file).classes == ("1",)


def test_the_table_replaces_classes_but_keeps_their_order(table):
    file = table("case,class\nquiz_036,a\nquiz_037,b\n")
    old = dataset_of(classes=("b", "a"))
    assert with_classes(old, file).classes == ("b", "a")
    assert with_classes(dataset_of(classes=("b", "a", "c")), file).classes == ("a", "b")


def test_a_class_of_a_patient_is_that_of_all_his_cases(table):
    names = ("p1_scan1", "p1_scan2", "p2_scan1")
    dataset = dataset_of(names, {name: name[:2] for name in names})
    graded = with_classes(dataset, table("patient,grade\np1,HGG\np2,LGG\n"))
    assert [*classes_of(graded).values()] == ["HGG", "HGG", "LGG"]


def test_a_blank_row_says_nothing_against_a_filled_one(table):
    for rows in ("quiz_036,\nquiz_036,1\n", "quiz_036,1\nquiz_036,\n"):
        dataset = with_classes(dataset_of(), table("case,class\n" + rows))
        assert classes_of(dataset)["quiz_036"] == "1"


@pytest.mark.parametrize(
    ("text", "kind", "complaint"),
    [
        (
            "case,class\nquiz_036,1\nquiz_036.nii.gz,2\n",
            DataError,
            "quiz_036 is both 1 and 2; remove",
        ),
        (
            "case,class\nnobody,1\nno_one,2\n",
            FormatError,
            r"none of its 2 rows names one of the 4 cases \(such as quiz_036\)",
        ),
        (
            "case,age,weight\nquiz_036,1,2\n",
            FormatError,
            r"which of the columns \['age', 'weight'\] is the class",
        ),
        (
            "case,grade,subtype\nquiz_036,1,2\n",
            FormatError,
            r"columns \['grade', 'subtype'\]",
        ),
        ("case\nquiz_036\n", FormatError, r"found \['case'\]"),
        ("", FormatError, r"found \[\]"),
        ("quiz_036,1\nquiz_037,0\n", FormatError, "no titles"),
        ("case,class\nquiz_036,\n", DataError, "says of none"),
        (
            "case,class,class\nquiz_036,1,2\n",
            FormatError,
            "two columns are titled 'class'",
        ),
        ("case,class\nquiz_036,1,2\n", FormatError, "line 2: 3 cells"),
        (
            "case,class\nquiz_036,HGG\nquiz_037,hgg\n",
            DataError,
            "classes HGG, hgg differ in capitals",
        ),
    ],
)
def test_tables_that_cannot_be_used_say_why(table, text, kind, complaint):
    with pytest.raises(kind, match=complaint) as caught:
        with_classes(dataset_of(), table(text))
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_no_classes_are_refused(table):
    names = [f"case_{i:03d}" for i in range(60)]
    rows = "\n".join(f"{name},{i * 0.37:.2f}" for i, name in enumerate(names))
    with pytest.raises(
        DataError, match=r"60 different classes .* a number, not a class"
    ):
        with_classes(dataset_of(names), table(f"case,class\n{rows}\n"))


def test_files_that_are_no_tables_say_so(table, tmp_path):
    for file, complaint in (
        (tmp_path / "none.csv", "cannot be read"),
        (tmp_path / "none.json", "not found"),
        (table("[1]", "a.json"), "must map cases"),
        (table('{"quiz_036": ["x"]}', "b.json"), "a name or a number"),
        (table("case,class\nquiz_036,gr\u00fcn\n", "l.csv", "latin-1"), "UTF-8"),
    ):
        with pytest.raises(FormatError, match=complaint):
            with_classes(dataset_of(), file)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["subtype10", "subtype0", "subtype2"], ("subtype0", "subtype2", "subtype10")),
        (["10", "2", "0", "-1", "1.5"], ("-1", "0", "1.5", "2", "10")),
        (["LGG", None, "HGG", "LGG"], ("HGG", "LGG")),
        (["b", "A", "7"], ("7", "A", "b")),
    ],
)
def test_classes_are_in_the_order_that_people_sort_them(names, expected):
    assert class_order(names, where="x") == expected
    assert class_order(reversed(names), where="x") == expected


def test_blank_cells_name_no_class():
    assert [
        class_of(cell) for cell in ("", " ", "NA", "n/a", "nan", float("nan"), None)
    ] == [None] * 7
    assert [class_of(cell) for cell in (0, "0", "0.0", 2.0, "None", "1.5")] == [
        "0",
        "0",
        "0",
        "2",
        "None",
        "1.5",
    ]


def test_the_grades_of_brats(data_root):
    dataset = load_dataset(data_root / "brats-cubes")
    graded = with_classes(dataset, data_root / "brats-cubes" / "name_mapping.csv")
    assert graded.classes == ("HGG", "LGG")
    assert Counter(classes_of(graded).values()) == {"HGG": 232, "LGG": 50}
