import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from organ_maps import SPACING, label_map
from trivox.datasets.labels import IGNORED
from trivox.errors import GeometryError
from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.metrics import overlap
from trivox.evaluation.metrics.surfaces import surface_distances

AVERAGED = (
    "dice",
    "iou",
    "sensitivity",
    "precision",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "nsd_voxel",
)
TARGETS = {"organ": (1,), "tumour": (2,), "whole": (1, 2)}


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), spacing=st.tuples(*[st.floats(0.3, 4)] * 3))
def test_case_equals_each_target_measured_alone(seed, spacing):
    rng = np.random.default_rng(seed)
    prediction, reference = rng.integers(0, 4, (2, 7, 8, 9)).astype(np.int16)
    results = evaluate_case(prediction, reference, spacing=spacing, targets=TARGETS)
    for name, result in results.items():
        a = np.isin(prediction, TARGETS[name])
        b = np.isin(reference, TARGETS[name])
        counts = overlap.confusion(a, b)
        voxel = surface_distances(a, b, spacing=spacing, surface="voxel")
        mesh = surface_distances(a, b, spacing=spacing, surface="mesh")
        assert result["dice"] == overlap.dice(counts)
        assert result["precision"] == overlap.precision(counts)
        assert result["volume_ml"] == pytest.approx(a.sum() * np.prod(spacing) / 1000)
        assert result["hd95_mm"] == pytest.approx(voxel.hausdorff_mm())
        assert result["assd_mm"] == pytest.approx(voxel.average_mm())
        assert result["nsd"] == pytest.approx(mesh.surface_dice(2.0))
        assert result["nsd_voxel"] == pytest.approx(voxel.surface_dice(2.0))


def test_perfect_prediction():
    result = evaluate_case(label_map(), label_map(), spacing=SPACING, targets=TARGETS)[
        "whole"
    ]
    assert [result[key] for key in AVERAGED] == [1, 1, 1, 1, 0, 0, 1, 1]
    assert (result["volume_error_ml"], "empty" in result) == (0, False)


def test_empty_masks_follow_the_convention():
    with_it = label_map()
    without = label_map(tumour=False)
    both, missed, spurious = (
        evaluate_case(p, r, spacing=SPACING, targets={"tumour": (2,)})["tumour"]
        for p, r in ((without, without), (without, with_it), (with_it, without))
    )
    assert (both["empty"], {both[key] for key in AVERAGED}) == ("both", {None})
    for result, empty in ((missed, "prediction"), (spurious, "reference")):
        assert result["empty"] == empty
        assert [result[key] for key in ("dice", "iou", "nsd", "nsd_voxel")] == [0] * 4
        assert result["hd95_mm"] is result["assd_mm"] is None
    assert (missed["sensitivity"], missed["precision"]) == (0, None)
    far = evaluate_case(
        without,
        with_it,
        spacing=SPACING,
        targets={"tumour": (2,)},
        hd95_if_missed="diagonal",
    )
    assert far["tumour"]["hd95_mm"] == pytest.approx(np.linalg.norm([24, 16, 10]))
    same = evaluate_case(
        without,
        without,
        spacing=SPACING,
        targets={"tumour": (2,)},
        hd95_if_missed="diagonal",
    )
    assert same["tumour"]["hd95_mm"] is None


def test_ignored_voxels_count_nowhere():
    prediction = label_map()
    reference = label_map()
    prediction[0] = 2
    reference[0] = IGNORED
    marked = evaluate_case(prediction, reference, spacing=SPACING, targets=TARGETS)
    plain = evaluate_case(label_map(), label_map(), spacing=SPACING, targets=TARGETS)
    assert marked == plain


def test_tolerance_for_each_target():
    arrays = label_map(shift=3), label_map()
    mixed = evaluate_case(
        *arrays, spacing=SPACING, targets=TARGETS, tolerance_mm={"organ": 0.5}
    )
    strict = evaluate_case(*arrays, spacing=SPACING, targets=TARGETS, tolerance_mm=0.5)
    default = evaluate_case(*arrays, spacing=SPACING, targets=TARGETS)
    assert mixed["organ"] == strict["organ"]
    assert mixed["whole"] == default["whole"]


def test_different_shapes_are_refused():
    with pytest.raises(GeometryError, match="shape"):
        evaluate_case(label_map(), label_map()[1:], spacing=SPACING, targets=TARGETS)
