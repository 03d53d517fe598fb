"""Label schemes: any integers in the files, consecutive indices inside, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trivox.datasets import labels as module
from trivox.datasets.labels import IGNORED, LabelScheme
from trivox.errors import LabelError

ODD = LabelScheme(labels={"tumour": 300, "organ": 7})
BRATS = LabelScheme(
    labels={"core": 1, "oedema": 2, "enhancing": 4},
    regions={"whole": (1, 2, 4), "tumour core": (1, 4), "enhancing": (4,)},
    region_order=(2, 1, 4),
)


@st.composite
def schemes(draw):
    values = draw(
        st.lists(st.integers(-1000, 40000), min_size=2, max_size=8, unique=True)
    )
    background, *labels = values
    ignore = draw(st.sampled_from([None, 50000, -5000]))
    return LabelScheme(
        labels={f"l{v}": v for v in labels}, background=background, ignore=ignore
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(scheme=schemes(), seed=st.integers(0, 9))
def test_decoding_undoes_encoding_for_any_values(scheme, seed):
    values = np.random.default_rng(seed).choice(scheme.values, size=(3, 4, 5))
    indices = scheme.encode(values)
    assert indices.dtype == np.int16
    assert indices.min() >= 0
    np.testing.assert_array_equal(scheme.decode(indices), values)
    np.testing.assert_array_equal(scheme.encode(scheme.decode(indices)), indices)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scheme=schemes(), portion=st.integers(1, 80))
def test_large_maps_are_looked_up_in_portions(scheme, portion):
    values = np.random.default_rng(1).choice(scheme.values, size=(3, 4, 5))
    for order in ((0, 1, 2), (2, 0, 1)):
        turned = values.transpose(order)[::-1]
        at_once = scheme.encode(turned)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "A_PORTION", portion)
            np.testing.assert_array_equal(scheme.encode(turned), at_once)
            np.testing.assert_array_equal(scheme.decode(at_once), turned)
            with pytest.raises(LabelError, match=r"labels of c: .*-7777"):
                scheme.encode(
                    np.where(turned == turned[0, 0, 0], -7777, turned),
                    where="labels of c",
                )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scheme=schemes())
def test_index_0_is_background_and_the_others_ascend(scheme):
    assert scheme.values[0] == scheme.background
    assert list(scheme.values[1:]) == sorted(scheme.labels.values())
    assert scheme.encode(np.array(scheme.values)).tolist() == list(
        range(len(scheme.values))
    )


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.float32])
def test_labels_0_7_300_become_0_1_2_and_back_whatever_the_file_type(kind):
    values = np.array([[0, 7, 300], [300, 0, 7]], dtype=kind)
    assert ODD.encode(values).tolist() == [[0, 1, 2], [2, 0, 1]]
    assert ODD.decode(ODD.encode(values)).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, 2), np.uint8),
        ((255,), np.uint8),
        ((7, 300), np.uint16),
        ((-1, 5), np.int16),
        ((-5, 300), np.int32),
        ((70000,), np.uint32),
    ],
)
def test_decoded_labels_take_a_small_type_that_holds_them(values, kind):
    scheme = LabelScheme(labels={str(v): v for v in values})
    assert scheme.decode(np.arange(len(values) + 1)).dtype == kind


def test_the_ignore_value_becomes_ignored_and_is_written_as_background():
    scheme = LabelScheme(labels={"a": 1}, background=9, ignore=255)
    indices = scheme.encode(np.array([9, 1, 255]))
    assert indices.tolist() == [0, 1, IGNORED]
    assert scheme.decode(indices).tolist() == [9, 1, 9]


@pytest.mark.parametrize("wrong", [1, -1, 8, 299, 301, 65535])
def test_an_undeclared_value_is_refused_naming_file_and_value(wrong):
    with pytest.raises(LabelError, match=rf"case_3: label values \[{wrong}\]"):
        ODD.encode(np.array([0, 7, wrong]), where="case_3")


@pytest.mark.parametrize("wrong", [0.5, 6.999, float("nan"), float("inf")])
def test_a_value_that_is_no_declared_number_is_refused(wrong):
    with pytest.raises(LabelError):
        ODD.encode(np.array([0, 7, wrong], dtype=np.float32))


def test_the_ignore_value_is_unknown_where_none_is_declared():
    with pytest.raises(LabelError):
        LabelScheme(labels={"a": 1}).encode(np.array([255]))


def test_regions_of_exclusive_labels_are_the_labels():
    assert ODD.exclusive
    assert ODD.targets == {"organ": (1,), "tumour": (2,)}
    assert ODD.output_channels == 3
    assert ODD.region_table().tolist() == [[False, True, False], [False, False, True]]


def test_regions_are_sets_of_indices_and_each_an_output():
    assert not BRATS.exclusive
    assert BRATS.output_channels == 3
    assert BRATS.targets == {
        "whole": (1, 2, 3),
        "tumour core": (1, 3),
        "enhancing": (3,),
    }


def test_painting_the_regions_of_a_label_map_gives_it_back():
    indices = BRATS.encode(
        np.random.default_rng(0).choice([0, 1, 2, 4], size=(4, 5, 6))
    )
    present = BRATS.region_table()[:, indices]  # (region, z, y, x)
    np.testing.assert_array_equal(BRATS.paint_regions(present), indices)


def test_later_regions_are_painted_over_earlier_ones():
    present = np.array([[True, True, False], [True, False, False], [True, False, True]])
    assert BRATS.paint_regions(present).tolist() == [
        3,
        2,
        3,
    ]  # indices of the values 4, 2, 4


@pytest.mark.parametrize(
    "content",
    [
        {"labels": {}},
        {"labels": {"a": 1, "b": 1}},
        {"labels": {"a": 0}},
        {"labels": {"a": 1}, "ignore": 1},
        {"labels": {"a": 1}, "ignore": 0},
        {"labels": {"a": 1}, "regions": {"r": (1, 2)}, "region_order": (1,)},
        {"labels": {"a": 1}, "regions": {"r": (1,)}},
        {"labels": {"a": 1}, "regions": {"r": (1,)}, "region_order": (3,)},
        {"labels": {"a": 1}, "colour": {}},
    ],
)
def test_contradictory_schemes_are_refused(content):
    with pytest.raises(ValidationError):
        LabelScheme.model_validate(content)


@pytest.mark.parametrize("scheme", [ODD, BRATS])
def test_a_scheme_survives_json(scheme):
    assert LabelScheme.model_validate_json(scheme.model_dump_json()) == scheme


def nested(values, **changes):
    return LabelScheme(
        labels={"NCR": 1, "ED": 2, "ET": values},
        regions={"WT": (1, 2, values), "TC": (1, values), "ET": (values,)},
        region_order=(2, 1, values),
        **{"nested": True, **changes},
    )


@given(seed=st.integers(0, 999), value=st.sampled_from([3, 4]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_nested_regions_stay_inside_each_other_and_come_back(seed, value):
    scheme = nested(value)
    masks = np.random.default_rng(seed).random((3, 4, 5, 6)) < 0.5
    indices = scheme.paint_regions(masks)
    painted = scheme.region_table()[:, indices]
    whole, core, enhancing = painted
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()
    assert np.array_equal(whole, masks[0])
    assert np.array_equal(core, masks[0] & masks[1])
    assert np.array_equal(enhancing, masks.all(0))
    assert np.array_equal(scheme.paint_regions(painted), indices)


def test_without_nesting_a_region_is_painted_wherever_it_is_found():
    masks = np.array([False, False, True])[:, None, None, None]
    assert nested(4, nested=False).paint_regions(masks)[0, 0, 0] == 3
    assert nested(4).paint_regions(masks)[0, 0, 0] == 0


def test_translation_goes_by_name():
    table, lost = nested(4).translation(nested(3))
    assert table.tolist() == [0, 1, 2, 3]
    assert lost == ()
    cavity = LabelScheme(labels={"NCR": 1, "ED": 2, "ET": 3, "RC": 4})
    assert cavity.translation(nested(4))[0].tolist() == [0, 1, 2, 4, 0]
    assert cavity.translation(nested(4))[1] == ("RC",)
