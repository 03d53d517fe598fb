"""Where the features of a case are measured: in the lesion, its core, the rim around
it, the organ and the other targets.

Exports carry this module as it is (`trivox.exporting.programs`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from trivox.datasets.boxes import box_of
from trivox.volumes.volume import Array, Spacing


def lesion_masks(
    indices: Array,
    lesion: Sequence[int],
    others: Mapping[str, Sequence[int]],
    spacing: Spacing,
    *,
    rim_mm: float,
) -> dict[str, Array]:
    """Masks `(z, y, x)` of a label map of indices (-1: ignored, background here);
    spacing: mm (z, y, x).

    Always these four first: "lesion" (the label indices `lesion`), "core" (the lesion
    eroded by one voxel; the lesion itself where nothing is left), "rim" (voxels outside
    the lesion within `rim_mm` of it, or within one voxel where voxels are larger),
    "organ" (all that is not background). Then each of `others`, under its own name
    (with " label" appended where that is one of the four). A mask may be empty.
    """
    indices = np.asarray(indices)
    masks = {"lesion": np.isin(indices, lesion)}
    core, rim = _core_and_rim(masks["lesion"], spacing, max(rim_mm, min(spacing)))
    masks["core"] = core
    masks["rim"] = rim
    masks["organ"] = indices > 0
    parts = {}
    for name, wanted in others.items():
        free = f"{name} label" if name in masks else name
        parts[free] = np.isin(indices, wanted)
    return masks | parts


def _core_and_rim(lesion: Array, spacing: Spacing, reach: float) -> tuple[Array, Array]:
    """Both from the box of the lesion with a margin: distance transforms of a whole
    scan take seconds.
    """
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
