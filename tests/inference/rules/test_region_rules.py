import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components

from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.rules.region_rules import (
    RegionRule,
    clean_regions,
    fallback_table,
    falls_back_exactly,
    outer_first,
)

few = settings(max_examples=40, deadline=None, derandomize=True)
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
TUMOUR = LabelScheme(
    labels={"NCR": 1, "ED": 2, "ET": 4},
    regions=REGIONS,
    region_order=(2, 1, 4),
    nested=True,
)
TREATED = LabelScheme(
    labels={"NCR": 1, "ED": 2, "ET": 3, "RC": 4},
    regions={"RC": (4,), "WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
    region_order=(4, 2, 1, 3),
    nested=True,
)
ORGANS = LabelScheme(labels={"liver": 5, "spleen": 9})
SHAPE = (4, 6, 7)
NCR = 1
ED = 2
ET = 3


def random_masks(seed):
    """Four masks that overlap in any way, each with many components."""
    rng = np.random.default_rng(seed)
    return rng.random((4, *SHAPE)) < rng.choice([0.05, 0.15, 0.3, 0.6], (4, 1, 1, 1))


masks = st.builds(random_masks, st.integers(0, 10_000))
limits = st.sampled_from([0.0, 1.5, 3.0, 6.0, 12.0, 40.0])
rules = st.builds(
    RegionRule, largest=st.booleans(), remove_small=limits, replace_small=limits
)
rule_sets = st.fixed_dictionaries({}, optional={"WT": rules, "TC": rules, "ET": rules})


def regions_of(labels, scheme=TUMOUR):
    return {name: np.isin(labels, indices) for name, indices in scheme.targets.items()}


def filtered(mask, rule, voxel_mm3):
    """A region after its rule, component by component with scipy."""
    parts, count = components(mask, structure=np.ones((3, 3, 3)))
    sizes = {n: (parts == n).sum() * voxel_mm3 for n in range(1, count + 1)}
    staying = list(sizes)
    if rule.largest and staying:
        staying = [max(staying, key=lambda number: sizes[number])]
    staying = [number for number in staying if sizes[number] >= rule.remove_small]
    if sum(sizes[number] for number in staying) < rule.replace_small:
        staying = []
    return np.isin(parts, staying) & mask


def painted_by_hand(labels, chosen, voxel_mm3):
    wt, tc, et = regions_of(labels).values()
    none = RegionRule()
    wt = filtered(wt, chosen.get("WT", none), voxel_mm3)
    tc = filtered(tc & wt, chosen.get("TC", none), voxel_mm3)
    et = filtered(et & tc, chosen.get("ET", none), voxel_mm3)
    result = np.zeros(labels.shape, np.int16)
    result[wt] = ED
    result[tc] = NCR
    result[et] = ET
    return result


@few
@given(masks=masks, chosen=rule_sets, voxel_mm3=st.sampled_from([0.5, 1.0, 3.0]))
def test_rules_equal_brute_force_and_only_ever_take_away(masks, chosen, voxel_mm3):
    labels = TUMOUR.paint_regions(masks[:3])
    before = labels.copy()
    found = clean_regions(labels, TUMOUR, chosen, voxel_mm3=voxel_mm3)
    assert np.array_equal(labels, before)
    assert np.array_equal(found, painted_by_hand(labels, chosen, voxel_mm3))
    old = regions_of(labels)
    new = regions_of(found)
    assert all(not (new[name] & ~old[name]).any() for name in REGIONS)
    assert not (new["ET"] & ~new["TC"]).any()
    assert not (new["TC"] & ~new["WT"]).any()


@few
@given(masks=masks, chosen=rule_sets)
def test_applying_twice_is_applying_once(masks, chosen):
    once = clean_regions(TUMOUR.paint_regions(masks[:3]), TUMOUR, chosen, voxel_mm3=1.5)
    assert np.array_equal(clean_regions(once, TUMOUR, chosen, voxel_mm3=1.5), once)


@few
@given(
    masks=masks,
    name=st.sampled_from(sorted(REGIONS)),
    kind=st.sampled_from(["remove_small", "replace_small"]),
)
def test_a_larger_volume_removes_at_least_as_much(masks, name, kind):
    labels = TUMOUR.paint_regions(masks[:3])
    last = regions_of(labels)
    for least in (0, 1, 2, 5, 9, 200):
        found = Postprocessing(**{kind: {name: least}}).apply(
            labels, TUMOUR, voxel_mm3=1.0
        )
        if least == 0:
            assert found is labels
        now = regions_of(found)
        assert all(not (now[region] & ~last[region]).any() for region in REGIONS)
        last = now
    assert not last[name].any()


@few
@given(masks=masks, chosen=rule_sets, rc=rules)
def test_a_region_beside_the_others_neither_changes_nor_is_changed(masks, chosen, rc):
    """Resection cavity beside the tumour."""
    labels = TREATED.paint_regions(masks)
    found = clean_regions(labels, TREATED, {**chosen, "RC": rc}, voxel_mm3=1.0)
    tumour_only = clean_regions(
        np.where(labels == 4, 0, labels), TUMOUR, chosen, voxel_mm3=1.0
    )
    assert np.array_equal(np.where(found == 4, 0, found), tumour_only)
    assert np.array_equal(found == 4, filtered(labels == 4, rc, 1.0))
    assert [[*TREATED.targets][row] for row in outer_first(TREATED)] == [
        "WT",
        "TC",
        "RC",
        "ET",
    ]


def scene():
    """A tumour with a core of 27 voxels, 8 of them enhancing, 1 enhancing speck in the
    core, and a speck of edema.
    """
    labels = np.zeros((9, 12, 12), np.int16)
    labels[1:7, 1:8, 1:8] = ED
    labels[2:5, 2:5, 2:5] = NCR
    labels[2:4, 2:4, 2:4] = ET
    labels[5, 6, 6] = ET
    labels[8, 10:12, 10:12] = ED
    labels[8, 10, 10] = ET
    return labels


def test_small_components_fall_back_to_what_encloses_them():
    labels = scene()
    found = Postprocessing(remove_small={"ET": 2}).apply(labels, TUMOUR, voxel_mm3=1.0)
    assert found[5, 6, 6] == NCR  # a speck that stays in the core
    assert found[8, 10, 10] == NCR
    assert (found == ET).sum() == 8
    assert np.array_equal(found != labels, (labels == ET) & (found == NCR))
    found = Postprocessing(remove_small={"TC": 2}).apply(labels, TUMOUR, voxel_mm3=1.0)
    assert found[5, 6, 6] == ED
    found = Postprocessing(remove_small={"WT": 5}).apply(labels, TUMOUR, voxel_mm3=1.0)
    assert not found[8].any()  # with everything inside
    assert np.array_equal(found[:8], labels[:8])


def test_a_region_too_small_as_a_whole_is_replaced():
    labels = scene()
    assert (
        Postprocessing(replace_small={"ET": 10}).apply(labels, TUMOUR, voxel_mm3=1.0)
        is labels
    )  # 10 voxels
    found = Postprocessing(replace_small={"ET": 10.1}).apply(
        labels, TUMOUR, voxel_mm3=1.0
    )
    assert np.array_equal(found, np.where(labels == ET, NCR, labels))
    both = Postprocessing(
        remove_small={"ET": 2}, replace_small={"ET": 9}
    )  # 8 voxels are left after the first rule
    assert not (both.apply(labels, TUMOUR, voxel_mm3=1.0) == ET).any()


def test_volumes_are_mm3_and_not_voxels():
    labels = scene()
    rule = Postprocessing(remove_small={"ET": 2})
    assert rule.apply(labels, TUMOUR, voxel_mm3=2.0) is labels
    assert (rule.apply(labels, TUMOUR, voxel_mm3=0.1) == ET).sum() == 0
    rounded = 1.0 - 3e-6  # a voxel of 1 mm3 as a float32 header has it
    assert (
        Postprocessing(remove_small={"ET": 1}).apply(labels, TUMOUR, voxel_mm3=rounded)
        is labels
    )


def test_fallbacks_are_those_of_the_tumour_by_hand():
    assert fallback_table(TUMOUR).tolist() == [
        [0, 0, 0, 0],
        [0, ED, ED, ED],
        [0, NCR, ED, NCR],
    ]
    assert all(falls_back_exactly(scheme) for scheme in (TUMOUR, TREATED, ORGANS))
    loose = LabelScheme(**{**TUMOUR.model_dump(), "nested": False})
    assert falls_back_exactly(loose)
    assert np.array_equal(fallback_table(loose), fallback_table(TUMOUR))
    assert fallback_table(ORGANS).tolist() == [[0, 0, 2], [0, 1, 0]]


def test_where_regions_overlap_without_a_label_of_their_own_nothing_is_gained():
    covered = LabelScheme(
        labels=TUMOUR.labels,
        regions=dict(reversed(REGIONS.items())),
        region_order=(4, 1, 2),
    )
    twins = LabelScheme(
        labels={"a": 1}, regions={"A": (1,), "B": (1,)}, region_order=(1, 1)
    )
    lost = LabelScheme(
        labels={"a": 1, "b": 2, "c": 3},
        regions={"A": (1, 2), "B": (2, 3)},
        region_order=(1, 2),
    )
    assert not falls_back_exactly(covered)
    assert not falls_back_exactly(twins)
    assert not falls_back_exactly(lost)
    assert fallback_table(lost)[0].tolist() == [
        0,
        0,
        0,
        3,
    ]  # label b painted for B is in A as well: background


def test_rules_for_labels_work_alike_and_leave_background():
    labels = np.zeros((3, 6, 6), np.int16)
    labels[0, 0, 0] = 1
    labels[2, 3:6, 3:6] = 1
    labels[0, 5, 0] = 2
    found = Postprocessing(remove_small={"liver": 2}).apply(
        labels, ORGANS, voxel_mm3=1.0
    )
    assert np.array_equal(
        found, np.where((labels == 1) & (np.arange(3)[:, None, None] == 0), 0, labels)
    )


def test_a_rule_for_an_unknown_region_is_refused():
    with pytest.raises(BundleError, match=r"\['edema'\].*WT.*export it again"):
        Postprocessing(remove_small={"edema": 5}).apply(scene(), TUMOUR, voxel_mm3=1.0)
