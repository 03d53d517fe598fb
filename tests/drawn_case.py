"""A small case with nested regions, as pictures need it."""

import numpy as np

from trivox.evaluation.report.case_view import CaseView

AFFINE = np.array([[1.5, 0, 0, -20], [0, 1, 0, 30], [0, 0, 3, -5], [0, 0, 0, 1.0]])


def view(shape=(12, 20, 16), count=2, **changes):
    """`count` channels of noise; a "rim" round a "core", the prediction one voxel off."""
    rng = np.random.default_rng(0)
    image = rng.normal(5, 1, (count, *shape)).astype(np.float32)
    reference = np.zeros(shape, np.int16)
    reference[3:7, 8:14, 6:10] = 1
    reference[4:6, 9:12, 7:9] = 2
    content = {
        "image": image,
        "prediction": np.roll(reference, 1, axis=1),
        "reference": reference,
        "affine": AFFINE,
        "channels": [f"channel {i}" for i in range(count)],
        "labels": ["rim", "core"],
        "targets": {"whole": (1, 2), "core": (2,)},
        "dice": {"whole": 0.9, "core": None},
    }
    return CaseView(**{**content, **changes})
