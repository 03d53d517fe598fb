from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets import Case, Split, make_splits
from trivox.errors import DataError, RecipeError

patients_strategy = st.lists(st.integers(1, 4), min_size=2, max_size=12)


def make_cases(sizes):
    return [
        Case(name=f"case_{i:02d}_{j}", images=(Path("/x.nii"),), patient=f"p{i}")
        for i, size in enumerate(sizes)
        for j in range(size)
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes=patients_strategy, folds=st.integers(2, 6), seed=st.integers(0, 1000))
def test_folds_partition_the_cases_by_patient(sizes, folds, seed):
    cases = make_cases(sizes)
    patient = {case.name: case.patient for case in cases}
    splits = make_splits(cases, folds=folds, seed=seed)
    assert len(splits) == min(folds, len(sizes))
    assert sorted(name for split in splits for name in split.validation) == sorted(patient)
    for split in splits:
        assert sorted([*split.train, *split.validation]) == sorted(patient)
        assert not {patient[name] for name in split.train} & {patient[name] for name in split.validation}
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
    """RandomState(12345).permutation(7) is 6 3 4 | 0 1 | 5 2; the first n % k folds are larger. scikit-learn agrees."""
    cases = make_cases([1] * 7)
    names = sorted(case.name for case in cases)
    chunks = [[3, 4, 6], [0, 1], [2, 5]]
    assert [split.validation for split in make_splits(cases, folds=3)] == [tuple(names[i] for i in c) for c in chunks]


def test_folds_equal_the_definition_of_kfold():
    cases = make_cases([1] * 23)
    names = np.array(sorted(case.name for case in cases))
    indices = np.arange(23)
    np.random.RandomState(12345).shuffle(indices)
    start = 0
    for split, size in zip(make_splits(cases), [5, 5, 5, 4, 4], strict=True):
        held_out = np.isin(np.arange(23), indices[start : start + size])
        assert split == Split(tuple(names[~held_out].tolist()), tuple(names[held_out].tolist()))
        start += size


def test_one_patient_or_one_fold_cannot_be_split():
    with pytest.raises(DataError, match="1 patients"):
        make_splits(make_cases([3]))
    with pytest.raises(RecipeError, match="folds=1"):
        make_splits(make_cases([1, 1]), folds=1)
