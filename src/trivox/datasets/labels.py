"""What the values in a label map mean, and the consecutive indices that the network
works with.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from trivox.errors import LabelError
from trivox.schema import Frozen
from trivox.volumes.volume import Array

A_PORTION = 2**20
"""Voxels whose labels are looked up at once."""
IGNORED = -1
"""Index of voxels that neither loss nor metrics look at."""


def discovered_name(value: int) -> str:
    """What a value is called that was found in label maps and that nobody named."""
    return f"label_{value}"


class LabelScheme(Frozen):
    """Names and values of the labels of a dataset; any integers will do (`{0, 7, 300}`
    included).

    labels: name -> value in the files, background left out. With `regions`, the network
    predicts overlapping regions (each a set of values) instead of exclusive labels;
    `region_order[i]` is the value painted where region `i` is found, later regions over
    earlier ones (nnU-Net's `regions_class_order`). nested: a region whose values all
    belong to another one is only painted inside that one (BraTS: enhancing tumour in
    tumour core in whole tumour). Inside trivox a voxel holds an index: 0 background,
    1..n the labels in ascending order of value, -1 ignored.
    """

    labels: dict[str, int]
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    region_order: tuple[int, ...] = ()
    background: int = 0
    ignore: int | None = None
    nested: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "LabelScheme":
        values = list(self.labels.values())
        if not values:
            raise ValueError(
                "a dataset needs at least one label besides the background"
            )
        if (
            len(set(values)) != len(values)
            or self.background in values
            or self.ignore in [*values, self.background]
        ):
            raise ValueError(
                "label values must differ from each other, the background and "
                f"'ignore': {self.labels}"
            )
        unknown = set[int]().union(*self.regions.values()) - set(values)
        if unknown:
            raise ValueError(f"regions use values {sorted(unknown)} that no label has")
        if self.regions and (
            len(self.region_order) != len(self.regions)
            or not set(self.region_order) <= set(values)
        ):
            raise ValueError("region_order needs one known label value for each region")
        return self

    @cached_property
    def values(self) -> tuple[int, ...]:
        """Value of each index, background first."""
        return (self.background, *sorted(self.labels.values()))

    @cached_property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """What is learnt and measured: name -> the indices that belong to it."""
        by_value = sorted(self.labels, key=lambda name: self.labels[name])
        sets = self.regions or {name: (self.labels[name],) for name in by_value}
        return {name: self._indices(values) for name, values in sets.items()}

    def _indices(self, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.values.index(value) for value in values)

    @property
    def output_channels(self) -> int:
        """Channels of the network's output: one a region (sigmoid), or background and
        labels (softmax).
        """
        return len(self.regions) or len(self.values)

    @property
    def exclusive(self) -> bool:
        """Whether a voxel has exactly one label (softmax) rather than overlapping
        regions (sigmoid).
        """
        return not self.regions

    def encode(
        self, array: Array, *, where: str = "label map"
    ) -> np.ndarray[Any, np.dtype[np.int16]]:
        """File values to indices (int16, same shape); raises `LabelError` naming
        `where` for undeclared values.
        """
        index = {value: i for i, value in enumerate(self.values)}
        if self.ignore is not None:
            index[self.ignore] = IGNORED
        known = sorted(index)
        indices = np.array([index[value] for value in known], dtype=np.int16)
        values = np.array(known)
        result = np.empty_like(array, dtype=np.int16)
        unknown: set[int | float] = set()
        for row, source in _rows(result, array):
            position = np.searchsorted(values, source).clip(max=len(known) - 1)
            wrong = values[position] != source
            unknown.update(np.unique(source[wrong]).tolist())
            row[...] = indices[position]
        if unknown:
            raise LabelError(
                f"{where}: label values {sorted(unknown)[:5]} are not declared (known: "
                f"{known}); correct the label map or declare them in the dataset file"
            )
        return result

    def decode(self, indices: Array) -> Array:
        """Indices back to file values, in the smallest integer type that holds them
        all; ignored becomes background.
        """
        table = np.array([*self.values, self.background])  # index -1: the last entry
        kind = np.result_type(
            np.min_scalar_type(table.min()), np.min_scalar_type(table.max())
        )
        result = np.empty_like(indices, dtype=kind)
        for row, source in _rows(result, indices):
            row[...] = table[source]
        return result

    def region_table(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Membership `(target, index)`: row t is true at the indices that target t
        contains.
        """
        table = np.zeros((len(self.targets), len(self.values)), dtype=bool)
        for row, indices in zip(table, self.targets.values(), strict=True):
            row[list(indices)] = True
        return table

    @cached_property
    def containing(self) -> tuple[tuple[int, ...], ...]:
        """For each region the numbers of the regions that hold all its values and more;
        none unless `nested`.
        """
        sets = [set(values) for values in self.regions.values()]

        def holders(region: set[int]) -> tuple[int, ...]:
            return tuple(i for i, other in enumerate(sets) if region < other)

        return tuple(holders(region) if self.nested else () for region in sets)

    def paint_regions(self, present: Array) -> Array:
        """Region masks `(region, ...)` to indices: `region_order` painted one after the
        other.
        """
        result = np.zeros(present.shape[1:], dtype=np.int16)
        for mask, value, holders in zip(
            present, self.region_order, self.containing, strict=True
        ):
            inside = mask
            if holders:
                inside = np.logical_and.reduce([mask, *(present[i] for i in holders)])
            result[inside] = self.values.index(value)
        return result

    def decide(self, scores: Array, *, above: float = 0) -> Array:
        """Label indices (int16) `(...)` of scores `(output, ...)`: the largest of
        exclusive labels (the first of equals), or the regions whose score is larger
        than `above` painted (0 of logits, 0.5 of probabilities).
        """
        if self.exclusive:
            return np.asarray(scores.argmax(0), dtype=np.int16)
        return self.paint_regions(scores > above)

    def translation(self, other: "LabelScheme") -> tuple[Array, tuple[str, ...]]:
        """Values of `other` for each index of this scheme, matched by label name, and
        the names `other` does not have.

        Those become background.
        """
        names = {value: name for name, value in self.labels.items()}
        values = [
            other.labels.get(names.get(value, ""), other.background)
            for value in self.values
        ]
        lost = tuple(name for name in self.labels if name not in other.labels)
        return np.array(values), lost


def _rows(result: Array, source: Array) -> Iterator[tuple[Array, Array]]:
    """Both, some voxels at a time: an index takes 64 bits while it is looked up."""
    if source.size <= A_PORTION or source.ndim < 2:
        yield result, source
        return
    for pair in zip(result, source, strict=True):
        yield from _rows(*pair)
