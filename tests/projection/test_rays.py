"""Which rays are followed, along which axis, and through which planes."""

import pytest
import torch

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import project
from trivox.projection.rays import pencils

GRID = Grid((20, 24, 28), (8.0, 8.0, 8.0), (10.0, -6.0, 14.0))
KIND = {"dtype": torch.float64}


def test_rays_that_miss_the_grid_are_left_out_and_the_others_come_once():
    geometry = Geometry.orbit(
        (0, 40), detector=(60, 70), pixel_mm=10.0, secondary=(0.0, 20.0)
    )
    which = torch.cat([rays.which for rays in pencils(geometry, GRID, **KIND)])
    assert len(which.unique()) == len(which)
    full = torch.ones(1, *GRID.shape, dtype=torch.float64)
    lit = project(full, geometry, GRID).flatten().nonzero()[:, 0]
    assert set(lit.tolist()) == set(which.tolist())
    assert len(which) < 0.5 * 2 * 60 * 70


@pytest.mark.parametrize("primary", [0, 43, 90])
def test_a_ray_is_driven_along_the_axis_that_it_crosses_most_of(primary):
    geometry = Geometry.orbit(
        [primary], detector=(40, 40), pixel_mm=10.0, secondary=10.0
    )
    groups = pencils(geometry, GRID, **KIND)
    assert max(float(rays.slope.abs().max()) for rays in groups) <= 1
    assert len({rays.strides[0] for rays in groups}) == (2 if primary == 43 else 1)


def test_parts_hold_every_ray_and_skip_planes_that_none_of_them_meets():
    grid = Grid((80, 96, 112), (2.0, 2.0, 2.0))
    geometry = Geometry.orbit((25,), detector=(120, 120), pixel_mm=3.4)
    for rays in pencils(geometry, grid, **KIND):
        parts = list(rays.parts())
        assert len(parts) > 3
        assert torch.equal(torch.cat([part.which for part in parts]), rays.which)
        for part in parts:
            assert part.within[0].min() == 0
            assert part.within[1].max() == part.planes
        assert sum(part.planes * len(part) for part in parts) < rays.planes * len(rays)
        last = parts[-1]
        start = (last.start - rays.start) // rays.strides[0]
        slope = rays.slope[:, -len(last) :]
        entered = rays.first[:, -len(last) :] + start * slope
        torch.testing.assert_close(last.places()[..., 0], entered)


@pytest.mark.parametrize("shift", [25.0, 200.0])
@pytest.mark.parametrize("method", ["joseph", "siddon", "matrix"])
def test_a_ray_along_the_grid_but_outside_reads_nothing(shift, method):
    grid = Grid((4, 4, 4), (10.0, 10.0, 10.0), (shift, 0.0, 0.0))
    # the central ray; one voxel off, it lies on the border
    geometry = Geometry.orbit([0], detector=(1, 1), pixel_mm=1.0)
    assert float(project(torch.ones(1, 4, 4, 4), geometry, grid, method=method)) == 0
