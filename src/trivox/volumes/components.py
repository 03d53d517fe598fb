"""Connected components."""

import cc3d
import numpy as np

from trivox.volumes.volume import Array


def connected(labels: Array) -> Array:
    """The 26-connected components of a mask or of label indices `(z, y, x)` as numbers
    from 1 on, background 0; a component lies within one label.
    """
    contiguous = np.ascontiguousarray(labels)
    if sum(size > 1 for size in labels.shape) > 1:
        return np.asarray(cc3d.connected_components(contiguous, connectivity=26))
    # cc3d 4.1 refuses rows of single voxels (1 x 1 x 3 with a hole): a rim helps
    rimmed = np.pad(contiguous, 1)
    inside = (slice(1, -1),) * 3
    return np.asarray(cc3d.connected_components(rimmed, connectivity=26)[inside])
