"""The store: what is written is read, in any box, and a case is there wholly or not at
all.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import FormatError, ResourceError
from trivox.preparation.store import FOREGROUND_VOXELS, Store, foreground_positions

SHAPE = (9, 110, 35)  # longer than a chunk along one axis, and no multiple of a block


def blank():
    """Image and label of a small case without foreground."""
    return np.zeros((1, 4, 4, 4), np.float32), np.zeros((4, 4, 4), np.int16)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    label = rng.integers(-1, 4, size=SHAPE).astype(np.int16)
    store = Store(tmp_path_factory.mktemp("store"))
    facts = {"patient": "p", "source_spacing": [1.0, 2.0, 3.0]}
    store.write("case", image, label, facts)
    return store, image, label


def test_a_case_is_read_as_it_was_written(case):
    store, image, label = case
    read = store.read("case")
    np.testing.assert_array_equal(read[0], image)
    np.testing.assert_array_equal(read[1], label)
    assert (read[0].dtype, read[1].dtype) == (np.float32, np.int16)
    assert (store.shape("case"), store.channels("case")) == (SHAPE, 2)
    assert store.facts("case")["patient"] == "p"
    assert store.facts("case")["source_spacing"] == [1.0, 2.0, 3.0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_box_over_the_border_is_zero_outside(case, data):
    store, image, label = case
    start = [data.draw(st.integers(-12, n + 12)) for n in SHAPE]
    size = tuple(data.draw(st.integers(1, 24)) for _ in SHAPE)
    margin = 40
    wide_image = np.pad(image, ((0, 0), *((margin, margin),) * 3))
    wide_label = np.pad(label, margin)
    box = zip(start, size, strict=True)
    at = tuple(slice(s + margin, s + margin + n) for s, n in box)
    read = store.read_box("case", start, size)
    np.testing.assert_array_equal(read[0], wide_image[:, *at])
    np.testing.assert_array_equal(read[1], wide_label[at])


def test_the_foreground_lists_voxels_of_their_class(case):
    store, _, label = case
    for index in range(4):
        at = store.foreground("case", index)
        assert (label[tuple(at.T)] == index).all()
        assert store.facts("case")["present"][str(index)] == (label == index).sum()


@pytest.mark.parametrize("shape", [(20, 30, 40), (104, 104, 104)])
def test_each_class_keeps_all_its_voxels_or_a_seeded_choice_of_at_least_one_percent(
    shape,
):
    label = np.zeros(shape, np.int16)
    label[:4, :4, :4] = 2
    label[8:] = 5
    counts, positions = foreground_positions(label)
    assert counts == {"2": 64, "5": int((label == 5).sum())}
    assert set(positions) == {2, 5}  # no background where everything is labelled
    for index, at in positions.items():
        count = (label == index).sum()
        wanted = min(count, max(FOREGROUND_VOXELS, count // 100))
        assert len(at) == len(np.unique(at, axis=0)) == wanted
        assert (label[tuple(at.T)] == index).all()
    np.testing.assert_array_equal(foreground_positions(label)[1][5], positions[5])


def test_background_is_listed_where_part_of_the_case_is_unlabelled():
    label = np.zeros((4, 5, 6), np.int16)
    label[0] = -1
    counts, positions = foreground_positions(label)
    assert counts["0"] == 90
    assert (label[tuple(positions[0].T)] == 0).all()


def test_a_case_without_foreground_is_stored_all_the_same(tmp_path):
    store = Store(tmp_path)
    store.write("empty", *blank(), {})
    assert store.facts("empty")["present"] == {}
    assert store.has("empty")


def test_mean_voxels_are_those_of_the_named_cases(tmp_path):
    """Background is not stored where all is labelled, yet counted; ignored voxels never
    are.
    """
    store = Store(tmp_path)
    rng = np.random.default_rng(1)
    labels = {}
    for name, low in (("a", 0), ("b", -1), ("c", 0)):
        labels[name] = rng.integers(low, 3, (5, 6, 7)).astype(np.int16)
        store.write(name, np.zeros((1, 5, 6, 7), np.float32), labels[name], {})
    counts = [
        np.bincount(labels[name][labels[name] >= 0], minlength=4) for name in "ab"
    ]
    expected = np.mean(counts, axis=0)
    np.testing.assert_allclose(store.mean_voxels(["a", "b"], 4), expected)


def test_a_case_whose_writing_was_cut_short_is_not_there(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def cut(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trivox.preparation.store.write_json", cut)
        with pytest.raises(KeyboardInterrupt):
            store.write("case", *blank(), {})
    assert not store.has("case")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Error while writing"), OSError(28, "No space left on device")],
)
def test_a_full_disk_is_a_resource_error_and_leaves_nothing(
    tmp_path, monkeypatch, error
):
    def full(array, *, urlpath, **settings):
        Path(urlpath).write_bytes(b"half")
        raise error

    monkeypatch.setattr("blosc2.asarray", full)
    with pytest.raises(ResourceError, match=r"case\.image\.b2nd"):
        Store(tmp_path).write("case", *blank(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"garbage" * 20])
def test_a_damaged_case_is_an_error_that_names_it(tmp_path, damage):
    store = Store(tmp_path)
    store.write("case", *blank(), {})
    (tmp_path / "case.label.b2nd").write_bytes(damage)
    with pytest.raises(FormatError, match="case is damaged"):
        Store(tmp_path).read("case")


def test_a_store_that_was_cleared_forgets_what_it_read(tmp_path):
    store = Store(tmp_path)
    store.write("case", *blank(), {"patient": "one"})
    assert store.facts("case")["patient"] == "one"
    store.clear()
    store.write("case", *blank(), {"patient": "two"})
    assert store.facts("case")["patient"] == "two"


def test_a_case_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="none"):
        Store(tmp_path).shape("none")
