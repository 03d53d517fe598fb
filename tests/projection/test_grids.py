from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from trivox.errors import GeometryError
from trivox.projection.geometry import Grid
from trivox.projection.grids import AIR, middle_of, on_grid, overlap_matrix, placed
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

HERE = (3.0, -7.5, 40.0)
GRID = Grid((6, 8, 10), (4.0, 3.0, 2.0), centre_mm=(5.0, -2.0, 1.0))
FLIPS = list(product((False, True), repeat=3))
ORIENTATIONS = [
    Orientation(axes, flips) for axes, flips in product(permutations(range(3)), FLIPS)
]


def noise(shape=GRID.shape, seed=0):
    return np.random.default_rng(seed).uniform(-1000, 1000, shape).astype(np.float32)


def linear_field(affine, shape):
    """HU that grow linearly in the world, `2 x - 3 y + z`, on the voxels of any grid."""
    index = np.moveaxis(np.indices(shape)[::-1], 0, -1)  # (z, y, x, 3) as (x, y, z)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return (world @ (2.0, -3.0, 1.0)).astype(np.float32)


def turned(angle, shear=0.0):
    sin = np.sin(angle)
    cos = np.cos(angle)
    return np.array([[cos, -sin, shear], [sin, cos, 0], [0, 0, 1]])


def test_a_grid_written_into_the_world_and_read_back_is_unchanged():
    there = placed(noise(), GRID, isocentre=HERE)
    np.testing.assert_allclose(on_grid(there, GRID, isocentre=HERE), noise(), atol=1e-3)


def test_placed_lies_about_isocentre_and_grid_centre():
    middle = middle_of(placed(noise(), GRID, isocentre=HERE))
    np.testing.assert_allclose(middle, np.add(HERE, GRID.centre_mm), atol=1e-4)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_of_the_file_does_not_matter(orientation):
    there = reorient(placed(noise(), GRID, isocentre=HERE), orientation)
    np.testing.assert_allclose(on_grid(there, GRID, isocentre=HERE), noise(), atol=1e-3)


def test_a_coarser_grid_holds_the_means_of_the_voxels_it_covers():
    coarse = GRID.resized((3, 4, 5))
    values = on_grid(placed(noise(), GRID, isocentre=HERE), coarse, isocentre=HERE)
    means = noise().reshape(3, 2, 4, 2, 5, 2).mean((1, 3, 5))
    np.testing.assert_allclose(values, means, atol=1e-3)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(sizes=st.tuples(*[st.integers(1, 9)] * 3))
def test_any_grid_over_the_same_field_of_view_keeps_the_mean_when_coarser(sizes):
    shape = [min(sizes) for sizes in zip(sizes, GRID.shape, strict=True)]
    coarse = GRID.resized(tuple(shape))
    values = on_grid(placed(noise(), GRID, isocentre=HERE), coarse, isocentre=HERE)
    assert values.mean() == pytest.approx(noise().mean(), abs=0.05)


def test_a_finer_grid_is_interpolated_linearly():
    fine = GRID.resized((18, 24, 30))
    values = on_grid(placed(noise(), GRID, isocentre=HERE), fine, isocentre=HERE)
    along = [(np.arange(3 * size) + 0.5) / 3 - 0.5 for size in GRID.shape]
    at = np.meshgrid(*along, indexing="ij")
    wanted = ndimage.map_coordinates(noise(), at, order=1, mode="nearest")
    np.testing.assert_allclose(values, wanted, atol=0.02)


@pytest.mark.parametrize(
    ("angle", "shear"), [(0.0, 0.0), (0.3, 0.0), (-1.1, 0.0), (0.02, 0.0), (0.0, 0.15)]
)
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_linear_fields_are_kept_on_oblique_and_sheared_grids(angle, shear, factor):
    shape = (24, 40, 42)
    affine = np.eye(4)
    affine[:3, :3] = turned(angle, shear) @ np.diag([1.1, 1.2, 2.0])
    affine[:3, 3] = HERE - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    grid = Grid((4, 6, 8), (2.0 * factor, 1.2 * factor, 1.1 * factor))
    field = Volume(linear_field(affine, shape)[None], affine)
    values = on_grid(field, grid, isocentre=HERE)
    points = grid.points().numpy() + np.array(HERE)
    x, y, z = points.transpose(3, 0, 1, 2)
    np.testing.assert_allclose(values, 2 * x - 3 * y + z, atol=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_fine_patterns_are_averaged_and_not_picked_on_oblique_grids_too(angle):
    shape = (8, 60, 60)
    affine = np.eye(4)
    affine[:3, :3] = turned(angle) @ np.diag([1.0, 1.0, 4.0])
    affine[:3, 3] = HERE - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    checkers = np.where(np.indices(shape).sum(axis=0) % 2, 800, -800).astype(np.float32)
    grid = Grid((2, 4, 4), (4.0, 8.0, 8.0))
    values = on_grid(Volume(checkers[None], affine), grid, isocentre=HERE)
    assert np.abs(values).max() < 60


def test_beyond_the_scan_is_air_and_borders_mix_by_volume():
    wide = Grid((1, 1, 4), (4.0, 3.0, 6.0))
    water = np.full((1, 1, 3), 200, np.int16)
    scan = placed(water, Grid((1, 1, 3), (4.0, 3.0, 4.0)), isocentre=HERE)
    values = on_grid(scan, wide, isocentre=HERE, outside=-1000)[0, 0]
    np.testing.assert_allclose(values, [-1000, 200, 200, -1000], atol=1e-3)
    moved = on_grid(scan, wide, isocentre=(HERE[0] + 3, *HERE[1:]), outside=-1000)[0, 0]
    np.testing.assert_allclose(moved, [-400, 200, -400, -1000], atol=1e-3)


def test_scanner_padding_is_air():
    values = np.array([-3024, -2000, -1024, 0], np.int16).reshape(1, 1, 4)
    grid = Grid((1, 1, 4), (1.0, 1.0, 1.0))
    scan = placed(values, grid, isocentre=HERE)
    hounsfield = on_grid(scan, grid, isocentre=HERE)
    np.testing.assert_array_equal(hounsfield[0, 0], [AIR, AIR, -1024, 0])


def test_rows_of_the_overlap_matrix_sum_to_what_lies_inside():
    centres = torch.tensor([-2.0, -0.5, 1.0, 3.25], dtype=torch.float64)
    matrix = overlap_matrix(4, 1.0, 0.0, centres, 1.0)
    np.testing.assert_allclose(matrix.sum(dim=1), [0, 0.5, 1, 0.75], atol=1e-6)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 3, 3)), np.full((1, 3, 3, 3), np.nan)]
)
def test_what_is_no_single_scan_is_refused(array):
    with pytest.raises(GeometryError):
        on_grid(Volume(array, affine_from_spacing((1, 1, 1))), GRID, isocentre=HERE)
