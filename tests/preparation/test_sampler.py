"""The sampler: a pure function of (seed, step, position), foreground rule, uniform
coverage, labelled voxels.
"""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.preparation.sampler import (
    LesionSampling,
    PatchRequest,
    PatchSampler,
    patch_start,
    sample_rng,
)
from trivox.preparation.store import Store

PATCH = (8, 8, 8)


def sampler(store, cases=("a", "b"), **changes):
    settings = {"patch_size": PATCH, "batch_size": 2, **changes}
    return PatchSampler(store, cases, **settings)


def draws(sampler, count, position, *, seed=0):
    return [
        sampler.draw(sample_rng(seed, step, position), position)
        for step in range(count)
    ]


def test_a_sample_depends_on_seed_step_and_position_only(store):
    first = sampler(store)
    second = sampler(Store(store.folder))
    wanted = list(product((0, 1), (3, 900), (0, 1)))  # seed, step, position
    one = [first.draw(sample_rng(*key), key[2]) for key in wanted]
    other = [second.draw(sample_rng(*key), key[2]) for key in reversed(wanted)]
    assert one == other[::-1]
    assert len(set(one)) > len(one) - 2


def test_streams_are_independent():
    generators = [sample_rng(0, 0, 0, stream=stream) for stream in range(4)]
    assert len({rng.integers(2**60) for rng in generators}) == 4


@pytest.mark.parametrize(
    ("batch", "fraction", "forced"),
    [
        (2, 0.33, 1),
        (3, 0.33, 1),
        (9, 0.33, 3),
        (12, 0.33, 4),
        (4, 0, 0),
        (4, 1, 4),
        (1, 0.33, 0),
    ],
)
def test_the_last_part_of_a_batch_is_forced_as_in_nnunet(
    store, batch, fraction, forced
):
    made = sampler(store, batch_size=batch, foreground_fraction=fraction)
    expected = [False] * (batch - forced) + [True] * forced
    assert [made.is_forced(position) for position in range(batch)] == expected


def test_a_forced_patch_is_centred_on_a_labelled_voxel_and_holds_it(store):
    made = sampler(store)
    for request in draws(made, 60, 1):
        _, whole = store.read(request.case)
        value = whole[request.centre]
        assert value > 0
        assert value in made.read(request, PATCH)[1]


def test_forced_classes_are_drawn_evenly_whatever_their_size(store):
    _, label = store.read("b")
    requests = draws(sampler(store, ("b",)), 300, 1)
    classes = Counter(int(label[request.centre]) for request in requests)
    assert set(classes) == {1, 2}
    assert 110 < classes[2] < 190  # half, though it has a seventh of the voxels


def test_cases_are_drawn_evenly(store):
    counts = Counter(request.case for request in draws(sampler(store), 400, 0))
    assert 160 < counts["a"] < 240


@settings(max_examples=80, deadline=None, derandomize=True)
@given(limit=st.integers(1, 40), patch=st.integers(1, 40), data=st.data())
def test_a_patch_lies_inside_the_axis_where_it_fits_and_covers_it_where_not(
    limit, patch, data
):
    start = patch_start(data.draw(st.integers(0, limit - 1)), patch, limit)
    if patch <= limit:
        assert 0 <= start <= limit - patch
    else:
        assert start <= 0
        assert start + patch >= limit
        assert abs((0 - start) - (start + patch - limit)) <= 1  # centred


@settings(max_examples=60, deadline=None, derandomize=True)
@given(limit=st.integers(2, 40), data=st.data())
def test_a_patch_holds_its_centre(limit, data):
    patch = data.draw(st.integers(1, limit))
    centre = data.draw(st.integers(0, limit - 1))
    start = patch_start(centre, patch, limit)
    assert start <= centre < start + patch


def test_unforced_starts_cover_all_places_evenly(store):
    made = sampler(store, ("a",))
    count = 3400
    starts = Counter(patch_start(r.centre[2], 8, 24) for r in draws(made, count, 0))
    assert set(starts) == set(range(17))
    expected = count / 17
    chi = sum((n - expected) ** 2 / expected for n in starts.values())
    assert chi < 39.3  # 0.1 % of a chi-squared of 16 degrees of freedom


