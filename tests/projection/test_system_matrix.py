"""The sparse matrix: the same numbers as the rays, kept."""

import math

import pytest
import torch

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.joseph import joseph
from trivox.projection.projector import Projector
from trivox.projection.siddon import siddon
from trivox.projection.system_matrix import SystemMatrix
from trivox.projection.tracing import Tracing

GRID = Grid((10, 9, 8), (9.0, 8.0, 7.0), (3.0, -2.0, 4.0))
EXAM = Geometry.orbit(
    (0, 44, 130), detector=(12, 15), pixel_mm=(9.0, 8.0), secondary=(0.0, 12.0, -20.0)
)
KIND = {"dtype": torch.float64}


@pytest.mark.parametrize("rule", [joseph, siddon])
def test_the_matrix_is_what_tracing_computes(rule):
    matrix = SystemMatrix(EXAM, GRID, rule, **KIND)
    tracing = Tracing(EXAM, GRID, rule, **KIND)
    volumes = torch.rand(3, *GRID.shape, dtype=torch.float64)
    images = torch.rand(3, 3, 12, 15, dtype=torch.float64)
    torch.testing.assert_close(matrix.forward(volumes), tracing.forward(volumes))
    torch.testing.assert_close(matrix.adjoint(images), tracing.adjoint(images))


def test_columns_are_the_images_of_single_voxels():
    matrix = SystemMatrix(EXAM, GRID, joseph, **KIND)
    dense = torch.zeros(3 * 12 * 15, math.prod(GRID.shape), dtype=torch.float64)
    dense[matrix.which] = matrix.matrix.to_dense()
    units = torch.eye(math.prod(GRID.shape), dtype=torch.float64)[100:104]
    images = Tracing(EXAM, GRID, joseph, **KIND).forward(units.view(-1, *GRID.shape))
    torch.testing.assert_close(images.flatten(1), dense[:, 100:104].T)
    torch.testing.assert_close(matrix.transpose.to_dense(), matrix.matrix.to_dense().T)


def test_only_voxels_that_a_ray_meets_are_entries():
    matrix = SystemMatrix(EXAM, GRID, joseph, **KIND).matrix
    assert (matrix.values() > 0).all()
    assert (
        matrix.crow_indices()[-1] == len(matrix.values()) < 0.6 * 4 * 3 * 12 * 15 * 10
    )


def kinds(detector, grid, **options):
    geometry = Geometry.orbit((0, 90), detector=detector, pixel_mm=4.0)
    projector = Projector(geometry, grid, **options)
    projector.project(torch.zeros(1, *grid.shape))
    operators = projector._operators(torch.float32, torch.device("cpu"))
    return {type(operator) for operator in operators}


def test_auto_keeps_the_matrix_while_it_is_small():
    small = Grid((8, 8, 8), (8.0, 8.0, 8.0))
    large = Grid((2, 2, 600), (1.0, 1.0, 1.0))
    assert kinds((8, 8), small) == {SystemMatrix}
    assert kinds((64, 64), large) == {Tracing}
    assert kinds((64, 64), large, method="matrix") == {SystemMatrix}
    assert kinds((8, 8), small, method="joseph") == {Tracing}


def test_what_projectors_keep_is_built_once_for_a_geometry():
    projector = Projector(EXAM, GRID)
    kind = {**KIND, "device": torch.device("cpu")}
    (first,) = projector._operators(**kind)
    projector.project(torch.zeros(1, *GRID.shape, dtype=torch.float64))
    other = Projector(EXAM, Grid(GRID.shape, GRID.spacing, GRID.centre_mm))
    assert projector._operators(**kind)[0] is first
    assert other._operators(**kind)[0] is first
    assert Projector(EXAM, GRID, method="siddon")._operators(**kind)[0] is not first
