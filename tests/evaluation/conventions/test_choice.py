"""The BraTS conventions against golden values of the official packages, and against a
slow second implementation.
"""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brats_cases import ANISOTROPIC, ISOTROPIC, REGIONS, SHAPE, brats_cases
from trivox.datasets.labels import IGNORED
from trivox.errors import GeometryError, RecipeError
from trivox.evaluation.conventions.choice import CONVENTIONS, choose_convention
from trivox.evaluation.conventions.instances import match_instances
from trivox.evaluation.metrics.surfaces import surface_distances

CASES = brats_cases()
GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "brats_metrics.json").read_text()
)
MET = {"dilation": 1, "min_lesion_mm3": 2}
CONVENTION_OF = {
    "legacy": choose_convention("brats-legacy"),
    "gli": choose_convention("brats-lesion-wise"),
    "met": choose_convention("brats-lesion-wise", MET),
    "instance": choose_convention("brats-instance"),
}


def measured(convention, case):
    prediction, reference, spacing = CASES[case]
    return convention.evaluate(
        prediction.astype(np.int16),
        reference.astype(np.int16),
        spacing=spacing,
        targets=REGIONS,
    )


def assert_same(metrics, official, where):
    for metric, expected in official.items():
        if expected is None:
            assert metrics[metric] is None, (where, metric)
        else:
            tolerance = 1e-3 if metric.endswith("_mm") else 1e-6
            close = pytest.approx(expected, abs=tolerance)
            assert metrics[metric] == close, (where, metric)


@pytest.mark.parametrize("kind", GOLDEN)
def test_values_of_the_official_packages(kind):
    assert set(GOLDEN[kind]) == set(CASES)
    for case, regions in GOLDEN[kind].items():
        metrics = measured(CONVENTION_OF[kind], case)
        for region in REGIONS:
            assert_same(metrics[region], regions[region], (kind, case, region))


def brute_force_lesion_wise(
    prediction, reference, spacing, *, dilation, min_lesion_mm3, penalty_mm
):
    """As the rules say it: every lesion dilated by itself, every pair of dilations
    checked, nothing cropped.
    """
    near = ndimage.generate_binary_structure(3, 2)
    touching = np.ones((3, 3, 3))
    components, component_count = ndimage.label(prediction, touching)
    used = set()
    scores = []
    for lesion in merged_lesions(reference, near, touching, dilation):
        zone = ndimage.binary_dilation(lesion, near, dilation)
        numbers = set(np.unique(components[zone])) - {0}
        used |= numbers
        if lesion.sum() * np.prod(spacing) > min_lesion_mm3:
            union = np.isin(components, list(numbers))
            distance = surface_distances(
                union, lesion, spacing=spacing, surface="mesh"
            ).hausdorff_mm()
            dice = 2 * (union & lesion).sum() / (union.sum() + lesion.sum())
            hd95 = penalty_mm if distance is None else distance
            scores.append((dice, hd95, bool(numbers)))
    spurious = component_count - len(used)
    total = len(scores) + spurious
    dice = sum(dice for dice, _, _ in scores)
    hd95 = sum(mm for _, mm, _ in scores) + penalty_mm * spurious
    return {
        "dice": dice / total if total else 1,
        "hd95_mm": hd95 / total if total else 0,
        "lesions_found": sum(hit for _, _, hit in scores),
        "lesions_missed": sum(not hit for _, _, hit in scores),
        "lesions_spurious": spurious,
    }


def merged_lesions(reference, near, touching, dilation):
    """Masks of the components, those in one whose dilations touch."""
    parts, count = ndimage.label(reference, touching)
    grown = [
        ndimage.binary_dilation(parts == n + 1, near, dilation) for n in range(count)
    ]
    group = list(range(count))
    for i in range(count):
        for j in range(i):
            if (ndimage.binary_dilation(grown[i], touching) & grown[j]).any():
                group = [group[j] if g == group[i] else g for g in group]
    for one in sorted(set(group)):
        numbers = [n + 1 for n in range(count) if group[n] == one]
        yield np.isin(parts, numbers)