def test_a_larger_box_is_centred_on_the_same_patch(store):
    made = sampler(store)
    request = PatchRequest("a", (6, 10, 12))
    image, label = made.read(request, PATCH)
    wide, wide_label = made.read(request, (12, 10, 16))
    np.testing.assert_array_equal(wide[:, 2:-2, 1:-1, 4:-4], image)
    np.testing.assert_array_equal(wide_label[2:-2, 1:-1, 4:-4], label)


def test_a_patch_larger_than_the_case_holds_all_of_it(store):
    made = sampler(store, ("a",), patch_size=(16, 24, 32))
    (request,) = draws(made, 1, 0)
    image, label = made.read(request, made.patch_size)
    whole, whole_label = store.read("a")
    np.testing.assert_array_equal(image[:, 2:14, 2:22, 4:28], whole)
    assert label.sum() == whole_label.sum()


@pytest.mark.parametrize("position", [0, 1])
def test_where_voxels_are_ignored_patches_keep_to_labelled_ones(store, position):
    _, label = store.read("c")
    requests = draws(sampler(store, ("c",)), 150, position)
    assert all(label[request.centre] >= 0 for request in requests)
    if position == 0:  # in proportion to the voxels, so mostly background
        shares = Counter(int(label[request.centre]) for request in requests)
        assert shares[0] > shares[1] > 0


@pytest.mark.parametrize("labelled", [0, 1])
@pytest.mark.parametrize("position", [0, 1])
def test_a_single_labelled_slab_is_found_whatever_its_label(store, labelled, position):
    label = np.full((10, 10, 10), -1, np.int16)
    label[7] = labelled
    store.write("slab", np.zeros((1, 10, 10, 10), np.float32), label, {})
    requests = draws(sampler(store, ("slab",)), 30, position)
    assert {request.centre[0] for request in requests} == {7}


def test_a_wholly_ignored_case_is_drawn_anywhere(store):
    label = np.full((9, 9, 9), -1, np.int16)
    store.write("blank", np.zeros((1, 9, 9, 9), np.float32), label, {})
    assert len(draws(sampler(store, ("blank",)), 5, 1)) == 5


def test_a_forced_patch_of_a_case_without_foreground_is_drawn_anywhere(store):
    label = np.zeros((20, 20, 20), np.int16)
    store.write("empty", np.zeros((1, 20, 20, 20), np.float32), label, {})
    requests = draws(sampler(store, ("empty",)), 20, 1)
    assert len({request.centre for request in requests}) > 10


def lesions(fraction=0.5, groups=(("a",), ("b",)), indices=(2,)):
    return LesionSampling(indices, fraction, groups)


def test_every_patch_that_a_class_is_learnt_from_holds_the_lesion(store):
    """The class of a case says nothing about a patch without its lesion."""
    made = sampler(store, batch_size=4, lesions=lesions(groups=(("b",),)))
    on_lesion = [made.on_lesion(position) for position in range(4)]
    assert on_lesion == [False, False, True, True]
    for request in draws(made, 100, 3):
        assert 2 in made.read(request, PATCH)[1]


@pytest.mark.parametrize(
    ("batch", "fraction", "wanted"),
    [(2, 0.5, 1), (1, 0.1, 1), (8, 0.25, 2), (4, 0.0, 0), (4, 1.0, 4)],
)
def test_at_least_one_position_is_centred_on_a_lesion(store, batch, fraction, wanted):
    made = sampler(store, batch_size=batch, lesions=lesions(fraction))
    assert sum(made.on_lesion(position) for position in range(batch)) == wanted


def test_a_balanced_sampler_draws_classes_evenly_and_one_group_draws_cases_evenly(
    store,
):
    by_class = lesions(groups=(("a",) * 9, ("b",)), indices=(1,))
    balanced = sampler(store, lesions=by_class)
    counts = Counter(request.case for request in draws(balanced, 300, 1))
    assert 110 < counts["b"] < 190
    together = lesions(groups=(("a",) * 9 + ("b",),), indices=(1,))
    plain = sampler(store, lesions=together)
    assert Counter(request.case for request in draws(plain, 300, 1))["b"] < 60


def test_a_case_without_a_known_lesion_is_looked_at_in_the_middle(store):
    made = sampler(store, lesions=lesions(groups=(("a",),), indices=(9,)))
    middle = tuple(size // 2 for size in store.shape("a"))
    assert made.draw(sample_rng(0, 0, 1), 1).centre == middle
