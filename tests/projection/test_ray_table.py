"""The operator of GPUs is, on any device, the one that rays are followed for on a CPU."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import GeometryError, ResourceError
from trivox.projection import ray_table
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.joseph import joseph
from trivox.projection.projector import Projector
from trivox.projection.ray_table import RayTable
from trivox.projection.rays import follow
from trivox.projection.siddon import siddon
from trivox.projection.tracing import Tracing

GRID = Grid((7, 9, 8), (9.0, 8.0, 7.0), (3.0, -2.0, 4.0))
EXAM = Geometry.orbit(
    (0, 44, 130), detector=(6, 9), pixel_mm=(14.0, 12.0), secondary=(0.0, 12.0, -20.0)
)
HOST = torch.device("cpu")


def seeded(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def both(geometry, grid, rule, *, keep=False):
    table = RayTable(geometry, grid, rule, dtype=torch.float64, device=HOST, keep=keep)
    return table, Tracing(geometry, grid, rule, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.floats(2.0, 12.0)] * 3),
    centre=st.tuples(*[st.floats(-30.0, 30.0)] * 3),
    angles=st.lists(st.floats(-180, 180), min_size=0, max_size=3),
    tilt=st.floats(-40, 40),
    detector=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    rule=st.sampled_from([joseph, siddon]),
)
def test_it_is_the_same_matrix_whatever_the_rays(
    shape, spacing, centre, angles, tilt, detector, rule
):
    grid = Grid(shape, spacing, centre)
    geometry = Geometry.orbit(angles, detector=detector, pixel_mm=20.0, secondary=tilt)
    table, tracing = both(geometry, grid, rule)
    volumes = seeded(2, *shape)
    images = seeded(2, len(angles), *detector)
    torch.testing.assert_close(
        table.forward(volumes), tracing.forward(volumes), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(
        table.adjoint(images), tracing.adjoint(images), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("rule", [joseph, siddon])
@pytest.mark.parametrize("keep", [False, True])
def test_parts_and_what_is_kept_change_nothing(rule, keep, monkeypatch):
    volumes = seeded(2, *GRID.shape)
    images = seeded(2, 3, 6, 9)
    whole, _ = both(EXAM, GRID, rule)
    expected = whole.forward(volumes), whole.adjoint(images)
    assert len(whole.parts) == 1
    monkeypatch.setattr(ray_table, "SAMPLES", 100)
    table, _ = both(EXAM, GRID, rule, keep=keep)
    assert len(table.parts) > 10
    for _ in range(2):
        torch.testing.assert_close(table.forward(volumes), expected[0])
        torch.testing.assert_close(table.adjoint(images), expected[1])
    assert len(table.kept) == (len(table.parts) if keep else 0)


def test_its_adjoint_is_exact():
    for rule in (joseph, siddon):
        table, _ = both(EXAM, GRID, rule)
        x = seeded(2, *GRID.shape)
        q = seeded(2, 3, 6, 9)
        forward = (table.forward(x) * q).sum()
        backward = (x * table.adjoint(q)).sum()
        assert abs(forward / backward - 1) < 1e-12


def test_what_is_made_in_inference_is_of_use_in_training():
    with torch.inference_mode():
        table, _ = both(EXAM, GRID, joseph, keep=True)
        table.forward(seeded(1, *GRID.shape))
    weights = table.kept[0][1]
    assert not weights.is_inference()


def test_a_matrix_without_end_is_refused_in_one_line():
    large = Grid((8, 8, 600), (1.0, 1.0, 1.0))
    views = Geometry.orbit((0, 90), detector=(1024, 1024), pixel_mm=0.4)
    with pytest.raises(ResourceError, match="use method 'joseph' or 'siddon'"):
        RayTable(views, large, joseph, dtype=torch.float32, device=HOST, keep=True)


def test_rays_that_were_followed_ahead_are_found(monkeypatch):
    geometry = Geometry.orbit((0, 44), detector=(6, 9), pixel_mm=13.0)
    batch = Geometry.stack([geometry, geometry])
    follow(batch, GRID)
    monkeypatch.setattr("trivox.projection.rays._pencils", None)  # cannot be called
    Projector(batch, GRID).project(torch.zeros(2, *GRID.shape))
    Projector(batch.exam(slice(1, 2)), GRID).project(torch.zeros(1, *GRID.shape))


def test_a_grid_behind_the_source_is_noticed_ahead():
    geometry = Geometry.orbit([0], detector=(4, 4), pixel_mm=1.0, sod=20.0, sdd=40.0)
    with pytest.raises(GeometryError, match="behind the X-ray source"):
        follow(geometry, GRID)


def test_what_a_geometry_keeps_is_freed_with_it():
    """Memory of a GPU cannot wait for Python to look for circles."""
    geometry = Geometry.orbit((0, 44), detector=(6, 9), pixel_mm=13.0)
    batch = Geometry.stack([geometry, geometry])
    projector = Projector(batch.binned(3), GRID)
    projector.project(torch.zeros(2, *GRID.shape))
    operators = projector._operators(torch.float32, HOST)
    kept = [weakref.ref(operator) for operator in operators]
    gc.disable()
    try:
        del projector, operators, batch
        assert [reference() for reference in kept] == [None, None]
    finally:
        gc.enable()
