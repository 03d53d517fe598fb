"""Lifting: a voxel looks up its own places, whatever the order of the views."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networks.xray2ct.toys import GRID, WATER, exams, furthest, orbit
from trivox.networks.xray2ct.lifting import ViewLifting, crossing, fuse, look
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays


def lifting(inputs=5, features=3):
    torch.manual_seed(0)
    return ViewLifting(inputs, features).eval()


def maps(views, channels=5, batch=1, size=16):
    return torch.randn(
        batch, views, channels, size, size, generator=torch.Generator().manual_seed(1)
    )


def sight_of(xrays, grid=GRID):
    (sight,) = look(xrays, (grid,), water_per_mm=WATER)
    return sight


def see_through():
    """A lifting that hands on a single channel as it is: a voxel's brightness in the
    views.
    """
    made = ViewLifting(1, 1)
    for layer in (made.reduce, made.point, made.score):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        made.reduce.weight[0, 0] = made.point.weight[0, 0] = 1
    return made


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    voxel=st.tuples(*(st.integers(2, 13),) * 3),
    first=st.floats(-90, 90),
    apart=st.floats(60, 120),
    tilt=st.floats(-20, 20),
)
@example(voxel=(2, 4, 4), first=13.0, apart=117.0, tilt=0.0)
def test_a_bright_point_is_lifted_to_where_it_is(voxel, first, apart, tilt):
    """The lifting's geometry is the renderer's: rays of all views meet at the point
    again. This is so among voxels that all views see; elsewhere the mean over the views
    that see a voxel is the brightness of a single ray.
    """
    volume = torch.zeros(1, *GRID.shape)
    volume[(0, *voxel)] = 1.0
    geometry = orbit(
        first, first + apart, detector=(64, 64), pixel_mm=7.0, secondary=[tilt, -tilt]
    )
    images = Projector(geometry, GRID).project(volume)
    sight = sight_of(Xrays.of(images, geometry))
    mean, *_ = see_through()(images[:, :, None], sight)[0]
    seen_by_all = sight.seen[0].all(dim=0).reshape(GRID.shape)
    assert seen_by_all[voxel]
    brightest = mean.masked_fill(~seen_by_all, -torch.inf).argmax()
    place = torch.unravel_index(brightest, mean.shape)
    assert (
        max(abs(int(n) - wanted) for n, wanted in zip(place, voxel, strict=True)) <= 1
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_views_by_90_degrees_turns_the_fused_features(turns):
    xrays = exams(orbit(0, 35, 100))
    here = maps(3)
    turned = Xrays.of(
        xrays.images, orbit(*(angle + 90 * turns for angle in (0, 35, 100)))
    )
    block = lifting()
    fused = block(here, sight_of(xrays))
    # Of (y, x): the source goes from +y to -x.
    expected = torch.rot90(fused, turns, dims=(4, 3))
    assert furthest(block(here, sight_of(turned)), expected) < 1e-4
    assert furthest(fused, expected) > 0.1


def test_the_order_of_views_is_without_effect_and_which_image_belongs_to_which_is_not():
    xrays = exams(orbit(0, 35, 100))
    here = maps(3)
    block = lifting()
    order = [1, 2, 0]
    fused = block(here, sight_of(xrays))
    assert furthest(block(here[:, order], sight_of(xrays.select(order))), fused) < 1e-5
    assert furthest(block(here[:, order], sight_of(xrays)), fused) > 0.1


def test_seeing_everything_twice_tells_nothing_new():
    xrays = exams(orbit(0, 35))
    here = maps(2)
    block = lifting()
    twice = [0, 1, 0, 1]
    assert (
        furthest(
            block(here[:, twice], sight_of(xrays.select(twice))),
            block(here, sight_of(xrays)),
        )
        < 1e-5
    )


def test_absent_views_are_left_out():
    xrays = exams(orbit(0, 35, 100))
    here = maps(3)
    block = lifting()
    absent = xrays.without(torch.tensor([[False, True, False]]))
    left = [0, 2]
    assert (
        furthest(
            block(here, sight_of(absent)),
            block(here[:, left], sight_of(xrays.select(left))),
        )
        < 1e-5
    )


def test_what_no_view_sees_is_zero():
    block = lifting()
    xrays = exams(orbit(0, 90))
    none = xrays.without(torch.ones(1, 2, dtype=torch.bool))
    assert not block(maps(2), sight_of(none)).any()
    assert not block(maps(0), sight_of(exams(orbit()))).any()
    small = Xrays.of(torch.ones(1, 2, 8, 8), orbit(0, 90, detector=(8, 8)))
    fused = block(maps(2), sight_of(small))
    seen = sight_of(small).seen.any(dim=1).reshape(GRID.shape)
    assert 0 < seen.float().mean() < 0.7
    assert not fused[0, :, ~seen].any()
    assert fused[0, :, seen].any()


def test_mean_and_maximum_are_those_of_the_views_that_see_a_voxel():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 2, 50)
    score = torch.randn(1, 4, 1, 50)
    seen = torch.rand(1, 4, 1, 50) < 0.6
    mean, highest, weighted = fuse(x, score, seen)
    for n in range(50):
        chosen = seen[0, :, 0, n]
        if not chosen.any():
            continue
        values = x[0, chosen, :, n]
        weights = score[0, chosen, 0, n].softmax(0)
        torch.testing.assert_close(mean[0, :, n], values.mean(0))
        torch.testing.assert_close(highest[0, :, n], values.amax(0))
        torch.testing.assert_close(weighted[0, :, n], weights @ values)


def test_exams_with_views_of_their_own_are_each_lifted_alone():
    first = orbit(0, 80)
    second = orbit(20, 130, sod=800.0)
    one = exams(first, seed=1)
    other = exams(second, seed=2)
    both = Xrays.of(
        torch.cat((one.images, other.images)), Geometry.stack([first, second])
    )
    here = maps(2, batch=2)
    block = lifting()
    together = block(here, sight_of(both))
    assert furthest(together[:1], block(here[:1], sight_of(one))) < 1e-5
    assert furthest(together[1:], block(here[1:], sight_of(other))) < 1e-5


def test_a_box_of_water_shows_the_attenuation_of_water_along_every_ray():
    geometry = orbit(0, 40, detector=(64, 64), pixel_mm=9.0)
    volume = torch.full((1, *GRID.shape), WATER)
    facts = sight_of(
        Xrays.of(Projector(geometry, GRID).project(volume), geometry)
    ).facts
    mean = facts[0, :, 2].reshape(2, *GRID.shape)[:, 2:-2, 2:-2, 2:-2]
    assert (mean - 1).abs().max() < 0.05


def test_facts_say_how_far_and_how_aslant_a_voxel_is_seen():
    grid = Grid((9, 9, 9), (20.0, 20.0, 20.0))
    sight = sight_of(exams(orbit(0), grid=grid), grid)
    depth, cosine, _, seen = sight.facts[0, 0].reshape(4, 9, 9, 9)
    assert seen.all()
    assert depth[4, 4, 4] == pytest.approx(0, abs=1e-6)
    # The source stands in front (+y).
    assert depth[4, 8, 4] == pytest.approx(-4 * 80 / 850, rel=1e-4)
    assert cosine[4, 4, 4] == pytest.approx(1, abs=1e-6)
    assert cosine[8, 4, 4] == pytest.approx(850 / (850**2 + 80**2) ** 0.5, rel=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    direction=st.tuples(*(st.floats(-1, 1),) * 3).filter(
        lambda d: sum(c * c for c in d) > 0.1
    ),
    point=st.tuples(*(st.floats(-70, 70),) * 3),
)
def test_a_line_through_the_box_is_as_long_as_the_samples_within(direction, point):
    grid = Grid((8, 10, 12), (20.0, 18.0, 14.0), (5.0, -3.0, 2.0))
    along = torch.nn.functional.normalize(
        torch.tensor(direction, dtype=torch.float64), dim=0
    )
    start = torch.tensor(point, dtype=torch.float64)
    places = (
        start + torch.linspace(-400, 400, 80001, dtype=torch.float64)[:, None] * along
    )
    half = torch.tensor(grid.extent_mm[::-1]) / 2
    within = ((places - torch.tensor(grid.centre_mm)).abs() <= half).all(
        dim=1
    ).sum() * 0.01
    assert float(crossing(along[None], start[None], grid)) == pytest.approx(
        float(within), abs=0.05
    )
