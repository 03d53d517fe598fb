"""Clinical columns as features: numbers, categories, what is not known, what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.datasets.clinical.columns import (
    MOST_CATEGORIES,
    ClinicalColumn,
    clinical_features,
    clinical_flags,
    column_lines,
    columns_of,
    number_in,
)
from trivox.datasets.dataset import Case
from trivox.errors import DataError

AGE = ClinicalColumn(name="age")
SEX = ClinicalColumn(name="sex", categories=("F", "M"))


def cases(texts, classes="abab"):
    return [
        Case(
            name=f"case_{i}",
            images=(),
            class_name=classes[i % len(classes)],
            clinical={"x": text},
        )
        for i, text in enumerate(texts)
    ]


def column(texts, classes="abab"):
    (made,) = columns_of(cases(texts, classes), ["x"])
    return made


def test_numbers_stay_and_categories_become_one_feature_each():
    features = clinical_features([AGE, SEX], {"age": "61.5", "sex": "m"})
    assert features == {
        "clinical age": 61.5,
        "clinical age not known": 0,
        "clinical sex F": 0,
        "clinical sex M": 1,
        "clinical sex not known": 0,
    }
    assert clinical_flags([AGE, SEX], {"age": "61.5", "sex": "m"}) == ()


@given(st.sampled_from(["", " ", "NA", "n/a", "NaN", "nan"]))
def test_what_is_not_known_is_said_and_is_a_feature(text):
    features = clinical_features([AGE, SEX], {"age": text})
    assert math.isnan(features["clinical age"])
    assert features["clinical age not known"] == features["clinical sex not known"] == 1
    assert features["clinical sex F"] == features["clinical sex M"] == 0
    age, sex = clinical_flags([AGE, SEX], {"age": text})
    assert age == "age not known: the usual value is taken"
    assert sex == "sex not known: no category is taken"


def test_a_category_that_was_not_learnt_is_none_and_said():
    features = SEX.features("divers")
    assert not any(features.values())
    assert SEX.flag("divers") == "sex 'divers' was not learnt: no category is taken"


@given(st.text(max_size=30), st.text(max_size=30))
def test_flags_can_stand_beside_each_other_in_one_line(name, text):
    flags = clinical_flags([ClinicalColumn(name=name, categories=("F",))], {name: text})
    assert all(";" not in flag and flag == " ".join(flag.split()) for flag in flags)


@given(st.text(max_size=8), st.text(max_size=8))
def test_the_names_of_features_do_not_depend_on_the_case(one, other):
    assert set(SEX.features(one)) == set(SEX.features(other))


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=9))
def test_columns_of_numbers_are_known_as_such(values):
    texts = [f"{value:g}" for value in values]
    if len({*map(float, texts)}) > 2:
        assert column([*texts, "", "NA"]) == ClinicalColumn(name="x")


def test_columns_of_text_have_the_categories_that_stand_there():
    assert column(["b", "A", "a", "", "b", "c"]).categories == ("A", "b", "c")


REFUSED = {
    "holds nothing for the 3 cases": (["", "NA", "nan"], "ab"),
    "says '7' of all cases": (["7", "7.0", "", "07"], "ab"),
    "says 'yes' of all cases": (["yes", "Yes", "", "YES"], "ab"),
    "says of every case its class (high, low)": (
        ["low", "high", "Low", "HIGH"] * 2,
        "ab",
    ),
    "says of every case its class (0, 1)": (["0", "1", "0.0", "1"] * 2, "ab"),
    "that it is known of (1 of 3)": (["7", "", "NA"], "ab"),
    "different texts": ([f"{i}y" for i in range(MOST_CATEGORIES + 1)], "aabab"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_columns_that_nothing_can_be_learnt_from_are_refused(why):
    texts, classes = REFUSED[why]
    with pytest.raises(DataError) as raised:
        column(texts, classes)
    assert str(raised.value).startswith("clinical column 'x': ")
    assert why in str(raised.value)


@pytest.mark.parametrize(
    "text", ["1_5", "inf", "nan", "-inf", "1e31", "1e300", "", "x"]
)
def test_what_python_takes_for_a_number_is_one_only_if_people_do(text):
    with pytest.raises(ValueError):
        number_in(text)
    assert number_in(" -1.5e3 ") == -1500


def lines(texts, classes="abab"):
    listed = cases(texts, classes)
    return column_lines(listed, columns_of(listed, ["x"]))


def test_how_columns_are_read_is_said():
    assert column_lines([], []) == []
    assert lines(["1", "2", "", "3"]) == ["clinical columns: x: numbers"]
    assert lines(["m", "f", "m", "m"]) == ["clinical columns: x: categories f, m"]
    (line,) = lines(["1", "2", "<5", "1_5"])
    assert line.endswith("categories 1, 1_5, 2, <5 (no numbers, because of 1_5, <5)")


@pytest.mark.parametrize("number", [False, True])
def test_a_finer_spelling_of_the_class_is_said_to_be_one(number):
    texts = ["1", "2", "3", "4"] if number else ["a0", "b0", "a1", "b1"]
    _, warning = lines(texts * 3, "ab")
    assert "'x' tells the class of every case" in warning
    assert len(lines(texts * 2, "ab")) == 1  # too few cases to say so
    assert len(lines(texts * 3 + [texts[1]], "ab")) == 1  # one case contradicts it
    assert len(lines([f"{i}" for i in range(30)], "ab")) == 1  # nothing occurs twice


def test_a_number_far_from_what_was_learnt_is_said():
    assert clinical_flags([AGE, SEX], {"age": "5100"}, beyond={"clinical age"})[0] == (
        "age 5100 lies far from what was learnt"
    )
    assert AGE.flag("51") is None
