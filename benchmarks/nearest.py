"""Nearest distances from one surface to another, as `surface_distances` needs them:
`distances_to` against the distance transform of the PyPI package `edt`.

Ours looks from each surface voxel at the columns around it; theirs makes the distance
of every voxel of the box and is then read at the surface voxels. Both ways, prediction
to reference and back, at anisotropic spacings. The second measure of each pair has the
limit of 2 mm that the surface Dice needs: a distance transform cannot stop there.

edt 3.1.2 is only measured here, not required: `pip install edt`.
"""

import edt
import numpy as np

from _measure import arguments, race
from metrics import masks
from trivox.datasets.boxes import NOTHING, box_of
from trivox.evaluation.metrics.nearest import distances_to
from trivox.volumes.volume import Array, Spacing

SPACINGS = ((1.0, 1.0, 1.5), (3.0, 0.8, 0.8))
LIMIT_MM = 2.0


def edge_voxels(mask: Array) -> Array:
    """Voxels with a face neighbour outside."""
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask)


def by_edt(points: Array, mask: Array, spacing: Spacing) -> Array:
    """Distance of each point to the mask, from the transform of the whole box."""
    transform = edt.edt(~mask, anisotropy=spacing, black_border=False, parallel=1)
    return transform[points]


def compare(
    name: str, pair: tuple[Array, Array], spacing: Spacing, limit_mm: float, rounds: int
) -> None:
    """One line: both directions of two surfaces that share some voxels."""
    first, second = pair
    sides = ((first & ~second, second), (second & ~first, first))

    def ours() -> Array:
        distances = [
            distances_to(points, mask, spacing=spacing, limit_mm=limit_mm)
            for points, mask in sides
        ]
        return np.concatenate(distances)

    def theirs() -> Array:
        distances = [by_edt(points, mask, spacing) for points, mask in sides]
        return np.concatenate(distances)

    result = race(ours, theirs, rounds=rounds)
    near = np.isfinite(result.our_result)
    differences = np.abs(result.our_result - result.their_result)[near]
    largest = differences.max(initial=0.0)
    shown = "x".join(f"{mm:g}" for mm in spacing)
    limit = f", limit {limit_mm:g} mm" if np.isfinite(limit_mm) else ""
    result.show(f"{name} at {shown} mm{limit}", f"at most {largest:.1e} mm apart")


def surfaces(prediction: Array, reference: Array) -> tuple[Array, Array]:
    """Edge voxels of both masks in the box around them."""
    box = box_of(prediction | reference) or NOTHING
    padded = [np.pad(mask[box], 1) for mask in (prediction, reference)]
    return edge_voxels(padded[0]), edge_voxels(padded[1])


def main() -> None:
    quick = arguments(__doc__).quick
    size = 100 if quick else 200
    rounds = 3 if quick else 7
    organ = masks(size, 0.288 * size, seed=0)
    lesion = masks(size, 0.053 * size, seed=0)
    elsewhere = np.roll(lesion[1], size // 4, axis=(0, 1, 2))
    pairs = {
        "organ": surfaces(*organ),
        "lesion": surfaces(*lesion),
        "lesion elsewhere": surfaces(lesion[0], elsewhere),
        "half an organ": surfaces(organ[0] & (np.arange(size) < size // 2), organ[1]),
    }
    for name, pair in pairs.items():
        for spacing in SPACINGS:
            for limit_mm in (np.inf, LIMIT_MM):
                compare(name, pair, spacing, limit_mm, rounds)


if __name__ == "__main__":
    main()
