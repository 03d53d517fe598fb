"""Planted lesions: a real scan keeps everything but the lesion, and the lesion tells
its subtype by texture alone.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from trivox.datasets.phantoms.planted_lesions import SMALLEST, plant_lesion
from trivox.errors import DataError, GeometryError
from trivox.volumes.formats import read_labels, read_volume
from trivox.volumes.volume import Volume, affine_from_spacing

ORGAN = 7
NEIGHBOUR = 5
SPACING = (2.5, 1.0, 1.0)


def scan(spacing=SPACING):
    """Fat with a round organ of 100 HU and a neighbour that touches it, with noise;
    labels 7 and 5.
    """
    shape = tuple(int(80 / step) for step in spacing)
    axes = [
        (np.arange(size) - size / 2) * step
        for size, step in zip(shape, spacing, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    labels = np.zeros(shape, np.uint8)
    labels[z**2 + (y + 6) ** 2 + x**2 < 18**2] = ORGAN
    labels[(y > 2) & (y < 30) & (abs(x) < 25)] = NEIGHBOUR
    image = np.full(shape, -100.0)
    image[labels == ORGAN] = 100
    image[labels == NEIGHBOUR] = 150
    rng = np.random.default_rng(0)
    image += rng.normal(0, 12, shape)
    affine = affine_from_spacing(spacing)
    whole = image.round().astype(np.int16)
    return Volume(whole[None], affine), Volume(labels[None], affine)


def plant(image, labels, *, organ=ORGAN, subtype=0, seed=0, **options):
    """The scan and its label map after planting, `(z, y, x)`."""
    planted, marked = plant_lesion(
        image,
        labels,
        organ=organ,
        subtype=subtype,
        seed=seed,
        **options,
    )
    assert np.array_equal(planted.affine, image.affine)
    return planted.array[0], marked.array[0]


def roughness(image, lesion):
    """How much neighbours in a row differ inside the lesion, as a share of its
    deviation.
    """
    core = ndimage.binary_erosion(lesion)
    pairs = core[:, :, 1:] & core[:, :, :-1]
    steps = np.diff(image.astype(float), axis=2)
    typical = np.sqrt(np.mean(steps[pairs] ** 2))
    return float(typical / image[core].std())


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    spacing=st.tuples(*[st.floats(1.0, 3.0)] * 3),
    subtype=st.integers(0, 2),
    seed=st.integers(0, 1000),
    contrast=st.sampled_from([-45.0, 30.0]),
)
def test_only_the_lesion_and_its_soft_edge_change(spacing, subtype, seed, contrast):
    image, labels = scan(spacing)
    planted, new = plant(
        image,
        labels,
        subtype=subtype,
        seed=seed,
        contrast=contrast,
    )
    before = image.array[0]
    old = labels.array[0]
    lesion = new == 2
    assert planted.dtype == np.int16
    assert planted.shape == before.shape
    assert new.dtype == np.uint8
    assert lesion.sum() >= SMALLEST
    assert np.array_equal(new == 1, (old == ORGAN) & ~lesion)
    assert not (old == NEIGHBOUR)[lesion].any()
    cube = np.ones((3, 3, 3))
    near = ndimage.binary_dilation(lesion, iterations=3, structure=cube)
    changed = planted != before
    assert not changed[~near].any()
    level = np.median(before[old == ORGAN]) + contrast
    core = ndimage.binary_erosion(lesion)
    inside = core if core.sum() > 30 else lesion
    assert planted[inside].mean() == pytest.approx(level, abs=20)


def test_the_edge_is_soft():
    image, labels = scan()
    planted, marked = plant(image, labels, subtype=2, seed=1, contrast=-90)
    lesion = marked == 2
    change = planted.astype(float) - image.array[0]
    in_organ = labels.array[0] == ORGAN
    shell = ndimage.binary_dilation(lesion) & ~lesion
    core = ndimage.binary_erosion(lesion)
    assert -60 < change[shell & in_organ].mean() < -8
    assert change[core].mean() < -80


def test_the_subtype_is_the_texture_alone():
    image, labels = scan((1.0, 1.0, 1.0))
    scans = []
    maps = []
    for subtype in range(3):
        planted, marked = plant(image, labels, subtype=subtype, seed=4)
        scans.append(planted)
        maps.append(marked)
    for marked in maps[1:]:
        assert np.array_equal(marked, maps[0])
    lesion = maps[0] == 2
    assert np.ptp([values[lesion].mean() for values in scans]) < 0.2
    # By chance it would be 0.7.
    assert np.ptp([values[lesion].std() for values in scans]) < 0.3
    fine, middle, coarse = (roughness(values, lesion) for values in scans)
    assert fine > 1.5 * middle
    assert middle > coarse


def test_textures_in_mm_are_taken_as_they_are():
    image, labels = scan((1.0, 1.0, 1.0))
    fine, marked = plant(image, labels, seed=4, textures_mm=[0.0])
    coarse, _ = plant(image, labels, seed=4, textures_mm=[3.0])
    lesion = marked == 2
    assert roughness(fine, lesion) > 2 * roughness(coarse, lesion)


def test_place_and_texture_depend_on_the_seed():
    image, labels = scan()
    one, marked = plant(image, labels, subtype=1, seed=2)
    again, _ = plant(image, labels, subtype=1, seed=2)
    _, elsewhere = plant(image, labels, subtype=1, seed=3)
    assert np.array_equal(one, again)
    assert not np.array_equal(marked, elsewhere)


def test_floats_stay_floats():
    image, labels = scan()
    floats = image.with_array(image.array.astype(np.float32))
    planted, _ = plant(floats, labels)
    assert planted.dtype == np.float32


def test_what_cannot_be_planted_is_refused():
    image, labels = scan()
    with pytest.raises(DataError, match="no voxel of the organ 9"):
        plant(image, labels, organ=9)
    small = r"too small for a lesion of radius 1 to 2 mm.*needed: 60"
    with pytest.raises(DataError, match=small):
        plant(image, labels, radius_mm=(1, 2))
    with pytest.raises(DataError, match="too small"):
        plant(image, labels, radius_mm=(30, 40))
    two_channels = image.with_array(np.repeat(image.array, 2, 0))
    with pytest.raises(DataError, match="has 2"):
        plant(two_channels, labels)
    shorter = labels.with_array(labels.array[:, :-1])
    with pytest.raises(GeometryError, match="labels to plant"):
        plant(image, shorter)


@pytest.mark.parametrize(
    ("organ", "radius_mm"),
    [(7, (8.0, 12.0)), (5, (12.0, 18.0))],
    ids=["pancreas", "liver"],
)
def test_lesions_can_be_planted_into_a_real_scan(data_root, organ, radius_mm):
    folder = data_root / "abdomen-ct"
    if not folder.is_dir():
        pytest.skip(f"no CT at {folder}")
    image = read_volume(folder / "example_ct_sm.nii.gz")
    labels = read_labels(folder / "example_seg.nii.gz")
    tissue = np.median(image.array[labels.array == organ])
    rough = []
    for subtype in range(3):
        planted, marked = plant(
            image,
            labels,
            organ=organ,
            subtype=subtype,
            seed=3,
            radius_mm=radius_mm,
        )
        lesion = marked == 2
        assert tissue - 75 < planted[lesion].mean() < tissue - 15
        assert planted[lesion].std() < 40
        assert (planted != image.array[0]).mean() < 0.01
        rough.append(roughness(planted, lesion))
    assert rough[0] > rough[1] > rough[2]
