"""Small volumes and files of them, for the tests of the formats."""

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation

from trivox.volumes.volume import Volume, affine_from_spacing

WITH_GRID = (".nii", ".nii.gz", ".nrrd", ".mha", ".npz", ".h5")
SHEAR = np.array(
    [
        [0.8, 0.1, 0.3, -7.25],
        [0.0, 0.9, -0.2, 11.5],
        [0.05, 0.0, 2.5, 3.125],
        [0, 0, 0, 1],
    ]
)


def oblique(spacing=(2.5, 0.7, 0.9), angles=(10, 20, 30)):
    affine = affine_from_spacing(spacing, (5.5, -3.25, 7.125))
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turned @ affine[:3, :3]
    return affine


def sample(dtype=np.int16, channels=1, shape=(3, 4, 5), affine=None):
    values = np.random.default_rng(0).integers(0, 100, (channels, *shape)).astype(dtype)
    return Volume(values, oblique() if affine is None else affine)


def save_nifti(path, array, affine=None, **header):
    image = nibabel.Nifti1Image(array, oblique() if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path
