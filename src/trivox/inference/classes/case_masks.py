"""Where the features of a case are measured: in the lesion, its core, the rim around
it, the organ and the other targets.
"""

import numpy as np
from scipy import ndimage

from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import RIM_MM, other_targets
from trivox.volumes.volume import Array, Spacing


def case_masks(
    indices: Array, scheme: LabelScheme, lesion: tuple[int, ...], spacing: Spacing
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
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
    masks["core"], masks["rim"] = _core_and_rim(masks["lesion"], spacing)
    masks["organ"] = indices > 0
    others = other_targets(scheme, lesion)
    return masks | {
        name + " label" * (name in masks): _any_of(indices, wanted, scheme)
        for name, wanted in others.items()
    }


def box_of(
    mask: Array, margin: tuple[int, ...] = (0, 0, 0)
) -> tuple[slice, slice, slice] | None:
    """The smallest box `(z, y, x)` that holds a mask, widened by `margin` voxels within
    the array; None if it is empty.
    """
    lines = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(lines[0]):
        return None
    z, y, x = (
        slice(max(int(line[0]) - more, 0), min(int(line[-1]) + more + 1, size))
        for line, more, size in zip(lines, margin, mask.shape, strict=True)
    )
    return z, y, x


def _any_of(indices: Array, wanted: tuple[int, ...], scheme: LabelScheme) -> Array:
    table = np.zeros(
        len(scheme.values) + 1, dtype=bool
    )  # index -1 reads the last entry
    table[list(wanted)] = True
    return np.asarray(table[indices])


def _core_and_rim(lesion: Array, spacing: Spacing) -> tuple[Array, Array]:
    """Both from the box of the lesion with a margin: distance transforms of a whole
    scan take seconds.
    """
    reach = max(RIM_MM, min(spacing))
    core, rim = np.zeros_like(lesion), np.zeros_like(lesion)
    box = box_of(lesion, tuple(int(reach / step) + 1 for step in spacing))
    if box is None:
        return core, rim
    inside = lesion[box]
    eroded = ndimage.binary_erosion(inside)
    core[box] = eroded if eroded.any() else inside
    rim[box] = (
        ndimage.distance_transform_edt(~inside, sampling=spacing) <= reach * (1 + 1e-6)
    ) & ~inside
    return core, rim
