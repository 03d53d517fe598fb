import json

import numpy as np
import pytest

from class_predictions import SUBTYPES, constant_predictions, drawn_predictions
from trivox.errors import DataError
from trivox.evaluation.folders.class_section import classification_section
from trivox.evaluation.metrics.classification import (
    ClassPredictions,
    ClassScores,
    measure_classes,
)

GOOD = drawn_predictions((40, 60, 50), sharpness=3, classes=SUBTYPES)


def answering(counts, classes=SUBTYPES):
    """Perfect answers, except that the last class is answered as the first."""
    truth = np.repeat(np.arange(len(counts)), counts)
    answer = np.where(truth == len(counts) - 1, 0, truth)
    names = tuple(f"c{i}" for i in range(len(truth)))
    return ClassPredictions(
        names, truth, np.eye(len(counts))[answer] * 0.9 + 0.1 / len(counts), classes
    )


def test_section_is_json_that_holds_what_the_contract_names():
    some = drawn_predictions((9, 15, 12), classes=SUBTYPES, unknown=2)
    section = classification_section(
        some,
        seed=0,
        rows={"head": GOOD_ON_36},
        resubstitution=GOOD,
        classifier={"0": {"kind": "lda"}},
        folds={some.names[0]: "3"},
        flags={some.names[1]: ["no lesion"]},
        warnings=["look"],
    )
    assert set(section) == {
        "convention",
        "classes",
        "cases",
        "summary",
        "rows",
        "resubstitution",
        "gap",
        "classifier",
        "warnings",
    }
    assert section == json.loads(json.dumps(section, allow_nan=False))
    assert section["summary"] == measure_classes(some, seed=0)
    case = section["cases"][some.names[0]]
    assert set(case) == {"class", "answer", "probabilities", "fold", "flags"}
    assert (case["fold"], section["cases"][some.names[1]]["flags"]) == (
        "3",
        ["no lesion"],
    )
    assert section["cases"][some.names[-1]]["class"] is None
    assert case["answer"] == max(case["probabilities"], key=case["probabilities"].get)
    assert section["warnings"][0] == "look"


GOOD_ON_36 = drawn_predictions((9, 15, 12), sharpness=3, classes=SUBTYPES, unknown=2)


def test_rows_stand_beside_the_model_on_the_same_cases_in_any_order():
    some = drawn_predictions((9, 15, 12), classes=SUBTYPES, unknown=2)
    order = np.random.default_rng(0).permutation(len(some.names))
    shuffled = ClassPredictions(
        tuple(GOOD_ON_36.names[i] for i in order),
        np.full(38, -1),
        GOOD_ON_36.probabilities[order],
        SUBTYPES,
    )
    this, majority, head = classification_section(
        some, seed=0, rows={"head": shuffled}
    )["rows"]
    assert [row["name"] for row in (this, majority, head)] == [
        "this model",
        "majority answer",
        "head",
    ]
    assert "difference" not in this
    assert majority["summary"]["macro_f1"]["value"] == pytest.approx(0.196, abs=0.001)
    aligned = ClassPredictions(
        some.names, some.truth, GOOD_ON_36.probabilities, SUBTYPES
    )
    assert head["summary"] == measure_classes(aligned, seed=0)
    assert head["difference"] == ClassScores.of(some, seed=0).difference(
        ClassScores.of(aligned, seed=0)
    )


def test_a_row_that_lacks_a_case_is_refused():
    with pytest.raises(DataError, match="'head' lacks quiz_03"):
        classification_section(GOOD, seed=0, rows={"head": GOOD_ON_36})
    other = ClassPredictions(
        GOOD.names, GOOD.truth, GOOD.probabilities, ("a", "b", "c")
    )
    with pytest.raises(DataError, match="has the classes a, b, c"):
        classification_section(GOOD, seed=0, rows={"head": other})


def test_majority_is_that_of_the_training_cases():
    majority = classification_section(GOOD, seed=0, training=np.zeros(5, int))["rows"][
        1
    ]
    assert majority["summary"]["recall"]["subtype0"]["value"] == 1


def test_gap_is_what_the_fitted_cases_flatter():
    poor = drawn_predictions((40, 60, 50), sharpness=0.5, classes=SUBTYPES)
    section = classification_section(poor, seed=0, resubstitution=GOOD)
    fitted = measure_classes(GOOD, seed=0)
    for name in ("macro_f1", "auc"):
        value = fitted[name]["value"]
        other = section["summary"][name]["value"]
        assert section["resubstitution"][name] == value
        assert section["gap"][name] == pytest.approx(value - other)
    assert any(warning.startswith("learnt by heart") for warning in section["warnings"])
    without = classification_section(GOOD, seed=0)
    assert without["resubstitution"] is without["gap"] is None


def warned(predictions, **more):
    return " ".join(classification_section(predictions, seed=0, **more)["warnings"])


def test_a_good_model_on_many_cases_has_no_warnings():
    assert warned(GOOD, resubstitution=GOOD) == ""


def test_warnings_name_what_is_wrong_and_what_to_try():
    never = warned(answering((40, 50, 30)))
    assert "never answered: subtype2, the class of 30 of 120 cases" in never
    assert "classification.classifier=lda" in never
    assert "too few" not in never
    assert "4 cases are too few to compare models on" in warned(
        answering((2, 2)[:2], classes=("a", "b"))
    )
    assert "no case has the class subtype2" in warned(
        constant_predictions((9, 9, 0), [0.6, 0.3, 0.1])
    )
    collapsed = warned(constant_predictions((9, 15, 12), [0.2, 0.5, 0.3]))
    assert "never answered: subtype0, subtype2" in collapsed
    assert "not measurably above that of the majority answer" in collapsed
