import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from trivox.evaluation.metrics.mesh_areas import element_areas
from trivox.evaluation.metrics.surfaces import surface_distances

KINDS = ("voxel", "mesh")
spacings = st.tuples(*[st.floats(0.3, 5.0)] * 3)
few = settings(max_examples=10, deadline=None, derandomize=True)


def blobs(seed, shape=(14, 17, 20)):
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    smooth = np.stack([gaussian_filter(field, 2) for field in noise])
    smooth = smooth + 0.5 * smooth[0]
    return smooth > np.quantile(smooth, 0.8)


def numbers(distances, tolerance=2.0):
    return (
        distances.hausdorff_mm(),
        distances.hausdorff_mm(100),
        distances.average_mm(),
        distances.surface_dice(tolerance),
    )


@pytest.mark.parametrize("surface", KINDS)
@few
@given(seed=st.integers(0, 10**6), spacing=spacings)
def test_distances_obey_their_laws(surface, seed, spacing):
    a, b = blobs(seed)

    def measure(p, q, s=spacing, tolerance=2.0):
        return numbers(surface_distances(p, q, spacing=s, surface=surface), tolerance)

    result = measure(a, b)
    assert measure(a, a) == (0, 0, 0, 1)
    assert measure(b, a) == pytest.approx(result), "symmetric"
    order = (2, 0, 1)
    permuted = measure(
        a.transpose(order), b.transpose(order), tuple(spacing[axis] for axis in order)
    )
    assert permuted == pytest.approx(result), (
        "axes have no meaning beyond their spacing"
    )
    assert measure(a[::-1], b[::-1]) == pytest.approx(result), "nor direction"
    doubled = measure(a, b, tuple(2 * s for s in spacing), 4.0)
    assert doubled == pytest.approx(
        (2 * result[0], 2 * result[1], 2 * result[2], result[3])
    )
    padded = measure(np.pad(a, 3), np.pad(b, 3))
    assert padded == pytest.approx(result), "the field of view does not matter"


@pytest.mark.parametrize("surface", KINDS)
@few
@given(spacing=spacings, axis=st.integers(0, 2), steps=st.integers(1, 4))
def test_shifted_box_is_as_far_away_as_the_shift(surface, spacing, axis, steps):
    a, b = np.zeros((2, 20, 20, 20), bool)
    a[5:14, 5:14, 5:14] = True
    b[...] = np.roll(a, steps, axis=axis)
    distances = surface_distances(a, b, spacing=spacing, surface=surface)
    # No more than the shift, and exactly that where no side face of the box is nearer.
    assert distances.hausdorff_mm(100) <= steps * spacing[axis] * (1 + 1e-9)
    nearest_side = 4 * min(spacing[other] for other in range(3) if other != axis)
    if nearest_side > steps * spacing[axis]:
        assert distances.hausdorff_mm(100) == pytest.approx(steps * spacing[axis])
    assert distances.surface_dice(steps * spacing[axis]) == pytest.approx(1)


@pytest.mark.parametrize("surface", KINDS)
def test_surface_dice_grows_with_tolerance(surface):
    a, b = blobs(3)
    distances = surface_distances(a, b, spacing=(1.0, 0.7, 2.0), surface=surface)
    values = [distances.surface_dice(tolerance) for tolerance in np.linspace(0, 15, 40)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1)


@pytest.mark.parametrize("surface", KINDS)
@pytest.mark.parametrize("tolerance", [0.7, 1.0, 2.1, 3.0])
def test_limit_leaves_surface_dice_as_it_is(surface, tolerance):
    a, b = blobs(4)
    full = surface_distances(a, b, spacing=(1.0, 0.7, 3.0), surface=surface)
    limited = surface_distances(
        a, b, spacing=(1.0, 0.7, 3.0), surface=surface, limit_mm=tolerance
    )
    assert limited.surface_dice(tolerance) == full.surface_dice(tolerance)


@few
@given(seed=st.integers(0, 10**6), spacing=spacings)
def test_voxel_distances_equal_the_distance_transform(seed, spacing):
    a, b = (np.pad(mask, 1) for mask in blobs(seed))
    edges = [mask & ~binary_erosion(mask) for mask in (a, b)]
    to_b = distance_transform_edt(~edges[1], sampling=spacing)[edges[0]]
    assert surface_distances(a, b, spacing=spacing).to_reference == pytest.approx(to_b)


@pytest.mark.parametrize("surface", KINDS)
def test_empty_masks_have_no_distance(surface):
    a = blobs(5)[0]
    nothing = np.zeros_like(a)
    one = surface_distances(a, nothing, spacing=(1, 1, 1), surface=surface)
    assert (one.hausdorff_mm(), one.average_mm(), one.surface_dice(2.0)) == (
        None,
        None,
        0,
    )
    both = surface_distances(nothing, nothing, spacing=(1, 1, 1), surface=surface)
    assert (both.hausdorff_mm(), both.average_mm(), both.surface_dice(2.0)) == (
        None,
        None,
        None,
    )


def test_mask_that_fills_the_image_has_a_surface():
    everything = np.ones((4, 4, 4), bool)
    distances = surface_distances(everything, everything, spacing=(1, 1, 1))
    assert distances.to_reference.size == 4**3 - 2**3


@few
@given(spacing=spacings)
def test_area_of_a_complement_is_the_same_and_flat_patches_are_right(spacing):
    areas = element_areas(spacing)
    z, y, x = spacing
    assert areas == pytest.approx(areas[::-1])
    assert areas[[0, 255]].tolist() == [0, 0]
    assert areas[[0b00001111, 0b00110011, 0b01010101]] == pytest.approx(
        [y * x, z * x, z * y]
    )
    corner = np.linalg.norm([y * x, z * x, z * y]) / 8
    assert areas[[1 << bit for bit in range(8)]] == pytest.approx([corner] * 8)


def test_areas_equal_marching_cubes_of_scikit_image():
    """Patterns without a choice (flat or triangle polygons): any marching cubes gives
    the same area.
    """
    measure = pytest.importorskip("skimage.measure")
    areas = element_areas((1.0, 1.0, 1.0))
    for code in (1, 3, 15, 0b11000000, 0b10000000, 254, 51):
        corners = np.array([code >> bit & 1 for bit in range(8)], float).reshape(
            2, 2, 2
        )
        vertices, faces, *_ = measure.marching_cubes(corners, 0.5)
        assert measure.mesh_surface_area(vertices, faces) == pytest.approx(areas[code])


def test_areas_do_not_depend_on_how_the_cube_is_turned():
    areas = element_areas((1.0, 1.0, 1.0))
    for code, axes in itertools.product(range(256), itertools.permutations(range(3))):
        turned = (
            np.array([code >> bit & 1 for bit in range(8)])
            .reshape(2, 2, 2)
            .transpose(axes)
            .ravel()
        )
        assert areas[int((turned << np.arange(8)).sum())] == pytest.approx(areas[code])