def scattered(seed, threshold, shape=(12, 14, 16)):
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 1.0) for _ in range(2)]
    shared = 0.5 * ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    return [field + shared > np.quantile(field + shared, threshold) for field in fields]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    threshold=st.floats(0.9, 0.99),
    dilation=st.integers(1, 3),
    limit=st.sampled_from([0.0, 2.0, 10.0]),
    spacing=st.sampled_from([ISOTROPIC, ANISOTROPIC]),
)
def test_lesion_wise_equals_brute_force(seed, threshold, dilation, limit, spacing):
    parameters = {"dilation": dilation, "min_lesion_mm3": limit, "penalty_mm": 374.0}
    prediction, reference = scattered(seed, threshold)
    maps = [mask.astype(np.int16) for mask in (prediction, reference)]
    convention = choose_convention("brats-lesion-wise", parameters)
    metrics = convention.evaluate(*maps, spacing=spacing, targets={"x": (1,)})["x"]
    expected = brute_force_lesion_wise(prediction, reference, spacing, **parameters)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), threshold=st.floats(0.9, 0.985))
def test_matching_of_instances_has_the_largest_sum_of_dice(seed, threshold):
    labels = [
        ndimage.label(mask, np.ones((3, 3, 3)))[0]
        for mask in scattered(seed, threshold, (8, 9, 10))
    ]
    # At most 5 each: 6! ways to match.
    predicted, expected = (np.where(array > 5, 0, array) for array in labels)
    dice = np.zeros((expected.max(), predicted.max() + 5))  # 5 columns: no match
    for p in range(predicted.max()):
        for e in range(expected.max()):
            dice[e, p] = dice_of(predicted == p + 1, expected == e + 1)
    rows = np.arange(len(dice))
    ways = permutations(range(dice.shape[1]), len(dice))
    best = max(dice[rows, list(way)].sum() for way in ways)
    matches = match_instances(predicted, expected)
    assert len(set(matches.values())) == len(matches)
    matched = [dice[e - 1, p - 1] for e, p in matches.items()]
    assert sum(matched) == pytest.approx(best)
    assert all(value > 0 for value in matched)


