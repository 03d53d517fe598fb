import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from trivox.datasets.labels import LabelScheme
from trivox.inference.classes.case_masks import case_masks
from trivox.inference.classes.features import handmade_features, intensity_features
from trivox.inference.classes.lesion_shape import depth_of, mask_shape
from trivox.inference.classes.lesion_texture import local_std, texture_features

SCHEME = LabelScheme(labels={"pancreas": 1, "lesion": 2})
SPACING = (2.0, 0.73, 0.73)


def phantom(seed=0, shape=(14, 26, 28)):
    """Two channels, a label map with organ and lesion."""
    rng = np.random.default_rng(seed)
    grid = np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) / 2
    radius = np.linalg.norm(grid / np.array(shape) * 2, axis=-1)
    labels = np.where(radius < 0.55, 2, np.where(radius < 0.85, 1, 0))
    return rng.standard_normal((2, *shape)).astype(np.float32), labels


def features(image, labels, spacing=SPACING):
    masks = case_masks(labels, SCHEME, (2,), spacing)
    return handmade_features(image, masks, spacing, channels=["T1", "T2"])


def ball(radius, spacing, margin=4):
    half = [int(radius / step) + margin for step in spacing]
    grid = np.stack(
        np.meshgrid(
            *[np.arange(-n, n + 1) * s for n, s in zip(half, spacing, strict=True)],
            indexing="ij",
        )
    )
    return (grid**2).sum(0) <= radius**2


def test_voxels_outside_the_lesion_change_no_feature_of_it():
    image, labels = phantom()
    other = np.where(
        labels == 2,
        image,
        np.random.default_rng(1).normal(50, 9, image.shape).astype(np.float32),
    )
    before = features(image, labels)
    after = features(other, labels)
    inside = [name for name in before if name.endswith((" in lesion", " in core"))]
    assert len(inside) > 30  # the law is about something
    for name in inside:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert before["T1 mean in rim"] != after["T1 mean in rim"]
    assert (
        before["T1 contrast of lesion to rest of organ"]
        != after["T1 contrast of lesion to rest of organ"]
    )


def test_a_voxel_of_the_core_changes_its_texture():
    image, labels = phantom()
    changed = image.copy()
    changed[0, 7, 13, 14] += 3
    before = features(image, labels)
    after = features(changed, labels)
    assert {
        name for name in before if before[name] != after[name] and " in core" in name
    } == {
        name for name in before if name.startswith("T1 ") and name.endswith(" in core")
    }


def test_where_the_organ_lies_in_the_array_changes_nothing():
    image, labels = phantom()
    padded = np.pad(image, ((0, 0), (3, 5), (2, 0), (7, 1)), constant_values=-9)
    moved = np.pad(labels, ((3, 5), (2, 0), (7, 1)))
    before = features(image, labels)
    after = features(padded, moved)
    inner = [name for name in before if "rim" not in name]  # the array may cut the rim
    np.testing.assert_allclose(
        [before[n] for n in inner], [after[n] for n in inner], rtol=1e-9
    )


@pytest.mark.parametrize(
    "labels",
    [np.zeros((6, 7, 8), int), np.ones((6, 7, 8), int)],
    ids=["nothing", "organ only"],
)
def test_what_an_empty_lesion_hides_is_nan_under_the_same_names(labels):
    image = np.ones((2, 6, 7, 8), np.float32)
    found = features(image, labels)
    assert list(found) == list(features(*phantom()))
    known = {
        name
        for name, value in found.items()
        if "of lesion" in name and not np.isnan(value)
    }
    assert known <= {"volume of lesion", "volume of lesion / organ"}
    assert found["volume of lesion"] == 0
    assert all(
        np.isnan(value)
        for name, value in found.items()
        if name.endswith((" in lesion", " in core", " in rim"))
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 200))
def test_moments_and_percentiles_are_those_of_scipy(seed, size):
    values = np.random.default_rng(seed).gamma(2, 3, size)
    found = intensity_features(values)
    expected = [
        values.mean(),
        values.std(),
        stats.skew(values),
        *np.percentile(values, [10, 50, 90]),
    ]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-9)


