"""Channels are matched by name, in any order, and files that end in their names."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layout_copies import as_msd, as_nnunet
from trivox.datasets.channels import by_name, named_cases, positions, split_stem
from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.datasets.reading import read_channels
from trivox.errors import DataError
from trivox.inference.read import read_image
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

NAMES = ("CT", "PET", "ADC map", "FLAIR", "t1ce", "T2")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """For each name a file filled with its number, and one that holds all."""
    folder = tmp_path_factory.mktemp("channels")
    affine = affine_from_spacing((1, 1, 1))
    arrays = [np.full((2, 2, 2), number, np.int16) for number in range(len(NAMES))]
    for name, array in zip(NAMES, arrays, strict=True):
        write_volume(folder / f"{name}.nii", Volume(array[None], affine))
    write_volume(folder / "all.nii", Volume(np.stack(arrays), affine))
    return folder


orders = st.permutations(range(len(NAMES)))
spellings = st.sampled_from((str.lower, str.upper, str.title))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(given=orders, wanted=orders, count=st.integers(1, 6), spell=spellings)
def test_a_channel_is_the_one_of_its_name_in_any_order(
    files, given, wanted, count, spell
):
    wanted = wanted[:count]
    model = [spell(NAMES[number]) for number in wanted]
    apart = Case(name="a", images=tuple(files / f"{NAMES[n]}.nii" for n in given))
    (read,), line = by_name([apart], [NAMES[n] for n in given], model)
    values = read_channels(read, channels=count).array[:, 0, 0, 0]
    assert values.tolist() == wanted
    assert bool(line) is ([*given] != wanted)
    together = Case(name="b", images=(files / "all.nii",))
    (read,), _ = by_name([together], NAMES, model)
    assert read_channels(read, channels=count).array[:, 0, 0, 0].tolist() == wanted


@settings(max_examples=40, deadline=None, derandomize=True)
@given(given=orders, wanted=orders, count=st.integers(1, 5))
def test_a_channel_that_the_input_lacks_is_absent(files, given, wanted, count):
    given = given[:count]
    model = [NAMES[number] for number in wanted]
    case = Case(name="a", images=tuple(files / f"{NAMES[n]}.nii" for n in given))
    (read,), line = by_name([case], [NAMES[n] for n in given], model)
    lacking = [NAMES[n] for n in wanted if n not in given]
    assert [model[i] for i in read.absent] == lacking
    assert all(name in line for name in lacking)
    with pytest.raises(DataError, match=f"a: has no {', '.join(lacking)}; add"):
        read_image(read, model, missing="refuse")
    values = read_image(read, model, missing="zeros").array[:, 0, 0, 0]
    assert values.tolist() == [n if n in given else 0 for n in wanted]


def test_names_that_say_nothing_leave_the_order():
    assert positions(["0000", "0001"], ["T1", "T2"]) is None
    assert positions(["image"], ["CT"]) is None
    assert positions(["T1", "T1n"], ["T1", "T2"]) is None
    case = Case(name="a", images=(Path("/x.nii"), Path("/y.nii")))
    assert by_name([case], ["a", "b"], ["T1", "T2"]) == ((case,), "")


def test_sequences_have_many_names():
    assert positions(["t2f", "T1gd", "t1n", "T2w"], ["T1", "T1ce", "T2", "FLAIR"]) == [
        2,
        1,
        3,
        0,
    ]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("p0_T1", ("p0", 0)),
        ("p0-t1n", ("p0", 0)),
        ("a_b.T2-FLAIR", ("a_b", 2)),
        ("p0_T1ce", None),
        ("T1", None),
        ("p0T1", None),
    ],
)
def test_names_at_the_end_of_files(stem, expected):
    assert split_stem(stem, ["T1", "ADC", "FLAIR"]) == expected


def test_two_files_of_one_channel_are_told():
    images = {stem: Path(f"/{stem}.nii") for stem in ("p_T1", "p_t1n", "p_T2", "q")}
    first, second = named_cases(images, ["T1", "T2"])
    assert "p_T1.nii and p_t1n.nii are both T1" in first.complaint
    assert (second.name, second.complaint) == ("q", "")


@pytest.mark.parametrize("write", [as_nnunet, as_msd])
def test_a_dataset_in_another_order_than_the_model_is_turned(phantoms, tmp_path, write):
    folder = write(phantoms, tmp_path / "copy")
    lines = []
    names = ("contrast_1", "contrast_0")
    turned = load_inputs(folder, channels=names, say=lines.append)
    assert lines == [
        "channels are matched by name: contrast_0, contrast_1 in the input, "
        "contrast_1, contrast_0 in the model"
    ]
    for before, after in zip(load_dataset(folder).cases, turned, strict=True):
        plain = read_channels(before, channels=2).array
        assert (read_channels(after, channels=2).array == plain[::-1]).all()


def test_files_named_after_channels_are_cases_of_several(tmp_path):
    affine = affine_from_spacing((1, 1, 1))
    for number, name in enumerate(("T2", "t1n")):
        array = np.full((1, 2, 2, 2), number + 1, np.int16)
        write_volume(tmp_path / f"p0_{name}.nii.gz", Volume(array, affine))
    write_volume(tmp_path / "p1_T2.nii.gz", Volume(array, affine))
    first, second = load_inputs(tmp_path, channels=["T1", "T2"])
    assert read_channels(first, channels=2).array[:, 0, 0, 0].tolist() == [2, 1]
    assert (second.name, second.absent) == ("p1", (0,))
    (alone,) = load_inputs(tmp_path / "p0_T2.nii.gz", channels=["T1", "T2"])
    assert alone.images == first.images
    assert read_volume(alone.images[0]).array.max() == 2
