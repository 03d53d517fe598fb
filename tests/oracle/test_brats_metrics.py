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
RANDOM = {
    f"random_{seed}": (
        *np.random.default_rng(seed)
        .choice(4, (2, 14, 15, 16), p=[0.9, 0.04, 0.03, 0.03])
        .astype(np.uint8),
        spacing,
    )
    for seed, spacing in enumerate([(1.0, 1.0, 1.0), (2.0, 1.5, 0.5)])
}


def assert_same(name, theirs, case):
    prediction, reference, spacing = case
    ours = choose_convention(name).evaluate(
        prediction, reference, spacing=spacing, targets=REGIONS
    )
    for region, metrics in theirs.items():
        for metric, value in metrics.items():
            if value is None:
                assert ours[region][metric] is None
            else:
                tolerance = 1e-3 if metric.endswith("_mm") else 1e-6
                assert ours[region][metric] == pytest.approx(value, abs=tolerance), (
                    region,
                    metric,
                )


@pytest.mark.parametrize("case", [*CASES, *RANDOM])
def test_panoptica(case):
    pytest.importorskip("panoptica")
    pytest.importorskip("brats_evaluation")
    from brats_oracles import instance_wise

    assert_same(
        "brats-instance", instance_wise(*(CASES | RANDOM)[case]), (CASES | RANDOM)[case]
    )


@pytest.mark.parametrize("case", [*CASES, *RANDOM])
def test_medpy(case):
    pytest.importorskip("medpy")
    from brats_oracles import legacy

    assert_same("brats-legacy", legacy(*(CASES | RANDOM)[case]), (CASES | RANDOM)[case])


@pytest.mark.parametrize("case", [*CASES, *RANDOM])
def test_surface_distances_of_deepmind(case):
    google = pytest.importorskip("surface_distance")
    prediction, reference, spacing = (CASES | RANDOM)[case]
    masks = prediction > 0, reference > 0
    theirs = google.compute_surface_distances(masks[1], masks[0], spacing)
    distance = (
        google.compute_robust_hausdorff(theirs, 95)
        if all(mask.any() for mask in masks)
        else None
    )
    ours = surface_distances(*masks, spacing=spacing, convention="mesh").hausdorff_mm()
    assert ours == (None if distance is None else pytest.approx(distance, abs=1e-3))
