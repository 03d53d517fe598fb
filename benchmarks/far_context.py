"""Drawn scans whose labels can only be told from far away, for `accuracy.py`.

Each scan is long: at one end lie marks, bright or dark, at the other end nodes that all
look alike. A node belongs to the mark that has the same place across the scan, and its
label is whether that mark is bright or dark; nothing joins them. Whoever looks at less
than the length of the scan can only find the nodes and guess (Dice about 0.5); the number
of bright marks, which global pooling tells, does not help: half of them are.

    python far_context.py DIR
    python accuracy.py DIR --out RUNS --networks hybrid-lite hybrid-lite:attention=none \\
        unet-small --against hybrid-lite:attention=none --minutes 8 \\
        --set augmentation.rotation=0 --set augmentation.scaling=0

Turning and scaling would move marks out of the patch.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trivox.files import write_json
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SHAPE = (160, 32, 32)
PAIRS = 4
APART = 9
"""Voxels across the scan between two pairs, at least."""
MARGIN = 5
ENDS = (8, 14)
"""Voxels from the ends of the scan between which marks and nodes lie."""
RADIUS = 3.2
TISSUE, NODE, BRIGHT, DARK = 5.0, 7.0, 9.0, 2.0
NOISE = 0.5
LABELS = {"background": 0, "bright": 1, "dark": 2}


def scan(rng: np.random.Generator) -> tuple[Volume, Volume]:
    """Image and label map `(1, z, y, x)` of 1 mm."""
    image = np.full(SHAPE, TISSUE, np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    bright = rng.permutation(PAIRS) < PAIRS // 2
    for place, is_bright in zip(places(rng), bright, strict=True):
        mark = ball((rng.integers(*ENDS), *place))
        node = ball((SHAPE[0] - 1 - rng.integers(*ENDS), *place))
        image[mark] = BRIGHT if is_bright else DARK
        image[node] = NODE
        labels[node] = LABELS["bright" if is_bright else "dark"]
    image = ndimage.gaussian_filter(image, 0.6)
    image += rng.normal(0, NOISE, SHAPE).astype(np.float32)
    affine = affine_from_spacing((1.0, 1.0, 1.0))
    return Volume(image[None], affine), Volume(labels[None], affine)


def places(rng: np.random.Generator) -> NDArray[np.int64]:
    """Where the pairs lie across the scan, `(pair, 2)`, none too near to another."""
    while True:
        drawn = rng.integers(MARGIN, SHAPE[1] - MARGIN, (PAIRS, 2))
        gaps = [np.linalg.norm(one - other) for one, other in combinations(drawn, 2)]
        if min(gaps) >= APART:
            return drawn


def ball(centre: tuple[int, ...]) -> NDArray[np.bool_]:
    """The voxels within `RADIUS` of a place."""
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    squares = [(axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)]
    return np.asarray(sum(squares) <= RADIUS**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for number in range(given.cases):
        image, labels = scan(np.random.default_rng([given.seed, number]))
        name = f"scan{number:03d}"
        write_volume(given.folder / "images" / f"{name}.nii.gz", image)
        write_volume(given.folder / "labels" / f"{name}.nii.gz", labels)
    write_json(given.folder / "dataset.json", {"labels": LABELS})
    print(f"{given.cases} scans in {given.folder}")


if __name__ == "__main__":
    main()
