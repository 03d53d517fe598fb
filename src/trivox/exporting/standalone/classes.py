"""The class of a case, read where its lesion is. Arrays are (channel, z, y, x)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from boxes import box_of
from classifier import Classifier
from grids import window_starts
from lesion_masks import lesion_masks
from runtimes import open_reader
from scipy.special import log_softmax, softmax
from volume import Array

from features import handmade_features

NO_LESION = "no lesion predicted: answered from the most likely voxels"
LEAST = 1e-12
Place = tuple[int, ...]


class Reading(NamedTuple):
    """What one network reads: logits of the classes, if it was run, and features."""

    logits: Array | None
    features: dict[str, float]


class CaseClasses:
    """What answers with the class of a case.

    lesion_chance: of a network by its number, the probability that each voxel of an
    image is lesion.
    """

    def __init__(
        self,
        folder: Path,
        export: dict[str, Any],
        lesion_chance: Callable[[int, Array], Array],
        threads: int | None,
    ) -> None:
        self.pipeline = export["pipeline"]
        self.rules = self.pipeline["classes"]
        self.lesion_chance = lesion_chance
        self.readers = []
        self.classifiers = []
        for each in self.rules["networks"]:
            network = each["network"]
            reader = network and open_reader(folder / network, export, threads)
            self.readers.append(reader)
            classifier = each["classifier"]
            self.classifiers.append(classifier and Classifier(folder / classifier))

    def answer(self, image: Array, indices: Array) -> dict[str, Any]:
        """Class, probabilities and warnings of a prepared image with label indices (z,
        y, x) on its grid.
        """
        votes = [self.vote(n, image, indices) for n in range(len(self.readers))]
        chance = softmax(np.mean(votes, axis=0))
        names = self.rules["names"]
        warnings = [] if self.lesion_of(indices).any() else [NO_LESION]
        return {
            "class": names[int(chance.argmax())],
            "probabilities": dict(zip(names, chance.tolist(), strict=True)),
            "warnings": warnings,
        }

    def vote(self, number: int, image: Array, indices: Array) -> Array:
        """Logarithms of the probabilities that one network gives."""
        reading = self.read(number, image, indices)
        classifier = self.classifiers[number]
        if classifier is not None:
            chance = classifier.probabilities(reading.features)
            return np.log(chance.clip(LEAST, 1))
        temperature = self.rules["networks"][number]["temperature"]
        return log_softmax(reading.logits / temperature)

    def read(self, number: int, image: Array, indices: Array) -> Reading:
        """What one network reads from the voxels of the lesion, or where there is none
        from those that it holds for the likeliest.
        """
        features = self.measured(image, indices)
        if self.readers[number] is None:
            return Reading(None, features)
        if not self.lesion_of(indices).any():
            indices = self.likeliest(number, image)
        views = self.views(number, image, indices)
        mass, logits, pooled = zip(*views, strict=True)
        values = np.average(pooled, axis=0, weights=mass).tolist()
        deep = dict(zip(self.pooled_names(), values, strict=True))
        return Reading(np.average(logits, axis=0, weights=mass), {**features, **deep})

    def lesion_of(self, indices: Array) -> Array:
        """The lesion's mask in label indices."""
        return np.isin(indices, self.rules["lesion"])

    def measured(self, image: Array, indices: Array) -> dict[str, float]:
        """Features of the lesion that need no network."""
        rules = self.rules
        spacing = self.pipeline["spacing"]
        masks = lesion_masks(
            indices, rules["lesion"], rules["others"], spacing, rim_mm=rules["rim_mm"]
        )
        channels = self.pipeline["channels"]
        given = image[: len(channels)]
        return handmade_features(given, masks, spacing, channels=channels)

    def likeliest(self, number: int, image: Array) -> Array:
        """Label indices that are lesion at the most probable voxels."""
        chance = self.lesion_chance(number, image)
        order = np.argsort(-chance, axis=None, kind="stable")
        indices = np.zeros(chance.size, np.int16)
        indices[order[: self.rules["likeliest"]]] = self.rules["lesion"][0]
        return indices.reshape(chance.shape)

    def views(
        self, number: int, image: Array, indices: Array
    ) -> Iterator[tuple[float, Array, Array]]:
        """Of each window that holds some of the lesion: its voxels of it, logits and
        features, means over mirrored copies.
        """
        patch = self.pipeline["patch_size"]
        read = self.readers[number]
        masks = self.masks_of(indices)
        axes = self.rules["mirror_axes"]
        flips = [(), axes] if axes else [()]
        for start in self.starts(masks[0] > 0):
            window = boxed(image, start, patch)
            inside = boxed(masks, start, patch)
            copies = [read(mirrored(window, f), mirrored(inside, f)) for f in flips]
            logits, features = zip(*copies, strict=True)
            yield inside[0].sum(), np.mean(logits, axis=0), np.mean(features, axis=0)

    def masks_of(self, indices: Array) -> Array:
        """Lesion, organ and other targets (m, z, y, x)."""
        others = self.rules["others"].values()
        parts = [np.isin(indices, wanted) for wanted in others]
        masks = [self.lesion_of(indices), indices > 0, *parts]
        return np.stack(masks).astype(np.float32)

    def starts(self, inside: Array) -> list[Place]:
        """Windows over the box of a lesion's mask."""
        patch = self.pipeline["patch_size"]
        sides = zip(box_of(inside), patch, inside.shape, strict=True)
        places = itertools.starmap(starts_along, sides)
        corners = itertools.product(*places)
        return [each for each in corners if boxed(inside[None], each, patch).any()]

    def pooled_names(self) -> Iterator[str]:
        """Names of the features that networks give, in their order."""
        for stage, width in enumerate(self.rules["widths"]):
            kinds = itertools.product(("mean", "deviation"), self.rules["pooled"])
            for what, mask in kinds:
                for number in range(width):
                    yield f"stage {stage} {mask} {what} {number}"


def starts_along(side: slice, patch: int, limit: int) -> list[int]:
    """First voxels of the windows over a part of an axis of `limit` voxels: one round
    its middle, or as many as it takes.
    """
    extent = side.stop - side.start
    if extent > patch:
        return [side.start + start for start in window_starts(extent, patch, 0.0)]
    middle = (side.start + side.stop) // 2
    return [patch_start(middle, patch, limit)]


def boxed(array: Array, start: Sequence[int], size: Sequence[int]) -> Array:
    """A box of (c, z, y, x) that may reach over the border; outside is zero."""
    part = [slice(None)]
    edges = [(0, 0)]
    for first, wanted, voxels in zip(start, size, array.shape[1:], strict=True):
        stop = first + wanted
        part.append(slice(max(first, 0), max(stop, 0)))
        edges.append((max(-first, 0), max(stop - voxels, 0)))
    return np.pad(array[tuple(part)], edges)


def mirrored(array: Array, axes: Sequence[int]) -> Array:
    """(1, c, z, y, x): an array (c, z, y, x) mirrored along axes of the volume."""
    turned = np.flip(array, [axis + 1 for axis in axes])
    return np.ascontiguousarray(turned[None], np.float32)


def patch_start(centre: int, patch: int, limit: int) -> int:
    """First voxel of a patch round a centre, within an axis or centred on it."""
    if patch >= limit:
        return -((patch - limit) // 2)
    first = max(centre - patch // 2, 0)
    return min(first, limit - patch)
