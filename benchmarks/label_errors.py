"""Wrong labels that are planted into a dataset, and how many `trivox check --predictions`
finds: recall and precision.

Give a dataset and a run on it: the label maps of its validation were predicted by
networks that had not seen the cases. Errors of eight kinds are planted into a share of
these cases, several times over; what is listed without any planted is shown as well.
The goal: recall of 0.8 at a precision of 0.5.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.reading import read_reference
from trivox.tasks.suspects.disagreement import disagreement
from trivox.tasks.suspects.judging import LIMIT, suspects
from trivox.tasks.suspects.search import predictions_in
from trivox.volumes.formats import read_header, read_labels
from trivox.volumes.geometry import on_grid_of

Array = np.ndarray
Spoil = Callable[[Array, np.random.Generator], Array]
RADIUS = 4
MOVED = 4
"""Voxels."""


def missing(label: Array, rng: np.random.Generator) -> Array:
    """One structure is not drawn."""
    return np.where(label == rng.choice(present(label)), 0, label)


def exchanged(label: Array, rng: np.random.Generator) -> Array:
    """Two structures have each other's value."""
    values = present(label)
    one, other = (values[0], values[-1])
    return np.where(label == one, other, np.where(label == other, one, label))


def moved(label: Array, rng: np.random.Generator) -> Array:
    """The label map lies elsewhere."""
    return np.roll(label, MOVED, axis=rng.integers(3))


def cut(label: Array, rng: np.random.Generator) -> Array:
    """Half of it is not drawn."""
    axis = int(rng.integers(3))
    places = np.argwhere(label > 0)[:, axis]
    index = [slice(None)] * 3
    index[axis] = slice(int(np.median(places)), None)
    result = label.copy()
    result[tuple(index)] = 0
    return result


def grown(label: Array, rng: np.random.Generator) -> Array:
    """It is two voxels too thick."""
    return np.where(label > 0, label, ndimage.grey_dilation(label, size=(5, 5, 5)))


def mirrored(label: Array, rng: np.random.Generator) -> Array:
    """It is of the mirrored image."""
    return np.flip(label, rng.integers(3))


def made_up(label: Array, rng: np.random.Generator) -> Array:
    """A ball where there is nothing."""
    free = np.argwhere(ndimage.binary_erosion(label == 0, iterations=RADIUS + 1))
    if not len(free):  # small crops, full of labels
        return grown(label, rng)
    centre = free[rng.integers(len(free))]
    far = sum(
        (a - b) ** 2 for a, b in zip(np.indices(label.shape), centre, strict=True)
    )
    return np.where(far < RADIUS**2, rng.choice(present(label)), label)


def misnamed(label: Array, rng: np.random.Generator) -> Array:
    """Half of a structure has the value of another."""
    values = present(label)
    one, other = rng.permutation(values)[:2] if len(values) > 1 else (values[0], 0)
    places = np.argwhere(label == one)
    axis = int(np.ptp(places, axis=0).argmax())
    part = np.indices(label.shape)[axis] >= np.median(places[:, axis])
    return np.where((label == one) & part, other, label)


KINDS: tuple[Spoil, ...] = (
    *(missing, exchanged, moved, cut, grown, mirrored, made_up, misnamed),
)


def present(label: Array) -> Array:
    return np.unique(label[label > 0])


def read(dataset: Dataset, run: Path) -> dict[str, tuple[Array, Array, tuple]]:
    """Label, prediction and spacing of each case, as indices."""
    files = predictions_in(run)
    scheme = dataset.labels
    maps = {}
    for case in dataset.training_cases:
        if case.name not in files or case.label is None:
            continue
        grid = read_header(case.images[0]).grid
        label = read_reference(case, scheme, grid)
        other = on_grid_of(grid, read_labels(files[case.name]), where=case.name)
        maps[case.name] = (
            scheme.encode(label.array[0]),
            scheme.encode(other.array[0]),
            label.spacing,
        )
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--limits", type=float, nargs="+", default=[LIMIT])
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    maps = read(dataset, given.run)
    scheme = dataset.labels
    clean = {
        name: disagreement(label, prediction, scheme, spacing)
        for name, (label, prediction, spacing) in maps.items()
    }
    for limit in given.limits:
        listed = [each.case for each in suspects(clean, limit=limit)]
        print(f"limit {limit}: {len(listed)} of {len(maps)} as they are: {listed}")
        for share in given.shares:
            counts: Counter[str] = Counter()
            missed: Counter[str] = Counter()
            for seed in range(given.rounds):
                rng = np.random.default_rng(seed)
                names = sorted(maps)
                spoilt = rng.choice(names, round(share * len(names)), replace=False)
                cases = dict(clean)
                kinds = {}
                for name in spoilt.tolist():
                    kind = KINDS[rng.integers(len(KINDS))]
                    kinds[name] = kind.__name__
                    label, prediction, spacing = maps[name]
                    wrong = kind(label, rng)
                    cases[name] = disagreement(wrong, prediction, scheme, spacing)
                listed = {each.case for each in suspects(cases, limit=limit)}
                counts["right"] += len(listed & kinds.keys())
                counts["listed"] += len(listed)
                counts["planted"] += len(kinds)
                missed.update(kinds[name] for name in kinds.keys() - listed)
            recall = counts["right"] / counts["planted"]
            precision = counts["right"] / max(counts["listed"], 1)
            print(
                f"  {share:.0%} planted, {given.rounds} rounds: recall {recall:.2f}, "
                f"precision {precision:.2f}; missed {dict(missed)}"
            )


if __name__ == "__main__":
    main()
