"""Images without labels beside the cases of a dataset."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loss_cases import few
from trivox.config.options import DistillationOptions
from trivox.datasets.dataset import Case, Dataset, Fold
from trivox.datasets.labels import LabelScheme
from trivox.datasets.splits import dataset_splits
from trivox.errors import DataError, FormatError
from trivox.tasks.console import Quiet
from trivox.tasks.unlabelled import with_unlabelled

names = st.sets(
    st.sampled_from([f"case_{i}" for i in range(6)] + ["unlabelled_case_1"])
)


def dataset(root, labelled, unlabelled=(), **settings):
    cases = [
        Case(name=name, images=(root / f"{name}.nii.gz",), label=root / "label.nii.gz")
        for name in sorted(labelled)
    ]
    cases += [
        Case(name=name, images=(root / f"{name}.nii.gz",), split="test")
        for name in sorted(unlabelled)
    ]
    return Dataset(
        name="data",
        root=root,
        layout="folders",
        channels=("MRI",),
        labels=LabelScheme(labels={"organ": 1}),
        cases=tuple(cases),
        **settings,
    )


def joined(data, images):
    options = DistillationOptions(teachers=("run",), unlabelled=str(images))
    return with_unlabelled(data, options, Quiet())


@few
@given(names.filter(bool), names.filter(bool))
def test_images_join_under_names_of_their_own_and_change_nothing_else(known, new):
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        for name in new:
            (images / f"{name}.nii.gz").touch()
        data = dataset(Path("/data"), known)
        cases = joined(data, images).cases
    assert cases[: len(known)] == data.cases
    assert len({case.name for case in cases}) == len(known) + len(new)
    added = cases[len(known) :]
    assert all(case.taught and case.label is None for case in added)
    assert {case.images[0].name for case in added} == {f"{n}.nii.gz" for n in new}


@few
@given(st.integers(2, 9), st.integers(0, 4), st.booleans())
def test_what_is_held_out_does_not_depend_on_images_without_labels(
    count, more, declared
):
    labelled = [f"case_{number}" for number in range(count)]
    fold = Fold(train=tuple(labelled[1:]), validation=tuple(labelled[:1]))
    data = dataset(Path("/data"), labelled, folds=(fold,) if declared else ())
    extra = [
        Case(name=f"image_{number}", images=(Path(f"/i{number}.nii.gz"),), taught=True)
        for number in range(more)
    ]
    fuller = data.model_copy(update={"cases": (*extra, *data.cases)})
    for split, before in zip(dataset_splits(fuller), dataset_splits(data), strict=True):
        assert split.validation == before.validation
        wanted = {*before.train, *(case.name for case in extra)}
        assert split.train == tuple(sorted(wanted))


def test_files_with_labels_are_left_out_and_test_images_without_are_taken(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.nii.gz").touch()
    data = dataset(tmp_path, ["a", "b"], ["c"])
    cases = {case.name: case for case in joined(data, tmp_path).cases}
    assert list(cases) == ["a", "b", "c"]
    assert [name for name, case in cases.items() if case.taught] == ["c"]
    assert cases["c"].split == "train"


def test_nothing_to_learn_is_said(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    data = dataset(tmp_path, ["a"])
    with pytest.raises(DataError, match="leave --unlabelled out"):
        joined(data, tmp_path)
    with pytest.raises(FormatError, match="not found"):
        joined(data, tmp_path / "nowhere")


def test_images_that_another_run_was_taught_with_are_forgotten(tmp_path):
    (tmp_path / "b.nii.gz").touch()
    images = tmp_path / "b.nii.gz"
    again = joined(dataset(Path("/data"), ["a"]), images)
    assert len(again.training_cases) == 2
    plain = with_unlabelled(again, DistillationOptions(), Quiet())
    assert [case.name for case in plain.cases] == ["a"]
