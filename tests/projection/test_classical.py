"""Laws of nearest case, back-projection, FDK, visual hull, and of the ladder that joins
them.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from trivox.errors import DataError, GeometryError
from trivox.projection.attenuation import attenuation_of
from trivox.projection.classical import (
    backprojection,
    fdk,
    fit_affine,
    half_circle_shares,
    nearest_by_xrays,
    visual_hull,
)
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import sirt
from trivox.projection.ladder import ROWS, Ladder
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

GRID = Grid((20, 20, 20), (8.0, 8.0, 8.0))
FINE = GRID.resized((40, 40, 40))


def sphere(grid, centre=(0.0, 0.0, 0.0), radius=50.0):
    distance = (grid.points() - torch.tensor(centre)).norm(dim=-1)
    return (distance < radius).float()[None] * 0.02


def orbit(angles, offset=0.0, pixel_mm=5.0):
    geometry = Geometry.orbit(angles, detector=(44, 48), pixel_mm=pixel_mm)
    geometry.offset_mm[:] = offset
    return geometry


def turns(views, span):
    return [span * i / views for i in range(views)]


def xrays_of(volume, geometry, grid=FINE):
    return Xrays.of(Projector(geometry, grid).project(volume), geometry)


def silhouettes_of(volume, geometry, grid=FINE):
    xrays = xrays_of(volume, geometry, grid)
    return Xrays((xrays.images > 0).float(), geometry, xrays.present)


# -- nearest, affine fit, back-projection ----------------------------------------------
def test_the_nearest_case_is_found_under_noise():
    generator = torch.Generator().manual_seed(0)
    library = torch.rand(6, 2, 5, 7, generator=generator)
    order = torch.tensor([4, 0, 5])
    noisy = library[order] + 0.05 * torch.randn(3, 2, 5, 7, generator=generator)
    assert torch.equal(nearest_by_xrays(noisy, library), order)
    with pytest.raises(GeometryError, match="library"):
        nearest_by_xrays(noisy, library[:, :1])


def test_affine_fit_is_the_regression_line():
    rng = np.random.default_rng(0)
    x = rng.normal(-300, 200, (3, 4, 5))
    y = 1.7 * x + 40 + rng.normal(0, 30, x.shape)
    line = fit_affine(map(torch.from_numpy, x), map(torch.from_numpy, y))
    np.testing.assert_allclose(line, np.polyfit(x.ravel(), y.ravel(), 1), rtol=1e-9)
    assert fit_affine([torch.ones(4)], [torch.full((4,), 5.0)]) == (0.0, 5.0)


def test_back_projection_of_a_uniform_volume_is_uniform():
    geometry = orbit([0, 60], pixel_mm=8.0)
    full = torch.full((1, *GRID.shape), 0.02)
    volume = backprojection(xrays_of(full, geometry, GRID), Projector(geometry, GRID))
    assert torch.allclose(volume, full, atol=1e-6)


# -- FDK -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("views", "span", "bound"), [(180, 360, 0.01), (90, 180, 0.04)]
)
def test_fdk_of_a_uniform_sphere(views, span, bound):
    volume = fdk(xrays_of(sphere(FINE), orbit(turns(views, span))), GRID)[0]
    radius = GRID.points().norm(dim=-1)
    assert abs(float(volume[radius < 38].mean()) / 0.02 - 1) < 0.01
    assert float(volume[radius < 38].std()) / 0.02 < bound
    assert abs(float(volume[radius > 62].mean())) / 0.02 < 0.02


def test_fdk_is_its_formula():
    sod = 260.0
    sdd = 420.0
    pixel = 7.0
    image = np.random.default_rng(0).uniform(0, 3, (30, 40))
    geometry = Geometry.orbit(
        [0.0], detector=(30, 40), pixel_mm=pixel, sod=sod, sdd=sdd
    )
    xrays = Xrays.of(torch.from_numpy(image).float()[None, None], geometry)
    volume = fdk(xrays, GRID)[0].numpy()
    down, right = ((np.arange(size) - (size - 1) / 2) * pixel for size in image.shape)
    weighted = image * sdd / np.sqrt(sdd**2 + down[:, None] ** 2 + right**2)
    step = pixel * sod / sdd
    lag = np.arange(-39, 40)
    at_odd = -1 / (np.pi * np.where(lag == 0, 1, lag) * step) ** 2
    kernel = np.where(lag % 2 == 1, at_odd, 0.0)
    kernel[39] = 1 / (4 * step**2)
    filtered = np.stack([np.convolve(line, kernel)[39:79] for line in weighted]) * step
    x, y, z = GRID.points().double().numpy().transpose(3, 0, 1, 2)
    # the source is in front of the patient; columns run to the left (-x), rows to the
    # feet (-z)
    depth = sod - y
    places = [-z * sdd / depth / pixel + 14.5, -x * sdd / depth / pixel + 19.5]
    values = map_coordinates(filtered, places, order=1, mode="grid-constant")
    expected = np.pi * (sod / depth) ** 2 * values
    np.testing.assert_allclose(volume, expected, atol=2e-5 * np.abs(expected).max())


def test_fdk_finds_the_place_also_with_a_shifted_detector():
    ball = sphere(FINE, (25.0, -15.0, 10.0), 24.0)
    angles = turns(60, 360)
    plain = fdk(xrays_of(ball, orbit(angles, 0.0)), GRID)[0]
    shifted = fdk(xrays_of(ball, orbit(angles, 12.5)), GRID)[0]
    for volume in (plain, shifted):
        inside = volume > 0.01
        weighted = (GRID.points() * volume[..., None])[inside]
        middle = weighted.mean(0) / volume[inside].mean()
        assert torch.allclose(middle, torch.tensor([25.0, -15.0, 10.0]), atol=1.0)
    assert float((plain - shifted).norm() / plain.norm()) < 0.2


def test_fdk_heeds_only_present_views_in_any_order():
    xrays = xrays_of(sphere(FINE, (20.0, 0.0, 0.0)), orbit([0, 50, 100, 130]))
    present = torch.tensor([[True, True, False, True]])
    expected = fdk(xrays.select([0, 1, 3]), GRID)
    absent = Xrays(xrays.images, xrays.geometry, present)
    assert torch.allclose(fdk(absent, GRID), expected)
    assert torch.allclose(fdk(xrays.select([3, 0, 1]), GRID), expected, atol=1e-7)
    assert fdk(xrays.select([]), GRID).abs().max() == 0


def test_with_few_views_fdk_loses_to_sirt():
    geometry = orbit(turns(4, 180))
    truth = sphere(GRID)
    xrays = xrays_of(sphere(FINE), geometry)
    by_fdk = fdk(xrays, GRID)
    by_sirt = sirt(xrays, Projector(geometry, GRID), iterations=20)
    assert (by_fdk - truth).norm() > 1.5 * (by_sirt - truth).norm()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.floats(-360, 360), min_size=1, max_size=9))
def test_shares_of_the_half_circle_add_up(angles):
    shares = half_circle_shares(torch.tensor(angles))
    assert math.isclose(float(shares.sum()), math.pi, rel_tol=1e-4)
    assert shares.min() >= 0


@pytest.mark.parametrize(("views", "span"), [(1, 180), (4, 180), (8, 360), (5, 360)])
def test_even_views_count_the_same(views, span):
    assert torch.allclose(
        half_circle_shares(torch.tensor(turns(views, span))),
        torch.full((views,), math.pi / views),
    )


def test_lonely_views_count_for_more():
    angles = torch.tensor([210.0, 0.0, 90.0])  # 30, 0 and 90 modulo 180
    degrees = half_circle_shares(angles) * 180 / math.pi
    assert torch.allclose(degrees, torch.tensor([45.0, 60.0, 75.0]), atol=1e-4)


# -- visual hull -----------------------------------------------------------------------
def test_the_hull_holds_the_shape_and_shrinks_with_views():
    shape = torch.maximum(
        sphere(FINE, (20.0, 10.0, 0.0), 30.0), sphere(FINE, (-20.0, 0.0, 15.0), 25.0)
    )
    inside = torch.nn.functional.max_pool3d(shape, 2) > 0
    volumes = []
    for views in (1, 2, 4, 8):
        hull = visual_hull(silhouettes_of(shape, orbit(turns(views, 180))), GRID)
        assert bool((hull[inside] > 0).all())
        volumes.append(int((hull > 0.5).sum()))
    assert volumes[0] > volumes[1] > volumes[2] >= volumes[3] > 0
    assert volumes[3] < 1.4 * float((shape > 0).sum()) / 8


def test_what_a_view_does_not_show_is_not_denied():
    shape = sphere(FINE, radius=70.0)
    narrow = orbit([0.0], pixel_mm=2.0)  # shows the middle alone
    assert bool((visual_hull(silhouettes_of(shape, narrow), GRID) == 1).all())
    wide = silhouettes_of(shape, orbit([0.0, 90.0]))
    absent = wide.without(torch.tensor([[False, True]]))
    assert torch.equal(visual_hull(absent, GRID), visual_hull(wide.select([0]), GRID))
    assert bool((visual_hull(wide.select([]), GRID) == 1).all())


# -- the ladder ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def patients():
    """Five bodies of water with a bubble of air, in HU, and two views of each."""
    places = [
        (-30.0, 0.0, 0.0),
        (0.0, 30.0, 10.0),
        (0.0, -25.0, -20.0),
        (20.0, 20.0, 20.0),
        (15.0, 0.0, 25.0),
    ]
    geometry = orbit([0.0, 90.0], pixel_mm=6.0)
    bodies = []
    exams = []
    for place in places:
        attenuation = sphere(GRID, radius=70.0) - sphere(GRID, place, 30.0)
        bodies.append(1000 * (attenuation / 0.02 - 1)[0])
        exams.append(xrays_of(attenuation_of(bodies[-1])[None], geometry, GRID))
    return bodies, exams


@pytest.fixture(scope="module")
def ladder(patients):
    bodies, xrays = patients
    return Ladder.fit(
        iter(bodies[:4]),
        iter(xrays[:4]),
        GRID,
        water_per_mm=0.02,
        window=(-1024.0, 1476.0),
    )


def test_the_ladder_has_its_rows_in_order(ladder, patients):
    bodies, xrays = patients
    rows = ladder.reconstruct(xrays[4])
    assert tuple(rows) == ROWS
    error = {}
    for name, volume in rows.items():
        assert volume.shape == GRID.shape
        assert bool(volume.isfinite().all())
        error[name] = float((volume - bodies[4]).square().mean().sqrt())
    assert error["TV"] < error["SIRT"] < error["back-projection (affine fit)"]
    assert error["back-projection (affine fit)"] < error["constant"]
    assert error["SIRT from the mean volume"] < error["mean training volume"]
    assert error["mean training volume"] < error["constant"]


def test_the_ladder_learns_from_training_cases_alone(ladder, patients):
    bodies, xrays = patients
    known = ladder.reconstruct(xrays[2])
    assert torch.allclose(
        known["mean training volume"], torch.stack(bodies[:4]).mean(0), atol=0.01
    )
    assert float(known["constant"].std()) == 0
    assert torch.allclose(
        known["constant"][0, 0, 0], torch.stack(bodies[:4]).mean(), atol=0.1
    )
    assert torch.allclose(known["nearest training case by X-ray"], bodies[2], atol=0.5)
    unknown = ladder.reconstruct(xrays[4])["nearest training case by X-ray"]
    assert not torch.allclose(unknown, bodies[4], atol=0.5)


def test_back_projection_has_the_best_scale_on_training_cases(ladder, patients):
    bodies = patients[0][:4]
    exams = patients[1][:4]
    row = torch.stack(
        [ladder.reconstruct(exam)["back-projection (affine fit)"] for exam in exams]
    )
    best = (row - torch.stack(bodies)).square().mean()
    changes = [(1.05, 0), (0.95, 0), (1, 20), (1, -20), (1 / ladder.slope, 0)]
    for slope, offset in changes:
        assert (row * slope + offset - torch.stack(bodies)).square().mean() > best


def test_a_projector_at_hand_changes_nothing(ladder, patients):
    xrays = patients[1][4]
    one = ladder.reconstruct(xrays)
    other = ladder.reconstruct(xrays, Projector(xrays.geometry, GRID))
    assert all(torch.equal(one[name], other[name]) for name in ROWS)
    foreign = ladder.reconstruct(xrays, Projector(orbit([10.0, 80.0]), GRID))
    assert torch.equal(one["SIRT"], foreign["SIRT"])


def test_x_rays_on_another_detector_still_find_their_case(ladder, patients):
    bodies = patients[0]
    geometry = Geometry.orbit([0.0, 90.0], detector=(88, 96), pixel_mm=3.0)
    xrays = xrays_of(attenuation_of(bodies[1])[None], geometry, GRID)
    rows = ladder.reconstruct(xrays)
    assert torch.allclose(rows["nearest training case by X-ray"], bodies[1], atol=0.5)


def test_values_beyond_the_window_do_not_count(patients):
    bodies, xrays = patients
    metal = [body.clone() for body in bodies[:2]]
    metal[0][10, 10, 10] = 30_000
    ladder = Ladder.fit(
        metal, xrays[:2], GRID, water_per_mm=0.02, window=(-1024.0, 1476.0)
    )
    assert float(ladder.mean.max()) <= 1476


def test_no_training_case_is_an_error():
    with pytest.raises(DataError, match="at least one training case"):
        Ladder.fit([], [], GRID, water_per_mm=0.02, window=(-1024.0, 1476.0))
