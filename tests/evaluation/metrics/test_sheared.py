"""Sheared and turned grids: what is measured depends on where voxels lie alone."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.conventions.choice import CONVENTIONS, choose_convention
from trivox.evaluation.metrics.mesh_areas import CORNERS, element_areas
from trivox.evaluation.metrics.surfaces import surface_distances
from trivox.volumes.geometry import (
    longest_diagonal,
    upright_spacing,
    voxel_mm3,
)

few = settings(max_examples=20, deadline=None, derandomize=True)
spacings = st.tuples(*[st.sampled_from([0.5, 0.83, 1.0, 2.5])] * 3)
angles = st.tuples(*[st.floats(-180, 180)] * 3)
shears = st.tuples(*[st.floats(-0.6, 0.6)] * 3)


def steps_of(spacing, turn, shear=(0, 0, 0)):
    """Steps (z, y, x) in the world, a row each, turned after they were sheared."""
    tilt = np.eye(3)
    tilt[0, 1], tilt[0, 2], tilt[1, 2] = shear
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    return (np.diag(spacing) @ tilt) @ rotation.T


def masks(seed):
    """Two blobs that overlap in part."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((7, 9, 8))
    blobs = []
    for _ in range(2):
        centre = rng.uniform((2, 3, 3), (4, 5, 4))
        radius = rng.uniform(1.2, 2.6)
        away = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        blobs.append(away <= radius**2)
    return blobs


def surface_points(mask, steps):
    """Places of the voxels with a face neighbour outside, one by one."""
    points = []
    for voxel in map(tuple, np.argwhere(mask)):
        for axis, side in product(range(3), (-1, 1)):
            other = list(voxel)
            other[axis] += side
            outside = not 0 <= other[axis] < mask.shape[axis]
            if outside or not mask[tuple(other)]:
                points.append(np.array(voxel) @ steps)
                break
    return np.array(points)


@few
@given(seed=st.integers(0, 99), spacing=spacings, turn=angles, shear=shears)
def test_distances_are_those_of_the_voxels_in_the_world(seed, spacing, turn, shear):
    a, b = masks(seed)
    steps = steps_of(spacing, turn, shear)
    apart = cdist(surface_points(a, steps), surface_points(b, steps))
    distances = surface_distances(a, b, spacing=steps)
    assert distances.to_reference == pytest.approx(apart.min(axis=1), abs=1e-9)
    assert distances.to_prediction == pytest.approx(apart.min(axis=0), abs=1e-9)
    case = evaluate_case(
        a.astype(int), b.astype(int), spacing=steps, targets={"organ": (1,)}
    )["organ"]
    both = [np.percentile(apart.min(axis=axis), 95) for axis in (0, 1)]
    assert case["hd95_mm"] == pytest.approx(max(both))
    everything = np.concatenate([apart.min(axis=0), apart.min(axis=1)])
    assert case["assd_mm"] == pytest.approx(everything.mean())
    assert case["nsd_voxel"] == pytest.approx((everything <= 2.0 + 1e-6).mean())
    voxel = abs(np.linalg.det(steps)) / 1000
    assert case["volume_ml"] == pytest.approx(a.sum() * voxel)
    assert case["reference_volume_ml"] == pytest.approx(b.sum() * voxel)


@pytest.mark.parametrize("name", CONVENTIONS)
@few
@given(seed=st.integers(0, 99), spacing=spacings, turn=angles)
def test_a_turned_grid_measures_as_a_straight_one(name, seed, spacing, turn):
    a, b = (mask.astype(int) for mask in masks(seed))
    rules = choose_convention(name)
    targets = {"organ": (1,)}
    straight = rules.evaluate(a, b, spacing=spacing, targets=targets)["organ"]
    turned = rules.evaluate(a, b, spacing=steps_of(spacing, turn), targets=targets)
    for metric, value in turned["organ"].items():
        if isinstance(value, int | float):
            assert value == pytest.approx(straight[metric]), metric


@few
@given(spacing=spacings, turn=angles, shear=shears)
def test_areas_of_flat_surfaces_are_those_of_their_parallelograms(spacing, turn, shear):
    steps = steps_of(spacing, turn, shear)
    areas = element_areas(steps)
    for axis in range(3):
        lower = [corner[axis] == 0 for corner in CORNERS]
        code = sum(1 << bit for bit, inside in enumerate(lower) if inside)
        one, other = np.delete(steps, axis, axis=0)
        expected = np.linalg.norm(np.cross(one, other))
        assert areas[code] == pytest.approx(expected)


@few
@given(spacing=spacings, turn=angles, shear=shears)
def test_the_lattice_of_a_volume(spacing, turn, shear):
    steps = steps_of(spacing, turn)
    assert upright_spacing(steps) == pytest.approx(spacing)
    assert voxel_mm3(steps) == pytest.approx(np.prod(spacing))
    assert longest_diagonal(steps, (3, 4, 5)) == pytest.approx(
        np.linalg.norm(np.array(spacing) * (3, 4, 5))
    )
    sheared = steps_of(spacing, turn, shear)
    assert voxel_mm3(sheared) == pytest.approx(
        np.prod(spacing)
    )  # a shear keeps volumes
    if max(map(abs, shear)) > 0.01:
        assert upright_spacing(sheared) is None
