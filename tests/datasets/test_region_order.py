"""Regions that are painted over each other: what a perfect network says must survive."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.labels import LabelScheme
from trivox.datasets.region_order import require_paintable, working_order
from trivox.errors import LabelError

VALUES = range(1, 6)
sets = st.frozensets(st.sampled_from(VALUES), min_size=1)
regions_strategy = st.lists(sets, min_size=1, max_size=4, unique=True)


def scheme(regions, order):
    return LabelScheme(
        labels={f"v{value}": value for value in VALUES},
        regions={name: tuple(sorted(values)) for name, values in regions.items()},
        region_order=tuple(order),
    )


def survives(regions, order):
    """Whether each value, painted region by region, ends in the regions that it is of."""
    for value in VALUES:
        painted = 0
        for values, written in zip(regions.values(), order, strict=True):
            painted = written if value in values else painted
        for values in regions.values():
            if (value in values) != (painted in values):
                return False
    return True


@settings(max_examples=120, deadline=None, derandomize=True)
@given(drawn=regions_strategy, data=st.data())
def test_an_order_is_refused_where_it_loses_a_region(drawn, data):
    regions = {f"r{number}": values for number, values in enumerate(drawn)}
    order = [data.draw(st.sampled_from(VALUES)) for _ in regions]
    if survives(regions, order):
        require_paintable(scheme(regions, order), where="dataset.json")
        return
    with pytest.raises(
        LabelError, match=r"dataset\.json: 'regions_class_order'"
    ) as got:
        require_paintable(scheme(regions, order), where="dataset.json")
    better = working_order(regions)
    if better is None:
        assert "no order does" in str(got.value)
        return
    names, values = better
    assert f'"regions_class_order": {values}' in str(got.value)
    sorted_regions = {name: regions[name] for name in names}
    assert survives(sorted_regions, values)
    require_paintable(scheme(sorted_regions, values), where="")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.permutations(range(4)))
def test_regions_inside_each_other_always_have_an_order(places):
    nested = [frozenset(VALUES), frozenset((1, 2)), frozenset((1,)), frozenset((4, 5))]
    regions = {f"r{number}": nested[number] for number in places}
    names, values = working_order(regions)
    assert survives({name: regions[name] for name in names}, values)


def test_regions_that_overlap_have_none():
    assert working_order({"a": (1, 2), "b": (2, 3)}) is None


def test_the_order_of_brats_passes_and_a_wrong_one_is_told():
    regions = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    labels = LabelScheme(
        labels={"a": 1, "b": 2, "c": 3}, regions=regions, region_order=(2, 1, 3)
    )
    assert require_paintable(labels, where="x") is labels
    wrong = labels.model_copy(update={"region_order": (1, 2, 3)})
    message = re.escape(
        "a voxel of value 1 would be written as 2, which is not in 'TC'; write "
        '"regions_class_order": [2, 1, 3]'
    )
    with pytest.raises(LabelError, match=message):
        require_paintable(wrong, where="x")
    image = np.array([[0, 1], [2, 3]])
    assert (labels.decode(labels.encode(image)) == image).all()


@pytest.mark.parametrize("far", [2**63, -(2**63), 10**300])
def test_an_order_is_found_for_values_of_any_size(far):
    names, values = working_order({"whole": [1, far], "core": [far]})
    assert names == ["whole", "core"]
    assert values == [1, far]
