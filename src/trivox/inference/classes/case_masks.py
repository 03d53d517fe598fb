"""Where the features of a case are measured: in the lesion, its core, the rim around
it, the organ and the other targets.
"""

import numpy as np
from scipy import ndimage

from trivox.datasets.boxes import box_of
from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import RIM_MM, other_targets
from trivox.volumes.volume import Array, Spacing


def case_masks(
    indices: Array, scheme: LabelScheme, lesion: tuple[int, ...], spacing: Spacing
) -> dict[str, Array]:
    """Masks `(z, y, x)` of a label map of indices (-1: ignored, background here);
    spacing: mm (z, y, x).

    Always these four first: "lesion" (the label indices `lesion`), "core" (the lesion
    eroded by one voxel; the lesion itself where nothing is left), "rim" (voxels outside
    the lesion within 3 mm of it, or within one voxel where voxels are larger), "organ"
    (all that is not background). Then each target of the scheme that is neither of
    them, under its own name (with " label" appended where that is one of the four),
    unless there are more than four. A mask may be empty.
    """
    indices = np.asarray(indices)
    masks = {"lesion": _any_of(indices, lesion, scheme)}
    core, rim = _core_and_rim(masks["lesion"], spacing)
    masks["core"] = core
    masks["rim"] = rim
    masks["organ"] = indices > 0
    others = {}
    for name, wanted in other_targets(scheme, lesion).items():
        free = f"{name} label" if name in masks else name
        others[free] = _any_of(indices, wanted, scheme)
    return masks | others


def _any_of(indices: Array, wanted: tuple[int, ...], scheme: LabelScheme) -> Array:
    # index -1 reads the last entry
    table = np.zeros(len(scheme.values) + 1, dtype=bool)
    table[list(wanted)] = True
    return np.asarray(table[indices])


def _core_and_rim(lesion: Array, spacing: Spacing) -> tuple[Array, Array]:
    """Both from the box of the lesion with a margin: distance transforms of a whole
    scan take seconds.
    """
    reach = max(RIM_MM, min(spacing))
    core = np.zeros_like(lesion)
    rim = np.zeros_like(lesion)
    margin = tuple(int(reach / step) + 1 for step in spacing)
    box = box_of(lesion, margin)
    if box is None:
        return core, rim
    inside = lesion[box]
    eroded = ndimage.binary_erosion(inside)
    core[box] = eroded if eroded.any() else inside
    distance = ndimage.distance_transform_edt(~inside, sampling=spacing)
    near = distance <= reach * (1 + 1e-6)
    rim[box] = near & ~inside
    return core, rim
