"""Scans of smooth structures with noise, to try a model on where there are no cases."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from trivox.datasets.dataset import Case
from trivox.planning.plan import Normalisation, Plan
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Array, Volume, affine_from_spacing

SCANS = 2
LARGER = 1.3
"""Than the patch, in mm."""
FINER = 0.85
"""Than the plan's voxels."""
TURNS = (np.diag([-1.0, -1.0, 1.0]), np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]))
"""How the axes of each lie in the world: as scanners write them, not as networks see
them.
"""


def phantom_scans(plan: Plan, folder: Path) -> tuple[Case, ...]:
    """Write scans of the plan's channels into `folder`."""
    cases = []
    for number in range(SCANS):
        name = f"phantom{number}"
        files = []
        for channel, how in enumerate(plan.normalisations):
            rng = np.random.default_rng([number, channel])
            structures = _structures(rng, _shape(plan))
            image = _scaled(structures, how)
            file = folder / f"{name}_{channel:04d}.nii.gz"
            write_volume(file, Volume(image[None], _affine(plan, number)))
            files.append(file)
        cases.append(Case(name=name, images=tuple(files)))
    return tuple(cases)


def _shape(plan: Plan) -> list[int]:
    """Voxels `(z, y, x)`: along no axis few."""
    larger = LARGER / FINER
    return [max(8, round(larger * voxels)) for voxels in plan.patch_size]


def _affine(plan: Plan, number: int) -> Array:
    z, y, x = plan.spacing
    affine = affine_from_spacing((FINER * z, FINER * y, FINER * x))
    directions = affine[:3, :3]
    affine[:3, :3] = TURNS[number] @ directions
    return affine


def _structures(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Mean 0, variance 1."""
    noise = rng.normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 3)
    return np.asarray(smooth / max(smooth.std(), 1e-8) + 0.2 * noise)


def _scaled(array: Array, how: Normalisation) -> Array:
    """In the values that a normalisation expects, none of them zero."""
    scaled = array + 10
    if how.scheme == "ct":
        scaled = array * how.std + how.mean
    return scaled.astype(np.float32)