def dice_of(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("kind", CONVENTION_OF)
@pytest.mark.parametrize(
    "case", ["blobs_anisotropic_1", "small_lesions", "at_the_border", "both_empty"]
)
def test_turning_both_maps_changes_nothing(kind, case):
    prediction, reference, spacing = CASES[case]
    upright = CONVENTION_OF[kind].evaluate(
        prediction, reference, spacing=spacing, targets=REGIONS
    )
    maps = [
        np.ascontiguousarray(array.transpose(1, 2, 0)[::-1])
        for array in (prediction, reference)
    ]
    turned = CONVENTION_OF[kind].evaluate(
        *maps, spacing=(spacing[1], spacing[2], spacing[0]), targets=REGIONS
    )
    for region in REGIONS:
        numbers = {
            key: value
            for key, value in upright[region].items()
            if key not in ("lesions", "empty")
        }
        assert {key: turned[region][key] for key in numbers} == pytest.approx(numbers)


@pytest.mark.parametrize("kind", CONVENTION_OF)
def test_space_around_changes_nothing_but_specificity(kind):
    prediction, reference, spacing = CASES["blobs_isotropic_2"]
    inner = [np.zeros_like(array) for array in (prediction, reference)]
    for new, old in zip(inner, (prediction, reference), strict=True):
        new[5:-5, 5:-5, 5:-5] = old[5:-5, 5:-5, 5:-5]
    wide = [np.pad(array, 7) for array in inner]
    one, other = (
        CONVENTION_OF[kind].evaluate(*maps, spacing=spacing, targets=REGIONS)
        for maps in (inner, wide)
    )
    for region in REGIONS:
        for metric in set(one[region]) - {"specificity"}:
            assert one[region][metric] == other[region][metric]


def test_lesions_are_one_where_their_dilations_touch():
    reference = np.zeros(SHAPE, np.int16)
    reference[10, 10, 10] = reference[10, 16, 10] = 1
    gli = choose_convention("brats-lesion-wise", {"min_lesion_mm3": 0})
    maps = (reference, reference)
    one = gli.evaluate(*maps, spacing=ISOTROPIC, targets={"x": (1,)})["x"]
    assert (one["lesions_found"], len(one["lesions"])) == (1, 1)
    for dilation in (0, 2):
        near = choose_convention(
            "brats-lesion-wise", {"min_lesion_mm3": 0, "dilation": dilation}
        )
        two = near.evaluate(*maps, spacing=ISOTROPIC, targets={"x": (1,)})["x"]
        assert two["lesions_found"] == 2


def test_each_lesion_is_listed():
    rows = measured(CONVENTION_OF["met"], "small_lesions")["WT"]["lesions"]
    assert sorted(row["volume_mm3"] for row in rows) == [27, 27, 729]
    by_dice = sorted(rows, key=lambda row: row["dice"])
    assert [row["components"] for row in by_dice] == [0, 1, 1]
    instances = measured(CONVENTION_OF["instance"], "small_lesions")["WT"]["lesions"]
    assert sorted(row["volume_mm3"] for row in instances) == [1, 27, 27, 729]
    assert sum("dice" in row for row in instances) == 2


@pytest.mark.parametrize("kind", CONVENTION_OF)
def test_ignored_voxels_count_nowhere(kind):
    prediction, reference, spacing = CASES["blobs_isotropic_3"]
    marked = reference.astype(np.int16)
    marked[:9] = IGNORED
    cleared = reference.copy()
    cleared[:9] = 0
    emptied = prediction.copy()
    emptied[:9] = 0
    convention = CONVENTION_OF[kind]
    with_marks = convention.evaluate(
        prediction.astype(np.int16), marked, spacing=spacing, targets=REGIONS
    )
    without = convention.evaluate(emptied, cleared, spacing=spacing, targets=REGIONS)
    for region in REGIONS:
        for metric in set(without[region]) - {"specificity"}:
            assert with_marks[region][metric] == without[region][metric]


@pytest.mark.parametrize(
    ("name", "metric", "case"),
    [
        ("brats-legacy", "hd95_mm", "empty_prediction"),
        ("brats-lesion-wise", "hd95_mm", "empty_reference"),
        ("brats-instance", "instance_hd95_mm", "no_overlap"),
    ],
)
def test_the_penalty_is_a_parameter(name, metric, case):
    convention = choose_convention(name, {"penalty_mm": 12.5})
    assert measured(convention, case)["WT"][metric] == 12.5
    assert convention.describe()["penalty_mm"] == 12.5


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_describes_itself(name):
    convention = choose_convention(name)
    described = json.loads(json.dumps(convention.describe(), allow_nan=False))
    assert described["name"] == name
    assert set(convention.ranked) <= set(measured(convention, "perfect")["WT"])
    assert set(type(convention).model_fields) <= set(described)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_different_shapes_are_refused(name):
    with pytest.raises(GeometryError, match="shape"):
        choose_convention(name).evaluate(
            np.zeros((3, 4, 5), int),
            np.zeros((3, 4, 6), int),
            spacing=ISOTROPIC,
            targets=REGIONS,
        )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("brats", {}, "does not exist; choose one of trivox, brats-legacy"),
        ("brats-legacy", {"dilation": 1}, "no parameter 'dilation'; it has penalty_mm"),
        (
            "brats-lesion-wise",
            {"dilation": -1},
            "dilation: .*greater than or equal to 0",
        ),
        ("brats-lesion-wise", {"dilation": 1.5}, "dilation: .*integer"),
        ("brats-lesion-wise", {"min_lesion_mm3": "small"}, "min_lesion_mm3: .*number"),
        ("brats-instance", {"penalty_mm": float("inf")}, "penalty_mm: .*finite"),
        ("trivox", {"tolerance_mm": 1e308}, "tolerance_mm: .*less than"),
        ("brats-instance", {"penalty_mm": 1e300}, "penalty_mm: .*less than"),
        ("trivox", {"tolerance_mm": -1.0}, "tolerance_mm: .*greater"),
    ],
)
def test_parameters_that_do_not_exist_or_fit_are_refused(name, settings, message):
    with pytest.raises(RecipeError, match=message) as caught:
        choose_convention(name, settings)
    assert "\n" not in str(caught.value)
