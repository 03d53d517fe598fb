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

CASES = brats_cases()
RANDOM = {}
for seed, spacing in enumerate([(1.0, 1.0, 1.0), (2.0, 1.5, 0.5)]):
    rng = np.random.default_rng(seed)
    maps = rng.choice(4, (2, 14, 15, 16), p=[0.9, 0.04, 0.03, 0.03]).astype(np.uint8)
    RANDOM[f"random_{seed}"] = (*maps, spacing)
ALL = CASES | RANDOM


def assert_same(name, official, case):
    prediction, reference, spacing = case
    metrics = choose_convention(name).evaluate(
        prediction, reference, spacing=spacing, targets=REGIONS
    )
    for region, expected in official.items():
        for metric, value in expected.items():
            if value is None:
                assert metrics[region][metric] is None
            else:
                tolerance = 1e-3 if metric.endswith("_mm") else 1e-6
                close = pytest.approx(value, abs=tolerance)
                assert metrics[region][metric] == close, (region, metric)


@pytest.mark.parametrize("case", ALL)
def test_panoptica(case):
    pytest.importorskip("panoptica")
    pytest.importorskip("brats_evaluation")
    from brats_oracles import instance_wise

    arrays = ALL[case]
    assert_same("brats-instance", instance_wise(*arrays), arrays)


@pytest.mark.parametrize("case", ALL)
def test_medpy(case):
    pytest.importorskip("medpy")
    from brats_oracles import legacy

    arrays = ALL[case]
    assert_same("brats-legacy", legacy(*arrays), arrays)


@pytest.mark.parametrize("case", ALL)
def test_surface_distances_of_deepmind(case):
    google = pytest.importorskip("surface_distance")
    prediction, reference, spacing = ALL[case]
    masks = prediction > 0, reference > 0
    expected = None
    if all(mask.any() for mask in masks):
        official = google.compute_surface_distances(masks[1], masks[0], spacing)
        hd95 = google.compute_robust_hausdorff(official, 95)
        expected = pytest.approx(hd95, abs=1e-3)
    distances = surface_distances(*masks, spacing=spacing, surface="mesh")
    assert distances.hausdorff_mm() == expected
