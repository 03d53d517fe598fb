from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.dataset import Case
from trivox.datasets.splits import Split, deal_folds, make_splits
from trivox.errors import DataError, RecipeError

patients_strategy = st.lists(st.integers(1, 4), min_size=2, max_size=12)


def make_cases(sizes):
    cases = []
    for i, size in enumerate(sizes):
        for j in range(size):
            name = f"case_{i:02d}_{j}"
            cases.append(Case(name=name, images=(Path("/x.nii"),), patient=f"p{i}"))
    return cases


def require_patients_apart(split, cases):
    patient = {case.name: case.patient for case in cases}
    train = {patient[name] for name in split.train}
    validation = {patient[name] for name in split.validation}
    assert not train & validation


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes=patients_strategy, folds=st.integers(2, 6), seed=st.integers(0, 1000))
def test_folds_partition_the_cases_by_patient(sizes, folds, seed):
    cases = make_cases(sizes)
    names = sorted(case.name for case in cases)
    splits = make_splits(cases, folds=folds, seed=seed)
    assert len(splits) == min(folds, len(sizes))
    assert sorted(chain(*(split.validation for split in splits))) == names
    for split in splits:
        assert sorted([*split.train, *split.validation]) == names
        require_patients_apart(split, cases)
        assert split.train
        assert split.validation
    counts = [len(split.validation) for split in splits]
    assert max(counts) - min(counts) <= max(sizes)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(sizes=patients_strategy, random=st.randoms(use_true_random=False))
def test_order_of_cases_does_not_matter(sizes, random):
    cases = make_cases(sizes)
    shuffled = random.sample(cases, len(cases))
    assert make_splits(shuffled) == make_splits(cases)


def test_folds_are_those_of_nnunet():
    """RandomState(12345).permutation(7) is 6 3 4 | 0 1 | 5 2; the first n % k folds are
    larger. scikit-learn agrees.
    """
    cases = make_cases([1] * 7)
    names = sorted(case.name for case in cases)
    first, second, third = make_splits(cases, folds=3)
    assert first.validation == (names[3], names[4], names[6])
    assert second.validation == (names[0], names[1])
    assert third.validation == (names[2], names[5])


def test_folds_equal_the_definition_of_kfold():
    cases = make_cases([1] * 23)
    names = np.array(sorted(case.name for case in cases))
    indices = np.arange(23)
    np.random.RandomState(12345).shuffle(indices)
    start = 0
    for split, size in zip(make_splits(cases), [5, 5, 5, 4, 4], strict=True):
        held_out = np.isin(np.arange(23), indices[start : start + size])
        assert split == Split(
            tuple(names[~held_out].tolist()), tuple(names[held_out].tolist())
        )
        start += size


def test_one_patient_or_one_fold_cannot_be_split():
    with pytest.raises(DataError, match="1 patients"):
        make_splits(make_cases([3]))
    with pytest.raises(RecipeError, match="folds=1"):
        make_splits(make_cases([1, 1]), folds=1)


# --- classes
def classified(classes, sizes=None):
    """One patient a class name given, with as many cases as `sizes` says."""
    cases = make_cases(sizes or [1] * len(classes))
    return [
        case.model_copy(update={"class_name": classes[int(case.patient[1:])]})
        for case in cases
    ]


classes_strategy = st.lists(
    st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=40
).filter(any)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    classes=classes_strategy,
    folds=st.integers(2, 6),
    random=st.randoms(use_true_random=False),
)
def test_classes_are_spread_evenly_over_folds(classes, folds, random):
    cases = classified(classes)
    splits = make_splits(cases, folds=folds)
    assert make_splits(random.sample(cases, len(cases)), folds=folds) == splits
    validated = sorted(chain(*(split.validation for split in splits)))
    assert validated == sorted(case.name for case in cases)
    sizes = [len(split.validation) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for class_name in set(classes):
        members = {case.name for case in cases if case.class_name == class_name}
        counts = [len(members & set(split.validation)) for split in splits]
        assert max(counts) - min(counts) <= 1
        if len(members) > 1:
            assert all(members & set(split.train) for split in splits)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=4, max_size=14),
    folds=st.integers(2, 5),
    data=st.data(),
)
def test_a_class_of_two_patients_is_in_every_training_set(sizes, folds, data):
    classes = data.draw(
        st.lists(st.sampled_from("ab"), min_size=len(sizes), max_size=len(sizes))
    )
    cases = classified(classes, sizes)
    class_of = {case.name: case.class_name for case in cases}
    for split in make_splits(cases, folds=folds):
        assert split.validation
        require_patients_apart(split, cases)
        learnt = {class_of[name] for name in split.train}
        for class_name in set(classes):
            assert classes.count(class_name) == 1 or class_name in learnt


@pytest.mark.parametrize("seed", range(6))
def test_a_patient_of_several_classes_counts_with_the_rarest(seed):
    """Eight common patients, and two whose second case is the only kind of its class:
    they may not share a fold.
    """
    cases = classified(["common"] * 10, [2] * 10)
    rare = {"case_04_1", "case_09_1"}
    cases = [
        case.model_copy(update={"class_name": "rare"}) if case.name in rare else case
        for case in cases
    ]
    for split in make_splits(cases, folds=2, seed=seed):
        assert len(rare & set(split.validation)) == 1


def test_folds_without_classes_stay_as_they_were():
    cases = make_cases([1] * 7)
    assert make_splits(cases) != make_splits(classified([*"aabbabb"]))
    assert make_splits(cases, folds=3)[0].validation == (
        "case_03_0",
        "case_04_0",
        "case_06_0",
    )


def test_folds_of_names_are_those_of_cases():
    cases = classified([*"aabbabb"], [2, 1, 3, 1, 1, 2, 1])
    parts = deal_folds(
        [case.name for case in cases],
        patients=[case.patient for case in cases],
        classes=[case.class_name for case in cases],
        folds=3,
        seed=4,
    )
    splits = make_splits(cases, folds=3, seed=4)
    assert [tuple(sorted(part)) for part in parts] == [
        split.validation for split in splits
    ]


def test_a_declared_validation_split_is_the_only_fold():
    cases = [
        case.model_copy(update={"split": "validation" if i % 3 == 0 else "train"})
        for i, case in enumerate(classified([*"aabbab"]))
    ]
    (split,) = make_splits(cases[::-1])
    assert split == Split(
        ("case_01_0", "case_02_0", "case_04_0", "case_05_0"), ("case_00_0", "case_03_0")
    )


def test_a_declared_split_that_no_training_can_follow():
    cases = make_cases([2, 1])
    leak = [cases[0].model_copy(update={"split": "validation"}), *cases[1:]]
    with pytest.raises(
        DataError,
        match=r"patient 'p0' is on both sides .* case_00_0 \(validation\), case_00_1 "
        r"\(train\)",
    ):
        make_splits(leak)
    with pytest.raises(DataError, match="all 3 cases are declared as validation"):
        make_splits([case.model_copy(update={"split": "validation"}) for case in cases])
