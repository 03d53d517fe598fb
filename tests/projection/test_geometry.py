"""Where X-rays were taken from: signs of angles and axes, and one geometry for rays and
points.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import GeometryError
from trivox.projection.geometry import Geometry, Grid

LEFT, RIGHT, FRONT, BACK, HEAD, FEET = (
    torch.tensor(point, dtype=torch.float32)
    for point in (
        (-50, 0, 0),
        (50, 0, 0),
        (0, 50, 0),
        (0, -50, 0),
        (0, 0, 50),
        (0, 0, -50),
    )
)
ROW = 0
COLUMN = 1


def views(*angles, secondary=0.0, **changes):
    settings = {"detector": (41, 61), "pixel_mm": (4.0, 5.0)} | changes
    return Geometry.orbit(angles, secondary=secondary, **settings)


def pixel(geometry, point):
    """(row, column) of a point in the first view."""
    return geometry.project_points(point[None])[0][0, 0]


def depth(geometry, point):
    return float(geometry.project_points(point[None])[1][0, 0])


# -- signs -----------------------------------------------------------------------------
def test_at_primary_0_the_source_is_in_front_and_the_image_shows_the_patients_left_on_its_right():
    ap = views(0)
    torch.testing.assert_close(
        ap.source[0], torch.tensor([0.0, 850.0, 0.0]), atol=1e-4, rtol=0
    )
    assert pixel(ap, LEFT)[COLUMN] > 30 > pixel(ap, RIGHT)[COLUMN]
    assert pixel(ap, HEAD)[ROW] < 20 < pixel(ap, FEET)[ROW]
    assert depth(ap, FRONT) < depth(ap, BACK)


def test_at_primary_90_the_source_is_on_the_patients_left_and_180_is_behind():
    lateral = views(90)
    pa = views(180)
    assert depth(lateral, LEFT) == pytest.approx(800, abs=1e-3)
    assert (
        pixel(lateral, BACK)[COLUMN] > 30 > pixel(lateral, FRONT)[COLUMN]
    )  # seen from the left, the face is on the left
    assert depth(pa, BACK) == pytest.approx(800, abs=1e-3)
    assert pixel(pa, RIGHT)[COLUMN] > 30 > pixel(pa, LEFT)[COLUMN]


@pytest.mark.parametrize("primary", [0, 90, 200])
def test_a_positive_secondary_angle_moves_the_detector_to_the_head(primary):
    tilted = views(primary, secondary=20.0)
    assert float(tilted.source[0, 2]) == pytest.approx(
        -850 * math.sin(math.radians(20)), abs=1e-3
    )
    assert float(tilted.pixel_points()[0, 20, 30, 2]) > 50
    assert (
        pixel(tilted, HEAD)[ROW] < 20 < pixel(tilted, FEET)[ROW]
    )  # the head stays at the top


def test_offsets_move_the_detector_down_and_to_the_right():
    geometry = views(0)
    geometry.offset_mm[:] = torch.tensor([8.0, 15.0])
    torch.testing.assert_close(
        pixel(geometry, torch.zeros(3)), torch.tensor([20.0 - 2, 30.0 - 3])
    )
    centre = geometry.pixel_points()[0, 20, 30]
    torch.testing.assert_close(
        centre, torch.tensor([-15.0, -170.0, -8.0]), atol=1e-4, rtol=0
    )


# -- one geometry for all --------------------------------------------------------------
angles = st.floats(-360, 360, width=32)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    angles,
    st.floats(-60, 60, width=32),
    st.floats(-20, 20, width=32),
    st.floats(-20, 20, width=32),
)
def test_every_pixel_projects_to_itself_and_so_does_every_point_of_its_ray(
    primary, secondary, down, right
):
    geometry = views(primary, secondary=secondary).to(torch.float64)
    geometry.offset_mm[:] = torch.tensor([down, right])
    pixels = geometry.pixel_points().flatten(0, 2)
    for along in (1.0, 0.4):
        points = geometry.source + along * (pixels - geometry.source)
        places, depths = geometry.project_points(points)
        sides = (torch.arange(41.0), torch.arange(61.0))
        rows, columns = torch.meshgrid(*sides, indexing="ij")
        expected = torch.stack((rows, columns), dim=-1).flatten(0, 1).double()
        torch.testing.assert_close(places[0], expected, atol=1e-8, rtol=0)
        torch.testing.assert_close(
            depths, torch.full_like(depths, along * 1020), atol=1e-8, rtol=0
        )


def test_magnification_grows_towards_the_source():
    geometry = views(0, sod=541.0, sdd=949.0)
    for y in (-160.0, 0.0, 160.0):
        place = pixel(geometry, torch.tensor([-100.0, y, 0.0]))
        assert float(place[COLUMN] - 30) * 5 == pytest.approx(
            100 * 949 / (541 - y), rel=1e-5
        )


def test_rays_are_pluecker_lines_through_source_and_pixel():
    geometry = views(37, secondary=-11.0).to(torch.float64)
    rays = geometry.rays()
    direction = rays[..., :3]
    moment = rays[..., 3:] * 850
    for point in (geometry.source[:, None, None], geometry.pixel_points()):
        torch.testing.assert_close(
            torch.linalg.cross(point.expand_as(direction), direction), moment
        )
    torch.testing.assert_close(
        direction.norm(dim=-1), torch.ones(1, 41, 61, dtype=torch.float64)
    )


# -- sizes -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sod", "sdd", "width"), [(850.0, 1020.0, 391), (541.0, 949.0, 588)]
)
def test_width_needed_is_the_shadow_of_the_cylinder(sod, sdd, width):
    geometry = views(0, sod=sod, sdd=sdd)
    needed = float(geometry.width_needed(160.0))
    assert needed == pytest.approx(width, abs=0.5)
    turn = torch.linspace(0, 2 * math.pi, 20001)
    rim = 160 * torch.stack((turn.cos(), turn.sin(), 0 * turn), dim=-1)
    columns = geometry.project_points(rim)[0][0, :, COLUMN]
    assert float(columns.max() - columns.min()) * 5 == pytest.approx(needed, rel=1e-5)


def test_binning_keeps_the_detector_and_averages_the_pixels():
    geometry = views(20, detector=(40, 60))
    fine = geometry.pixel_points()
    coarse = geometry.binned(2).pixel_points()
    means = fine.unflatten(2, (30, 2)).unflatten(1, (20, 2)).mean(dim=(2, 4))
    torch.testing.assert_close(coarse, means, atol=1e-3, rtol=0)
    with pytest.raises(GeometryError, match="41 x 61 pixels cannot be binned by 2"):
        views(0).binned(2)


def test_exams_are_stacked_and_taken_apart():
    one = views(0, 90)
    other = views(10, 100)
    batch = Geometry.stack([one, other])
    assert (batch.batched, batch.views, one.batched) == (True, 2, False)
    torch.testing.assert_close(batch.exam(1).primary, other.primary)
    torch.testing.assert_close(
        batch.select([1]).primary, torch.tensor([[90.0], [100.0]])
    )
    points = torch.randn(5, 3)
    torch.testing.assert_close(
        batch.project_points(points)[0][1], other.project_points(points)[0]
    )
    with pytest.raises(GeometryError, match="equal numbers of views"):
        Geometry.stack([one, views(0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sod": 1100.0}, "between source and detector"),
        ({"pixel_mm": 0.0}, "above 0"),
        ({"detector": (0, 4)}, "above 0"),
        ({"secondary": [1.0]}, "2 primary angles and 1 secondary"),
    ],
)
def test_impossible_geometry_is_refused(changes, message):
    with pytest.raises(GeometryError, match=message):
        views(0, 90, **changes)


def test_no_views_are_a_geometry_too():
    none = views(0, 90).select([])
    assert (none.views, none.pixel_points().shape) == (0, (0, 41, 61, 3))


# -- grid ------------------------------------------------------------------------------
def test_points_of_a_grid_are_its_voxel_centres_about_the_middle():
    grid = Grid((2, 3, 4), (10.0, 20.0, 30.0), (1.0, 2.0, 3.0))
    points = grid.points()
    torch.testing.assert_close(
        points.mean(dim=(0, 1, 2)), torch.tensor([1.0, 2.0, 3.0])
    )
    torch.testing.assert_close(
        points[1, 2, 3] - points[0, 0, 0], torch.tensor([90.0, 40.0, 10.0])
    )
    assert grid.extent_mm == (20.0, 60.0, 120.0)


def test_a_resized_grid_has_the_same_field_of_view():
    grid = Grid((8, 6, 4), (1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    other = grid.resized((4, 12, 2))
    assert (other.extent_mm, other.centre_mm, other.spacing) == (
        grid.extent_mm,
        grid.centre_mm,
        (2.0, 1.0, 6.0),
    )
