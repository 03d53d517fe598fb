"""Exact rays: lengths in voxels."""

import numpy as np
import pytest
import torch

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import project
from xray_phantoms import MU, box, chord_of_box, relative, sorted_crossings


@pytest.mark.parametrize("primary", [3, 41, 45, 138.5, -80])
def test_every_ray_equals_siddons_sorted_crossings(primary):
    grid = Grid((7, 9, 8), (9.0, 8.0, 7.0), (3.0, -2.0, 4.0))
    geometry = Geometry.orbit(
        [primary, primary],
        detector=(6, 9),
        pixel_mm=(14.0, 12.0),
        secondary=(0.5, -25.0),
    )
    geometry.offset_mm[:] = torch.tensor([4.1, -6.3])
    geometry = geometry.to(torch.float64)
    generator = torch.Generator().manual_seed(1)
    volume = torch.rand(grid.shape, dtype=torch.float64, generator=generator)
    images = project(volume[None], geometry, grid, method="siddon")[0]
    rays = np.ndindex(2, 6, 9)
    expected = [sorted_crossings(volume, geometry, grid, *ray) for ray in rays]
    expected = torch.tensor(expected, dtype=torch.float64).view_as(images)
    assert expected.count_nonzero() > 60
    torch.testing.assert_close(images, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("primary", "secondary"), [(0, 0), (31, 0), (45, 0), (90, 0), (77, 24)]
)
def test_a_box_of_whole_voxels_is_exact_at_every_angle(primary, secondary):
    half = (40.0, 32.0, 48.0)
    grid = Grid((32, 32, 32), (4.0, 4.0, 4.0))
    geometry = Geometry.orbit(
        [primary], detector=(48, 48), pixel_mm=3.7, secondary=secondary
    ).to(torch.float64)
    images = project(box(grid, half)[None], geometry, grid, method="siddon")[0]
    assert relative(images, chord_of_box(geometry, half) * MU) < 1e-9
    single = project(box(grid, half)[None].float(), geometry, grid, method="siddon")[0]
    assert relative(single, images) < 1e-5


@pytest.mark.parametrize("primary", [0, 90, 180])
def test_rays_along_the_faces_between_voxels_are_counted_once(primary):
    grid = Grid((4, 4, 4), (10.0, 10.0, 10.0))
    # the central ray, between the voxels
    geometry = Geometry.orbit([primary], detector=(1, 1), pixel_mm=1.0)
    integral = project(torch.ones(1, 4, 4, 4), geometry, grid, method="siddon")
    assert float(integral) == pytest.approx(40, rel=1e-5)
