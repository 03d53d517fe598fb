"""A few cases that stand for all: what they take is what the others take."""

import random
from collections.abc import Sequence
from pathlib import Path

from trivox.datasets.dataset import Case

MOST_CASES = 33
SEED = 0


def spread(cases: Sequence[Case]) -> list[Case]:
    """Cases over the whole range of sizes, the middle one first, the others in any
    order: however many of them are tried, they stand for all.
    """
    sizes = {case.name: size_of(case) for case in cases}
    ordered = sorted(cases, key=lambda case: (sizes[case.name], case.name))
    number = min(len(ordered), MOST_CASES)
    step = len(ordered) / number
    chosen: list[Case] = []
    for part in range(number):
        place = int((part + 0.5) * step)  # the middle of its share
        chosen.append(ordered[place])
    middle = chosen.pop(number // 2)
    generator = random.Random(SEED)
    generator.shuffle(chosen)
    return [middle, *chosen]


def mean_size(cases: Sequence[Case]) -> float:
    """Mean bytes of the files of a case; 0 without cases."""
    if not cases:
        return 0.0
    total = sum(size_of(case) for case in cases)
    return total / len(cases)


def size_of(case: Case) -> int:
    """Bytes of its images as they lie on the disk; of a folder, of what is in it."""
    return sum(_bytes(path) for path in case.images)


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(_bytes(part) for part in path.iterdir())
    if not path.is_file():
        return 0
    return path.stat().st_size
