"""Which of the labels are the lesion that the class of a case is decided by."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.errors import RecipeError

WORDS = (
    "lesion",
    "tumour",
    "tumor",
    "cancer",
    "carcinoma",
    "nodule",
    "metasta",
    "cyst",
    "stroke",
    "haemorrhage",
)
"""Parts of names that lesions go by."""
MOST = 4
"""Other targets that are looked at one by one: 104 organs of a CT are no description of
a lesion.
"""
RIM_MM = 3.0
"""Thickness of the shell round a lesion that is looked at."""


def lesion_indices(labels: LabelScheme, wanted: Sequence[str] = ()) -> tuple[int, ...]:
    """Label indices of the lesion, ascending: those of the targets `wanted`, else found
    by name, else all foreground.

    Raises `RecipeError` for a name that no target has.
    """
    strange = [name for name in wanted if name not in labels.targets]
    if strange:
        raise RecipeError(
            f"recipe setting 'classification.lesion': {strange} are not among "
            f"{', '.join(labels.targets)}"
        )
    names = wanted or lesion_names(labels)
    chosen = set[int]().union(*(labels.targets[name] for name in names))
    return tuple(sorted(chosen)) or tuple(range(1, len(labels.values)))


def lesion_names(labels: LabelScheme) -> tuple[str, ...]:
    """Targets that are named like lesions."""
    return tuple(name for name in labels.targets if _sounds_like_lesion(name))


def _sounds_like_lesion(name: str) -> bool:
    return any(word in name.lower() for word in WORDS)


def other_targets(
    labels: LabelScheme, lesion: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """Targets beside the lesion and the whole foreground that may tell the class too;
    none if more than `MOST`.
    """
    known = (set(lesion), set(range(1, len(labels.values))))
    others = {
        name: indices
        for name, indices in labels.targets.items()
        if set(indices) not in known
    }
    return others if len(others) <= MOST else {}


def outputs_within(labels: LabelScheme, indices: Sequence[int]) -> tuple[int, ...]:
    """Channels of the network's output that make up label `indices`: the labels
    themselves, or regions.

    Regions: those that lie inside; where none does, the smallest that holds them all,
    else all regions.
    """
    if labels.exclusive:
        return tuple(indices)
    wanted = set(indices)
    regions = [set(region) for region in labels.targets.values()]
    numbers = range(len(regions))
    inside = tuple(number for number in numbers if regions[number] <= wanted)
    if inside:
        return inside
    holding = [number for number in numbers if regions[number] >= wanted]
    if holding:
        return (min(holding, key=lambda number: len(regions[number])),)
    return tuple(numbers)


def mask_table(
    labels: LabelScheme, lesion: Sequence[int]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Membership `(mask, index)` of the lesion, the organ (all foreground) and the
    other targets, in this order.
    """
    rows = [
        tuple(lesion),
        tuple(range(1, len(labels.values))),
        *other_targets(labels, lesion).values(),
    ]
    table = np.zeros((len(rows), len(labels.values)), dtype=bool)
    for row, indices in zip(table, rows, strict=True):
        row[list(indices)] = True
    return table