def brute_texture(values, mask, spacing):
    """Gradient and Laplacian voxel by voxel."""
    padded = np.pad(values, 1)
    inside = np.pad(mask, 1)
    unit = np.eye(3, dtype=int)
    gradients = []
    laplacians = []
    for place in np.argwhere(inside):
        ahead = [tuple(place + e) for e in unit]
        behind = [tuple(place - e) for e in unit]
        here = padded[tuple(place)]
        if all(inside[a] for a in ahead):
            gradients.append(
                np.linalg.norm(
                    [
                        (padded[a] - here) / s
                        for a, s in zip(ahead, spacing, strict=True)
                    ]
                )
            )
            if all(inside[b] for b in behind):
                second = [
                    (padded[a] - 2 * here + padded[b]) / s**2
                    for a, b, s in zip(ahead, behind, spacing, strict=True)
                ]
                laplacians.append(abs(sum(second)))
    return [np.mean(part) if part else np.nan for part in (gradients, laplacians)]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), share=st.floats(0.5, 1))
def test_gradient_and_laplacian_are_those_of_pairs_within_the_mask(seed, share):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((5, 6, 7))
    mask = rng.random((5, 6, 7)) < share
    found = texture_features(values, mask, SPACING)
    np.testing.assert_allclose(
        [found["gradient"], found["Laplacian"]],
        brute_texture(values, mask, SPACING),
        rtol=1e-9,
    )


def test_a_ramp_has_its_slope_per_millimetre_and_no_laplacian():
    z, y, x = np.indices((6, 7, 8)) * np.array(SPACING).reshape(3, 1, 1, 1)
    found = texture_features(2 * z + 3 * y - 6 * x, np.ones((6, 7, 8), bool), SPACING)
    assert found["gradient"] == pytest.approx(7)
    assert found["Laplacian"] == pytest.approx(0, abs=1e-9)


def test_the_decorrelation_is_one_minus_the_correlation_of_neighbours_per_millimetre():
    field = ndimage.gaussian_filter(
        np.random.default_rng(0).standard_normal((40, 44, 48)), (0, 0.8, 2)
    )
    found = texture_features(field, np.ones(field.shape, bool), SPACING)
    for axis, name in enumerate("zyx"):
        first, second = (np.delete(field, end, axis).ravel() for end in (-1, 0))
        expected = (1 - np.corrcoef(first, second)[0, 1]) / SPACING[axis]
        assert found[f"decorrelation along {name}"] == pytest.approx(expected, abs=0.01)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), sides=st.tuples(*[st.sampled_from([1, 3, 5])] * 3))
def test_local_std_is_that_of_the_voxels_of_the_mask_in_each_box(seed, sides):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((6, 7, 8))
    mask = rng.random((6, 7, 8)) < 0.8
    half = np.array(sides) // 2
    found = []
    for place in np.argwhere(mask):
        box = tuple(
            slice(max(p - h, 0), p + h + 1) for p, h in zip(place, half, strict=True)
        )
        inside = values[box][mask[box]]
        if inside.size / np.prod(sides) > 0.5 + 1e-9:
            found.append(inside.std())
    expected = np.mean(found) if found else np.nan
    np.testing.assert_allclose(
        local_std(np.where(mask, values, 0), mask, sides), expected, atol=1e-7
    )


def test_the_local_std_of_a_texture_knows_nothing_of_other_voxels():
    rng = np.random.default_rng(0)
    mask = rng.random((7, 8, 9)) < 0.7
    values = np.where(mask, rng.normal(40, 3, mask.shape), 1000)
    inside = np.where(mask, values - values[mask].mean(), 0)
    expected = local_std(inside, mask, (3, 3, 3)) / values[mask].std()
    found = texture_features(values, mask, (1.0, 1.0, 1.0))["local std of 3 voxels"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_two_grey_levels_have_an_entropy_of_one_bit():
    values = np.indices((8, 8, 8)).sum(0) % 2
    assert texture_features(values * 100.0, np.ones((8, 8, 8), bool), SPACING)[
        "entropy"
    ] == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 1, 27])
