"""The BraTS metrics against the official packages themselves;
`benchmarks/setup_oracles.sh` makes a venv that has them.

The script of 2023 is no package: its values are in tests/golden, which
`tests/brats_oracles.py` writes; here its surface distances are met again, from
DeepMind's package.
"""

import numpy as np
import pytest

from brats_cases import REGIONS, brats_cases
from trivox.evaluation.conventions.choice import choose_convention
from trivox.evaluation.metrics.surfaces import surface_distances

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


def random_case(seed, spacing):
    """A pair of label maps that are specks everywhere."""
    rng = np.random.default_rng(seed)
    maps = rng.choice(4, (2, 14, 15, 16), p=[0.9, 0.04, 0.03, 0.03])
    prediction, reference = maps.astype(np.uint8)
    return prediction, reference, spacing


CASES = brats_cases() | {
    "random_0": random_case(0, (1.0, 1.0, 1.0)),
    "random_1": random_case(1, (2.0, 1.5, 0.5)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def assert_same(name, theirs, case):
    prediction, reference, spacing = case
    regions = choose_convention(name).evaluate(
        prediction, reference, spacing=spacing, targets=REGIONS
    )
    for region, metrics in theirs.items():
        for metric, value in metrics.items():
            expected = value
            if value is not None:
                tolerance = 1e-3 if metric.endswith("_mm") else 1e-6
                expected = pytest.approx(value, abs=tolerance)
            assert regions[region][metric] == expected, (region, metric)


@each_case
def test_panoptica(case):
    pytest.importorskip("panoptica")
    pytest.importorskip("brats_evaluation")
    from brats_oracles import instance_wise

    assert_same("brats-instance", instance_wise(*case), case)


@each_case
def test_medpy(case):
    pytest.importorskip("medpy")
    from brats_oracles import legacy

    assert_same("brats-legacy", legacy(*case), case)


@each_case
def test_surface_distances_of_deepmind(case):
    google = pytest.importorskip("surface_distance")
    prediction, reference, spacing = case
    predicted = prediction > 0
    true = reference > 0
    distances = surface_distances(predicted, true, spacing=spacing, convention="mesh")
    expected = None
    if predicted.any() and true.any():
        theirs = google.compute_surface_distances(true, predicted, spacing)
        distance = google.compute_robust_hausdorff(theirs, 95)
        expected = pytest.approx(distance, abs=1e-3)
    assert distances.hausdorff_mm() == expected
