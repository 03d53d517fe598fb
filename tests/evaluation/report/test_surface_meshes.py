import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.evaluation.report.surface_meshes import (
    body_surface,
    mask_surface,
    surface_net,
)

FREE = 10**6
few = settings(max_examples=12, deadline=None, derandomize=True)


def affine(spacing=(1.0, 1.0, 1.0)):
    return np.diag([*spacing[::-1], 1.0])


def surface_of(mask):
    """The surface of voxels of 1 mm, however many vertices it has."""
    return mask_surface(mask, affine(), limit=FREE)


def volume_of_ball(radius):
    """mm^3."""
    return 4 / 3 * np.pi * radius**3


def ball(radius, spacing=(1.0, 1.0, 1.0)):
    axes = []
    for mm in spacing:
        count = int(2 * radius / mm) + 5
        places = np.arange(count) * mm
        axes.append(places - places.mean())
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


def corners(mesh):
    """First, second and third corner `(n, 3)` of all triangles."""
    places = mesh.vertices.astype(float)
    a, b, c = mesh.triangles.T
    return places[a], places[b], places[c]


def volume(mesh):
    """By the divergence theorem: positive if triangles face outwards."""
    a, b, c = corners(mesh)
    across = np.cross(b - a, c - a)
    return float((a * across).sum() / 6)


def area(mesh):
    a, b, c = corners(mesh)
    across = np.cross(b - a, c - a)
    doubled = np.linalg.norm(across, axis=1)
    return float(doubled.sum() / 2)


def edges(mesh):
    a, b, c = mesh.triangles.T
    starts = np.concatenate([a, b, c])
    ends = np.concatenate([b, c, a])
    pairs = np.stack([starts, ends], axis=1)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0, return_counts=True)


def euler(mesh):
    """2 for each closed surface, less 2 for each hole through it."""
    pairs, _ = edges(mesh)
    return len(mesh.vertices) - len(pairs) + len(mesh.triangles)


@pytest.mark.parametrize("radius", [10, 20])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 1), (2.4, 0.8, 0.8)])
def test_a_ball_is_closed_and_has_its_volume_and_area(radius, spacing):
    mask = ball(radius, spacing)
    mesh = mask_surface(mask, affine(spacing), limit=FREE)
    assert euler(mesh) == 2
    _, counts = edges(mesh)
    assert (counts == 2).all()
    voxels = mask.sum() * np.prod(spacing)
    assert volume(mesh) == pytest.approx(voxels, rel=0.02)
    if spacing == (1, 1, 1):
        assert volume(mesh) == pytest.approx(volume_of_ball(radius), rel=0.02)
    assert area(mesh) == pytest.approx(4 * np.pi * radius**2, rel=0.05)


def roughness(points):
    """How much the distance to the middle varies."""
    from_middle = points - points.mean(axis=0)
    return np.linalg.norm(from_middle, axis=1).std()


def test_smoothing_takes_the_steps_out():
    mask = ball(15)
    points, _ = surface_net(mask)
    mesh = surface_of(mask)
    assert roughness(mesh.vertices) < 0.75 * roughness(points)


def test_a_ring_has_a_hole_and_a_shell_two_surfaces():
    y, x = np.mgrid[-12:13, -12:13]
    distance = np.hypot(y, x)
    slice_of_ring = (distance < 10) & (distance > 5)
    ring = np.stack([slice_of_ring] * 5)
    assert euler(surface_of(ring)) == 0
    shell = ball(10)
    shell[10:15, 10:15, 10:15] = False
    assert euler(surface_of(shell)) == 4


@few
@given(seed=st.integers(0, 999))
def test_any_mask_has_a_closed_surface(seed):
    mask = np.random.default_rng(seed).random((5, 6, 7)) < 0.4
    mesh = surface_of(mask)
    _, counts = edges(mesh)
    assert (counts % 2 == 0).all()


def turned_grid(seed, spacing):
    """The affine of a right-handed grid with voxels of `spacing` (x, y, z)."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    if np.linalg.det(rotation) < 0:
        rotation[:, 0] *= -1
    grid = np.eye(4)
    grid[:3, :3] = rotation * spacing
    grid[:3, 3] = rng.normal(size=3) * 50
    return grid


@few
@given(seed=st.integers(0, 999))
def test_vertices_lie_at_their_place_in_the_world(seed):
    spacing = (0.9, 0.7, 2.0)
    grid = turned_grid(seed, spacing)
    mask = np.zeros((9, 30, 40), bool)
    mask[2:7, 5:20, 12:36] = True  # the middle: x 23.5, y 12, z 4
    mesh = mask_surface(mask, grid, limit=FREE)
    middle = grid @ [23.5, 12, 4, 1]
    voxels = mask.sum() * np.prod(spacing)
    centre = mesh.vertices.mean(axis=0)
    assert np.allclose(centre, middle[:3], atol=0.15)
    assert volume(mesh) == pytest.approx(voxels, rel=0.06)


def test_the_right_side_of_the_patient_has_the_larger_x():
    mask = np.zeros((6, 6, 20), bool)
    mask[1:5, 1:5, 14:18] = True
    mesh = surface_of(mask)
    assert mesh.vertices[:, 0].min() > 13


@pytest.mark.parametrize(("limit", "off"), [(200, 0.14), (1000, 0.05), (5000, 0.02)])
def test_a_limit_on_vertices_holds_and_keeps_the_shape(limit, off):
    """A coarse net has its corners on the surface, so it holds less."""
    mesh = mask_surface(ball(25), affine(), limit=limit)
    assert len(mesh.vertices) <= limit
    expected = volume_of_ball(25)
    lowest = mesh.vertices.min(axis=0)
    highest = mesh.vertices.max(axis=0)
    assert volume(mesh) == pytest.approx(expected, rel=off)
    assert np.allclose(lowest + highest, 54, atol=0.25 * mesh.step_mm)


def test_scattered_voxels_stay_within_the_limit_and_are_still_drawn():
    rng = np.random.default_rng(0)
    mask = rng.random((60, 60, 60)) < 0.02
    mesh = mask_surface(mask, affine(), limit=500)
    assert 0 < len(mesh.vertices) <= 500


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 8, 9)])
def test_thin_things_keep_their_thickness(shape):
    mesh = surface_of(np.ones(shape, bool))
    far = np.array(shape[::-1]) - 0.5
    lowest = mesh.vertices.min(axis=0)
    highest = mesh.vertices.max(axis=0)
    assert np.allclose(lowest, -0.5, atol=1e-3)
    assert np.allclose(highest, far, atol=1e-3)


def test_nothing_has_no_surface():
    nothing = np.zeros((4, 4, 4), bool)
    assert surface_of(nothing) is None


def test_the_body_is_outlined_where_zero_is_the_background():
    image = np.stack([ball(30).astype(float), np.zeros((65, 65, 65))])
    image[0, 30:34, 30:34, 30:34] = 0  # a hole within is no outline
    image[1, 1:4, 1:4, 1:4] = 5  # nor is a speck beside it
    mesh = body_surface(image, affine())
    assert euler(mesh) == 2
    assert volume(mesh) == pytest.approx(volume_of_ball(30), rel=0.06)
    middle = mesh.vertices.mean(axis=0)
    assert np.allclose(middle, 32, atol=0.5)
    air = np.where(image == 0, -1000.0, 0.0)
    inside = image[:, 25:40, 25:40, 25:40]
    for other in (image * 0, image + 1, air, inside):
        assert body_surface(other, affine()) is None
