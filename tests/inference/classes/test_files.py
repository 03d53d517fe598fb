import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import DataError, FormatError
from trivox.inference.classes.files import (
    ClassAnswer,
    class_numbers,
    natural_order,
    read_classes,
    write_classes,
    write_subtype_results,
)

ROWS = [
    ClassAnswer(
        "quiz_10",
        {"HGG": 0.25, "LGG": 0.75},
        ("no lesion, most likely voxels", "low confidence"),
    ),
    ClassAnswer("quiz_2", {"LGG": 1 / 3, "HGG": 2 / 3}),
]
HEADER = "case,class,probability_HGG,probability_LGG,flags"
names = st.text(
    st.characters(categories=("L", "N", "P", "S"), exclude_characters=";"),
    min_size=1,
    max_size=8,
)


def test_classes_are_written_to_the_letter_in_natural_order(tmp_path):
    write_classes(tmp_path / "out" / "classes.csv", ROWS, classes=("HGG", "LGG"))
    assert (tmp_path / "out" / "classes.csv").read_bytes().decode() == (
        f"{HEADER}\nquiz_2,HGG,0.666667,0.333333,\n"
        'quiz_10,LGG,0.250000,0.750000,"no lesion, most likely voxels; low confidence"\n'
    )
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["classes.csv"]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    cases=st.lists(names, min_size=1, max_size=5, unique=True),
    classes=st.lists(names, min_size=2, max_size=4, unique=True),
    seed=st.integers(0, 10**6),
)
def test_what_was_written_is_read(tmp_path_factory, cases, classes, seed):
    chances = (
        np.random.default_rng(seed)
        .dirichlet(np.ones(len(classes)), len(cases))
        .round(6)
    )
    chances[:, 0] += 1 - chances.sum(axis=1)
    rows = [
        ClassAnswer(
            case,
            dict(zip(classes, chance.round(6).tolist(), strict=True)),
            ("flag",) * (i % 2),
        )
        for i, (case, chance) in enumerate(zip(cases, chances, strict=True))
    ]
    file = tmp_path_factory.mktemp("classes") / "classes.csv"
    write_classes(file, rows, classes=classes)
    assert sorted(read_classes(file), key=lambda row: row.case) == sorted(
        rows, key=lambda row: row.case
    )
    turned = read_classes(file, classes=classes[::-1])
    assert all(list(row.probabilities) == classes[::-1] for row in turned)


def test_flags_may_be_missing(tmp_path):
    file = tmp_path / "classes.csv"
    file.write_text("case,class,probability_a,probability_b\nx,a,0.9,0.1\n")
    assert read_classes(file) == (ClassAnswer("x", {"a": 0.9, "b": 0.1}),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the columns are"),
        ("case,class\nx,a\n", "line 1: the columns are"),
        ("class,case,probability_a,probability_b\n", "line 1: the columns are"),
        (f"{HEADER}\n", "no case"),
        (
            f"{HEADER}\nx,HGG,0.9,0.1,\nx,HGG,0.9,0.1,\n",
            "line 3: case 'x' occurs a second time",
        ),
        (
            f"{HEADER}\nx,HGG,0.9,0.2,\n",
            "line 2: the probabilities of 'x' sum to 1.1000",
        ),
        (f"{HEADER}\nx,HGG,much,0.2,\n", "line 2: 'much' is no probability"),
        (f"{HEADER}\nx,HGG,nan,0.2,\n", "line 2: 'nan' is no probability"),
        (
            f"{HEADER}\nx,LGG,0.9,0.1,\n",
            "line 2: class 'LGG' of 'x' is not the most probable",
        ),
        (f"{HEADER}\nx,other,0.9,0.1,\n", "line 2: class 'other'"),
        (f"{HEADER}\n,HGG,0.9,0.1,\n", "line 2: has no case"),
        (f"{HEADER}\nx,HGG,0.9\n", "line 2: '' is no probability"),
    ],
)
def test_malformed_files_name_the_line(tmp_path, text, told):
    file = tmp_path / "classes.csv"
    file.write_text(text)
    with pytest.raises(FormatError, match=told):
        read_classes(file)


def test_classes_that_were_expected_must_be_there(tmp_path):
    file = tmp_path / "classes.csv"
    write_classes(file, ROWS, classes=("HGG", "LGG"))
    with pytest.raises(FormatError, match="expected A, B"):
        read_classes(file, classes=("A", "B"))


def test_rows_that_contradict_the_header_are_refused(tmp_path):
    with pytest.raises(DataError, match="quiz_2: answered twice"):
        write_classes(tmp_path / "c.csv", [ROWS[1], ROWS[1]], classes=("HGG", "LGG"))
    with pytest.raises(DataError, match="quiz_10: has probabilities of HGG, LGG"):
        write_classes(tmp_path / "c.csv", ROWS, classes=("HGG", "other"))
    assert not (tmp_path / "c.csv").exists()


@pytest.mark.parametrize(
    ("classes", "numbers"),
    [
        (("HGG", "LGG"), (0, 1)),
        (("subtype1", "subtype4"), (1, 4)),
        (("7", "2"), (7, 2)),
        (("1", "subtype1"), (0, 1)),
    ],
)
def test_subtype_results_hold_the_numbers_in_the_names_or_the_places(
    tmp_path, classes, numbers
):
    assert tuple(class_numbers(classes).values()) == numbers
    rows = [
        ClassAnswer(f"quiz_{n}", dict(zip(classes, chance, strict=True)))
        for n, chance in ((37, (0.1, 0.9)), (4, (0.8, 0.2)))
    ]
    write_subtype_results(
        tmp_path / "subtype_results.csv", rows, classes=classes, ending=".nii.gz"
    )
    expected = (
        f"Names,Subtype\nquiz_4.nii.gz,{numbers[0]}\nquiz_37.nii.gz,{numbers[1]}\n"
    )
    assert (tmp_path / "subtype_results.csv").read_bytes().decode() == expected


def test_natural_order():
    assert sorted(["b", "a10", "a9", "10", "9x", "a"], key=natural_order) == [
        "9x",
        "10",
        "a",
        "a9",
        "a10",
        "b",
    ]
