"""Windows of prepared images, for a network that is to compute in int8."""

from collections.abc import Sequence
from itertools import product
from typing import TypeVar

import numpy as np

from trivox.datasets.dataset import Case
from trivox.errors import DataError
from trivox.inference.predictor import Predictor
from trivox.inference.windows import pad_to, window_starts
from trivox.volumes.volume import Array

T = TypeVar("T")
MOST_CASES = 16
MOST_OF_A_CASE = 8


def calibration_windows(predictor: Predictor, cases: Sequence[Case]) -> list[Array]:
    """Windows `(1, c, z, y, x)` float32 as networks see them, spread over the cases and
    over each; none without cases.

    Raises `DataError` where no case can be read.
    """
    if not cases:
        return []
    windows: list[Array] = []
    problems: list[str] = []
    for case in spread(cases, MOST_CASES):
        try:
            windows += _of_case(predictor, case)
        except DataError as error:
            problems.append(str(error))
    if not windows:
        raise DataError(
            f"no case can be calibrated with ({problems[0]}); give others to --calibrate"
        )
    return windows


def _of_case(predictor: Predictor, case: Case) -> list[Array]:
    member = predictor.members[0]
    begun = predictor.begin(case)
    ready = begun.made_ready(predictor.members, predictor.descriptions)
    windows = member.windows
    image, _ = pad_to(ready.cases[0].image, windows.patch_size)
    axes = zip(image.shape[1:], windows.patch_size, strict=True)
    starts = [window_starts(size, patch, windows.overlap) for size, patch in axes]
    cut: list[Array] = []
    for corner in spread(list(product(*starts)), MOST_OF_A_CASE):
        sides = zip(corner, windows.patch_size, strict=True)
        place = [slice(start, start + patch) for start, patch in sides]
        window = image[:, *place].numpy()
        cut.append(np.ascontiguousarray(window[None], dtype=np.float32))
    return cut


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of a list, evenly."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[place] for place in places]
