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
    smooth = gaussian_filter(noise, (0, 2, 2, 2))
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
        hausdorff = distances.hausdorff_mm(percentile or 100)
        assert hausdorff == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_average_surface_distance(metrics, masks, spacing):
    theirs = metrics.compute_average_surface_distance(
        *map(one_hot, masks),
        include_background=True,
        symmetric=True,
        spacing=list(spacing),
    )
    average = surface_distances(*masks, spacing=spacing).average_mm()
    assert average == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("convention", ["voxel", "mesh"])
def test_surface_dice(metrics, masks, spacing, convention):
    distances = surface_distances(*masks, spacing=spacing, convention=convention)
    for tolerance in (0.0, 0.7, 1.4, 2.0, 3.0):
        theirs = metrics.compute_surface_dice(
            *map(one_hot, masks),
            [tolerance],
            include_background=True,
            spacing=list(spacing),
            use_subvoxels=convention == "mesh",
        )
        surface_dice = distances.surface_dice(tolerance)
        assert surface_dice == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_neighbourhoods(metrics, spacing):
    table, kernel = metrics.utils.get_code_to_measure_table(spacing)
    weights = [int(kernel.reshape(2, 2, 2)[corner]) for corner in CORNERS]
    codes = np.arange(256)
    bits = codes[:, None] >> np.arange(8) & 1
    theirs = np.array(table)[bits @ weights]
    assert element_areas(spacing) == pytest.approx(theirs, rel=1e-6)


def test_overlap(metrics, masks):
    labels = masks.astype(np.int16)
    values = evaluate_case(*labels, spacing=(1, 1, 1), targets={"x": (1,)})["x"]
    dice = metrics.compute_dice(*map(one_hot, masks), include_background=True)
    iou = metrics.compute_iou(*map(one_hot, masks), include_background=True)
    assert values["dice"] == pytest.approx(dice.item(), rel=1e-6)
    assert values["iou"] == pytest.approx(iou.item(), rel=1e-6)
