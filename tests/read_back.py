"""Results that are written and read back by others: series in every orientation, what
was found in them, and where its voxels lie in the world.
"""

import itertools
import warnings

import numpy as np
import pydicom

from dicom_slices import enhanced, save
from result_cases import NAMES, PATIENT, result_of, write_series
from trivox.results.segmentation import write_segmentation
from trivox.results.structures import write_structures

WAYS = ("straight", "tilted", "oblique")
TURN = np.array([[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
"""A rotation about no axis of the body."""


def orders():
    """The 48 orders of axes: which axes of the body rows, columns and slices run along,
    and which way.
    """
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
                matrix[axis, column] = sign
            yield matrix


def drawn_series(folder, matrix, way, *, multi=False):
    """A series whose columns, rows and slices run along the columns of a matrix (LPS);
    slices of a left-handed one come in falling order, as files do.
    """
    if way == "oblique":
        matrix = TURN @ matrix
    across, down, step = matrix.T
    step = step * 2.0
    if way == "tilted":
        step = step + 0.6 * down
    orientation = (*across, *down)
    if not multi:
        return write_series(
            folder, count=6, shape=(12, 10), orientation=orientation, step=step
        )
    positions = [(np.array((4.0, -7.5, 3.0)) + z * step).tolist() for z in range(6)]
    dataset = enhanced(positions, **PATIENT)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(orientation)
    return save(folder, [dataset])


def blots(shape, seed):
    """Labels 1, 2 and 7 that share no plane of symmetry, with a hole, and with slices
    that hold nothing.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    _, y, x = shape
    labels[1:3, 1 : y - 2, 1 : x // 2 + 1] = 1
    labels[1, 2:4, 2:4] = 0
    labels[-1:, y // 2 :, x // 2 :] = 2
    labels[1, -2:, -3:] = 7
    labels[1:3][rng.random((2, y, x)) < 0.06] = 2
    return labels


def written(folder, out, seed, *, seg_type="binary"):
    """The result of a series, and the SEG and RTSTRUCT of it."""
    from trivox.volumes.formats import read_header

    shape = read_header(folder).shape
    result = result_of(folder, blots(shape, seed), seg_type=seg_type)
    out.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_segmentation(result, out / "a.seg.dcm")
        write_structures(result, out / "a.rtstruct.dcm")
    return result


def world(affine, mask):
    """Centres of the voxels of a mask `(z, y, x)`, RAS mm, `(voxels, 3)`."""
    z, y, x = np.nonzero(mask)
    return (affine @ np.stack([x, y, z, np.ones_like(x)]))[:3].T


def masks_of(result):
    """The mask of each label by name."""
    array = result.labels.array[0]
    return {name: array == value for name, value in NAMES.items()}


def assert_same_voxels(result, points_of):
    """The voxels of each label (RAS mm, by name) are those that were found; so is their
    centre, to half a voxel and better.
    """
    for name, mask in masks_of(result).items():
        expected = world(result.labels.affine, mask)
        seen = np.asarray(points_of.get(name, ()), float).reshape(-1, 3)
        assert len(seen) == len(expected), name
        if not len(expected):
            continue
        apart = np.linalg.norm(seen.mean(axis=0) - expected.mean(axis=0))
        assert apart <= 0.5 * min(result.labels.spacing), (name, apart)
        np.testing.assert_allclose(_in_order(seen), _in_order(expected), atol=2e-3)


def _in_order(points):
    rounded = np.round(points, 2) + 0.0
    return points[np.lexsort(rounded.T)]


def image_files(folder):
    """Files of a series by their height, as a viewer stacks them."""
    files = sorted(folder.iterdir())
    if len(files) == 1:
        return files
    heights = {}
    for file in files:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        way = np.array(dataset.ImageOrientationPatient, float)
        normal = np.cross(way[:3], way[3:])
        heights[file] = normal @ np.array(dataset.ImagePositionPatient, float)
    return sorted(files, key=heights.__getitem__)
