"""Rules that clean a predicted label map; `trivox.inference.rules.rule_trials` decides
on validation cases which ones help.
"""

from collections.abc import Collection, Sequence

import numpy as np
from pydantic import Field, NonNegativeFloat

from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError
from trivox.inference.rules.region_rules import RegionRule, clean_regions
from trivox.schema import Frozen
from trivox.volumes.components import connected
from trivox.volumes.volume import Array

MIN_GAIN = 1e-5
"""Mean Dice that a rule must add to be kept."""


class Postprocessing(Frozen):
    """Rules, applied in this order: two for exclusive labels, whose voxels become
    background, then those of regions.

    largest_foreground: keep the largest component of everything that is not background;
    largest_of: of label indices, each on its own. Then region by region, outer ones
    first, with what is removed falling back to the enclosing region:
    largest_of_regions: names of regions that keep their largest component only;
    remove_small: name -> volume in mm3 below which a component is removed;
    replace_small: name -> volume in mm3 below which the region is removed as a whole.
    """

    largest_foreground: bool = False
    largest_of: tuple[int, ...] = ()
    largest_of_regions: tuple[str, ...] = ()
    remove_small: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    replace_small: dict[str, NonNegativeFloat] = Field(default_factory=dict)

    def apply(self, labels: Array, scheme: LabelScheme, *, voxel_mm3: float) -> Array:
        """Cleaned label indices `(z, y, x)`; the same array where nothing is to be
        done. voxel_mm3: volume of a voxel.

        Raises `BundleError` for rules about regions that the scheme does not have.
        """
        result = labels
        if self.largest_foreground:
            result = np.where(largest_component(labels > 0), labels, 0)
        if self.largest_of:
            chosen = np.isin(result, self.largest_of)
            result = np.where(chosen, largest_of_each(result), result)
        rules = self.of_regions()
        unknown = sorted(set(rules) - set(scheme.targets))
        if unknown:
            raise BundleError(
                f"postprocessing names {unknown}, but the model finds "
                f"{list(scheme.targets)}; export it again"
            )
        if not rules:
            return result
        return clean_regions(result, scheme, rules, voxel_mm3=voxel_mm3)

    def of_regions(self) -> dict[str, RegionRule]:
        """The rule of each region that has one."""
        names = {*self.largest_of_regions, *self.remove_small, *self.replace_small}
        return {
            name: RegionRule(
                name in self.largest_of_regions,
                self.remove_small.get(name, 0),
                self.replace_small.get(name, 0),
            )
            for name in names
        }

    def without(self, regions: Collection[str]) -> "Postprocessing":
        """The rules without those of some regions."""
        return Postprocessing(
            largest_foreground=self.largest_foreground,
            largest_of=self.largest_of,
            largest_of_regions=tuple(
                name for name in self.largest_of_regions if name not in regions
            ),
            remove_small=_without(self.remove_small, regions),
            replace_small=_without(self.replace_small, regions),
        )


def apply_rules(
    rules: Sequence[Postprocessing],
    labels: Array,
    scheme: LabelScheme,
    *,
    voxel_mm3: float,
) -> Array:
    """Label indices after the rules of several models, one after the other; see
    `Postprocessing.apply`.
    """
    for rule in rules:
        labels = rule.apply(labels, scheme, voxel_mm3=voxel_mm3)
    return labels


def _without(sizes: dict[str, float], names: Collection[str]) -> dict[str, float]:
    return {name: size for name, size in sizes.items() if name not in names}


def largest_component(mask: Array) -> Array:
    """The largest 26-connected component of a mask `(z, y, x)`; an empty mask stays
    empty.
    """
    return largest_of_each(mask.astype(np.int16)) > 0


def largest_of_each(labels: Array) -> Array:
    """Label indices `(z, y, x)` with only the largest 26-connected component of each;
    one pass for all labels.
    """
    components = connected(labels.clip(min=0))
    sizes = np.bincount(components.reshape(-1))
    first = np.zeros(len(sizes), dtype=labels.dtype)
    # a component lies within one label
    first[components.reshape(-1)] = labels.reshape(-1)
    keep = np.zeros(len(sizes), dtype=bool)
    for index in np.unique(first[1:]):
        parts = np.flatnonzero(first == index)
        parts = parts[parts > 0]
        keep[parts[sizes[parts].argmax()]] = True
    return np.where(keep[components], labels, 0)
