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

ORGAN, NEIGHBOUR = 7, 5
SPACING = (2.5, 1.0, 1.0)


def scan(spacing=SPACING):
    """Fat with a round organ of 100 HU and a neighbour that touches it, with noise;
    labels 7 and 5.
    """
    shape = tuple(int(80 / s) for s in spacing)
    z, y, x = np.meshgrid(
        *((np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)),
        indexing="ij",
    )
    labels = np.zeros(shape, np.uint8)
    labels[z**2 + (y + 6) ** 2 + x**2 < 18**2] = ORGAN
    labels[(y > 2) & (y < 30) & (abs(x) < 25)] = NEIGHBOUR
    image = np.choose((labels == ORGAN) + 2 * (labels == NEIGHBOUR), [-100, 100, 150])
    image = image + np.random.default_rng(0).normal(0, 12, shape)
    affine = affine_from_spacing(spacing)
    return Volume(image.round().astype(np.int16)[None], affine), Volume(
        labels[None], affine
    )


def roughness(image, lesion):
    """How much neighbours in a row differ inside the lesion, as a share of its
    deviation.
    """
    core = ndimage.binary_erosion(lesion)
    pairs = core[:, :, 1:] & core[:, :, :-1]
    return float(
        np.sqrt(np.mean(np.diff(image.astype(float), axis=2)[pairs] ** 2))
        / image[core].std()
    )


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    spacing=st.tuples(*[st.floats(1.0, 3.0)] * 3),
    subtype=st.integers(0, 2),
    seed=st.integers(0, 1000),
    contrast=st.sampled_from([-45.0, 30.0]),
)
def test_only_the_lesion_and_its_soft_edge_change(spacing, subtype, seed, contrast):
    image, labels = scan(spacing)
    planted, found = plant_lesion(
        image, labels, organ=ORGAN, subtype=subtype, seed=seed, contrast=contrast
    )
    lesion, old = found.array[0] == 2, labels.array[0]
    change = planted.array[0].astype(int) - image.array[0]
    assert (planted.array.dtype, planted.array.shape, found.array.dtype) == (
        np.int16,
        image.array.shape,
        np.uint8,
    )
    assert np.array_equal(planted.affine, image.affine)
    assert lesion.sum() >= SMALLEST
    assert np.array_equal(found.array[0] == 1, (old == ORGAN) & ~lesion)
    assert not (old == NEIGHBOUR)[lesion].any()
    assert not change[
        ~ndimage.binary_dilation(lesion, iterations=3, structure=np.ones((3, 3, 3)))
    ].any()
    level = np.median(image.array[0][old == ORGAN]) + contrast
    core = ndimage.binary_erosion(lesion)
    assert planted.array[0][
        core if core.sum() > 30 else lesion
    ].mean() == pytest.approx(level, abs=20)


def test_the_edge_is_soft():
    image, labels = scan()
    planted, found = plant_lesion(
        image, labels, organ=ORGAN, subtype=2, seed=1, contrast=-90
    )
    lesion = found.array[0] == 2
    change = planted.array[0].astype(float) - image.array[0]
    inside_organ = labels.array[0] == ORGAN
    shell = ndimage.binary_dilation(lesion) & ~lesion & inside_organ
    assert -60 < change[shell].mean() < -8
    assert change[ndimage.binary_erosion(lesion)].mean() < -80


def test_the_subtype_is_the_texture_alone():
    image, labels = scan((1.0, 1.0, 1.0))
    cases = [
        plant_lesion(image, labels, organ=ORGAN, subtype=subtype, seed=4)
        for subtype in range(3)
    ]
    lesion = cases[0][1].array[0] == 2
    scans = [planted.array[0] for planted, _ in cases]
    assert all(np.array_equal(found.array[0] == 2, lesion) for _, found in cases)
    assert np.ptp([values[lesion].mean() for values in scans]) < 0.2
    assert (
        np.ptp([values[lesion].std() for values in scans]) < 0.3
    )  # by chance it would be 0.7
    rough = [roughness(values, lesion) for values in scans]
    assert rough[0] > 1.5 * rough[1] > 1.5 * rough[2]


def test_textures_in_mm_are_taken_as_they_are():
    image, labels = scan((1.0, 1.0, 1.0))
    fine, coarse = (
        plant_lesion(image, labels, organ=ORGAN, subtype=0, seed=4, textures_mm=[width])
        for width in (0.0, 3.0)
    )
    lesion = fine[1].array[0] == 2
    assert roughness(fine[0].array[0], lesion) > 2 * roughness(
        coarse[0].array[0], lesion
    )


def test_place_and_texture_depend_on_the_seed():
    image, labels = scan()
    one, again, other = (
        plant_lesion(image, labels, organ=ORGAN, subtype=1, seed=seed)
        for seed in (2, 2, 3)
    )
    assert np.array_equal(one[0].array, again[0].array)
    assert not np.array_equal(one[1].array, other[1].array)


def test_floats_stay_floats():
    image, labels = scan()
    planted, _ = plant_lesion(
        image.with_array(image.array.astype(np.float32)),
        labels,
        organ=ORGAN,
        subtype=0,
        seed=0,
    )
    assert planted.array.dtype == np.float32


def test_what_cannot_be_planted_is_refused():
    image, labels = scan()
    with pytest.raises(DataError, match="no voxel of the organ 9"):
        plant_lesion(image, labels, organ=9, subtype=0, seed=0)
    with pytest.raises(
        DataError, match=r"too small for a lesion of radius 1 to 2 mm.*needed: 60"
    ):
        plant_lesion(image, labels, organ=ORGAN, subtype=0, seed=0, radius_mm=(1, 2))
    with pytest.raises(DataError, match="too small"):
        plant_lesion(image, labels, organ=ORGAN, subtype=0, seed=0, radius_mm=(30, 40))
    with pytest.raises(DataError, match="has 2"):
        plant_lesion(
            image.with_array(np.repeat(image.array, 2, 0)),
            labels,
            organ=ORGAN,
            subtype=0,
            seed=0,
        )
    with pytest.raises(GeometryError, match="labels to plant"):
        plant_lesion(
            image,
            labels.with_array(labels.array[:, :-1]),
            organ=ORGAN,
            subtype=0,
            seed=0,
        )


@pytest.mark.parametrize(
    ("organ", "radius_mm"),
    [(7, (8.0, 12.0)), (5, (12.0, 18.0))],
    ids=["pancreas", "liver"],
)
def test_lesions_can_be_planted_into_a_real_scan(data_root, organ, radius_mm):
    folder = data_root / "abdomen-ct"
    if not folder.is_dir():
        pytest.skip(f"no CT at {folder}")
    image, labels = (
        read_volume(folder / "example_ct_sm.nii.gz"),
        read_labels(folder / "example_seg.nii.gz"),
    )
    tissue = np.median(image.array[labels.array == organ])
    rough = []
    for subtype in range(3):
        planted, found = plant_lesion(
            image, labels, organ=organ, subtype=subtype, seed=3, radius_mm=radius_mm
        )
        lesion = found.array[0] == 2
        assert tissue - 75 < planted.array[0][lesion].mean() < tissue - 15
        assert planted.array[0][lesion].std() < 40
        assert (planted.array != image.array).mean() < 0.01
        rough.append(roughness(planted.array[0], lesion))
    assert rough[0] > rough[1] > rough[2]
