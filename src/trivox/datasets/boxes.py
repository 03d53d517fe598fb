"""The box of a mask: most of a scan lies outside of it and need not be looked at."""

import numpy as np

from trivox.volumes.volume import Array

Box = tuple[slice, slice, slice]
NOTHING: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


def box_of(mask: Array, margin: tuple[int, ...] = (0, 0, 0)) -> Box | None:
    """The smallest box `(z, y, x)` that holds a mask, widened by `margin` voxels within
    the array; None if the mask is empty.
    """
    slices = list(NOTHING)
    inside: Array = mask
    # one axis after the other, each within what the last one left
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        hits = np.flatnonzero(inside.any(axis=others))
        if not hits.size:
            return None
        slices[axis] = slice(int(hits[0]), int(hits[-1]) + 1)
        inside = mask[tuple(slices[: axis + 1])]
    z, y, x = (
        slice(max(side.start - wider, 0), min(side.stop + wider, size))
        for side, wider, size in zip(slices, margin, mask.shape, strict=True)
    )
    return z, y, x
