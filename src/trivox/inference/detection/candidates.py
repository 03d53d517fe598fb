"""Candidates for lesions in a volume of probabilities: connected, apart from each other,
each with one likelihood.

The way of PI-CAI and PANORAMA ("dynamic" lesion extraction: Bosma et al. 2023,
"Semisupervised Learning with Report-guided Pseudo Labels for Deep Learning-based
Prostate Cancer Detection Using Biparametric MRI", Radiology: AI 5(5)): the highest peak
that is left, with all that hangs together with it above a share of it, is the next
candidate. Here voxels hang together by corners too, as the evaluation of both counts
them; all shells round a candidate are its halo, theirs only the innermost; and a speck is
passed over where theirs ends the search.
"""

import numpy as np
from scipy.ndimage import binary_dilation

from trivox.datasets.boxes import Box, box_of
from trivox.volumes.components import connected
from trivox.volumes.volume import Array

FACTOR = 2.5
"""A candidate reaches down to its peak over this."""
MOST = 5
"""Candidates of a case."""
SPECK = 10
"""So many voxels or fewer are no candidate."""
FLOOR = 0.01
"""Peaks below are none."""
PEAKS = 100
"""Looked at in a case, so that noise ends."""
CUBE = np.ones((3, 3, 3), dtype=bool)


def detection_map(chance: Array) -> Array:
    """Candidates in probabilities `(z, y, x)`: float32 of the same shape, in each
    candidate its peak probability, 0 elsewhere.

    At most `MOST` candidates of more than `SPECK` voxels, of which no two touch, not
    even by a corner: what surrounds an earlier one is no second lesion.
    """
    marked = np.zeros(chance.shape, dtype=np.float32)
    box = box_of(chance >= FLOOR / FACTOR)
    if box is None:
        return marked
    rest = chance[box].astype(np.float32)
    inside = marked[box]
    taken = np.zeros(rest.shape, dtype=bool)
    candidates = 0
    for _ in range(PEAKS):
        peak = rest.max()
        if peak < FLOOR or candidates == MOST:
            break
        blob = _blob(rest, peak)
        halo = taken[blob].any()
        large = np.count_nonzero(blob) > SPECK
        if large and not halo:
            inside[blob] = peak
            candidates += 1
        if large or halo:
            _take(taken, blob)
        rest[blob] = 0
    return marked


def candidates_of(detections: Array) -> tuple[Array, list[float]]:
    """The candidates of a detection map `(z, y, x)` as numbers from 1 on, background 0,
    and the likelihood of each: the largest value in it.
    """
    numbers = connected(detections > 0)
    peaks = np.zeros(int(numbers.max(initial=0)) + 1, dtype=detections.dtype)
    np.maximum.at(peaks, numbers, detections)
    return numbers, [float(peak) for peak in peaks[1:]]


def is_detection_map(detections: Array) -> bool:
    """Whether each candidate has one likelihood; probabilities have many."""
    numbers, likelihoods = candidates_of(detections)
    peaks = np.array([0.0, *likelihoods], dtype=detections.dtype)
    return bool((peaks[numbers] == detections).all())


def _blob(values: Array, peak: float) -> Array:
    """What hangs together with the first voxel that has the peak's value."""
    numbers = connected(values >= peak / FACTOR)
    at = np.unravel_index(values.argmax(), values.shape)
    return np.asarray(numbers == numbers[at])


def _take(taken: Array, blob: Array) -> None:
    """Mark a candidate or its halo, and all that touches it."""
    box: Box | None = box_of(blob, margin=(1, 1, 1))
    assert box is not None
    taken[box] |= binary_dilation(blob[box], CUBE)