def test_no_texture_is_claimed_where_nothing_varies(count):
    mask = np.zeros((5, 5, 5), bool)
    mask[1:4, 1:4, 1:4].flat[:count] = True
    mask.flat[31 : 31 + (count == 1)] = count == 1
    found = texture_features(np.full((5, 5, 5), 0.1), mask, SPACING)
    relative = [name for name in found if name not in ("gradient", "Laplacian")]
    assert all(np.isnan(found[name]) for name in relative)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING, (3.0, 1.0, 1.0)])
def test_a_ball_is_a_ball_at_any_spacing(spacing):
    mask = ball(12.0, spacing)
    found = mask_shape(mask, depth_of(mask, spacing), spacing)
    assert found["surface"] == pytest.approx(4 * np.pi * 144, rel=0.06)
    assert found["sphericity"] == pytest.approx(1, abs=0.06)
    for name in ("length", "width", "thickness"):
        assert found[name] == pytest.approx(24, rel=0.05)
    for name in (
        "elongation",
        "flatness",
        "compactness",
        "largest component share",
        "components",
    ):
        assert found[name] == pytest.approx(1, abs=0.05)
    assert found["largest depth"] == pytest.approx(12, abs=max(spacing))


def test_a_slanted_plate_has_the_surface_of_a_straight_one():
    place = np.indices((40, 40, 40)) - 19.5
    limits = [14, 14, 4]
    straight = np.all(
        [np.abs(p) <= limit for p, limit in zip(place, limits, strict=True)], axis=0
    )
    turned = [(place[0] - place[2]) / 2**0.5, place[1], (place[0] + place[2]) / 2**0.5]
    slanted = np.all(
        [np.abs(p) <= limit for p, limit in zip(turned, limits, strict=True)], axis=0
    )
    one = (1.0, 1.0, 1.0)
    areas = [
        mask_shape(mask, depth_of(mask, one), one)["surface"] / mask.sum()
        for mask in (straight, slanted)
    ]
    assert areas[0] == pytest.approx(areas[1], rel=0.05)


def test_a_spacing_of_whole_numbers_is_a_spacing():
    image, labels = phantom()
    np.testing.assert_equal(
        features(image, labels, (2, 1, 1)), features(image, labels, (2.0, 1.0, 1.0))
    )


def test_parts_are_counted_and_the_largest_one_is_weighed():
    mask = np.zeros((8, 9, 10), bool)
    mask[1:4, 1:4, 1:4] = mask[6, 7, 7:9] = True
    found = mask_shape(mask, depth_of(mask, SPACING), SPACING)
    assert found["components"] == 2
    assert found["largest component share"] == pytest.approx(27 / 29)


def test_volumes_are_millilitres_and_shares():
    image, labels = phantom()
    found = features(image, labels)
    cell = np.prod(SPACING) / 1000
    assert found["volume of lesion"] == pytest.approx((labels == 2).sum() * cell)
    assert found["volume of lesion / organ"] == pytest.approx(
        (labels == 2).sum() / (labels > 0).sum()
    )
    assert found["volume of pancreas / organ"] == pytest.approx(
        (labels == 1).sum() / (labels > 0).sum()
    )


def test_the_place_of_a_lesion_is_told_in_the_box_of_the_organ():
    labels = np.zeros((10, 12, 14), int)
    labels[2:8, 1:11, 3:13] = 1
    labels[2:4, 6:8, 11:13] = 2
    found = features(np.ones((2, 10, 12, 14), np.float32), labels)
    place = [found[f"place of lesion in organ along {axis}"] for axis in "zyx"]
    np.testing.assert_allclose(place, [1 / 6, 0.6, 0.9])


def test_a_bright_middle_correlates_with_depth():
    labels = phantom()[1]
    depth = depth_of(labels == 2, SPACING).astype(np.float32)
    found = features(np.stack([depth, -depth]), labels)
    assert found["T1 correlation with depth in lesion"] == pytest.approx(1)
    assert found["T2 correlation with depth in lesion"] == pytest.approx(-1)
    assert found["correlation of T1 and T2 in lesion"] == pytest.approx(-1)
