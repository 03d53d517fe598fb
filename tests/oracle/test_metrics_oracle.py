"""Parity of the surface metrics with MONAI.

`import monai` takes seconds, hence only in the fixture.
"""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.metrics.mesh_areas import CORNERS, element_areas
from trivox.evaluation.metrics.surfaces import surface_distances

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
    ),
]

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.7, 0.7), (0.5, 2.0, 1.3)]


@pytest.fixture(scope="module")
def metrics():
    return pytest.importorskip("monai.metrics", exc_type=ImportError)


@pytest.fixture(params=["blobs", "noise", "border", "point"])
def masks(request):
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(2, 18, 21, 24))
    if request.param == "noise":  # every one of the 256 neighbourhoods occurs
        return noise > 0
    smooth = np.stack([gaussian_filter(field, 2) for field in noise])
    smooth = smooth + 0.5 * smooth[0]
    blobs = smooth > np.quantile(smooth, 0.85)
    if request.param == "border":
        blobs[:, 0] = True
    if request.param == "point":
        blobs[0] = False
        blobs[0, 3, 4, 5] = True
    return blobs


def one_hot(mask):
    import torch

    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_hausdorff_distance(metrics, masks, spacing):
    distances = surface_distances(*masks, spacing=spacing)
    for percentile in (95, None):
        theirs = metrics.compute_hausdorff_distance(
            *map(one_hot, masks),
            include_background=True,
            percentile=percentile,
            spacing=list(spacing),
        )
        close = pytest.approx(theirs.item(), rel=1e-6)
        assert distances.hausdorff_mm(percentile or 100) == close


@pytest.mark.parametrize("spacing", SPACINGS)
def test_average_surface_distance(metrics, masks, spacing):
    theirs = metrics.compute_average_surface_distance(
        *map(one_hot, masks),
        include_background=True,
        symmetric=True,
        spacing=list(spacing),
    )
    assert surface_distances(*masks, spacing=spacing).average_mm() == pytest.approx(
        theirs.item(), rel=1e-5
    )


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("surface", ["voxel", "mesh"])
def test_surface_dice(metrics, masks, spacing, surface):
    distances = surface_distances(*masks, spacing=spacing, surface=surface)
    for tolerance in (0.0, 0.7, 1.4, 2.0, 3.0):
        theirs = metrics.compute_surface_dice(
            *map(one_hot, masks),
            [tolerance],
            include_background=True,
            spacing=list(spacing),
            use_subvoxels=surface == "mesh",
        )
        close = pytest.approx(theirs.item(), abs=1e-6)
        assert distances.surface_dice(tolerance) == close


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_neighbourhoods(metrics, spacing):
    table, kernel = metrics.utils.get_code_to_measure_table(spacing)
    weights = [int(kernel.reshape(2, 2, 2)[corner]) for corner in CORNERS]
    theirs = []
    for code in range(256):
        their_code = sum(w for bit, w in enumerate(weights) if code >> bit & 1)
        theirs.append(table[their_code].item())
    assert element_areas(spacing) == pytest.approx(theirs, rel=1e-6)


def test_overlap(metrics, masks):
    case = evaluate_case(
        *masks.astype(np.int16), spacing=(1, 1, 1), targets={"x": (1,)}
    )["x"]
    dice = metrics.compute_dice(*map(one_hot, masks), include_background=True)
    iou = metrics.compute_iou(*map(one_hot, masks), include_background=True)
    assert case["dice"] == pytest.approx(dice.item(), rel=1e-6)
    assert case["iou"] == pytest.approx(iou.item(), rel=1e-6)
