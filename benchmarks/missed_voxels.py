"""How many voxels of a structure the thresholds of `trivox predict --max-missed` miss in
cases that they were not learnt on, and how much larger the marked structure gets.

missed_voxels.py RUN...: finished runs of one fold, whose held-out cases are predicted.
Halves: thresholds learnt on a random half of the cases and asked of the other, 400
times, seeded. Cases without the structure are left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from trivox.datasets.reading import read_channels, read_reference
from trivox.inference.doubt.missed import missed_share, threshold_of
from trivox.inference.predictor import Predictor

from _held_out import (  # isort: skip
    Floats,
    given_runs,
    halvings,
    held_out,
    percent,
    show_header,
    show_row,
)

LEVELS = (0.05, 0.1, 0.2)


class Scan(NamedTuple):
    """Probabilities of a target, in ascending order: in its voxels, and everywhere."""

    inside: Floats
    everywhere: Floats


def scans_of(run: Path) -> Iterator[dict[str, Scan]]:
    """What a run says of each held-out case, by target."""
    predictor = Predictor.load(run, device="cpu")
    scheme = predictor.labels
    for case in held_out(run):
        volume = read_channels(case, channels=len(predictor.channels))
        chance = predictor.predict_volume(volume, probabilities=True).probabilities
        reference = scheme.encode(read_reference(case, scheme, volume).array[0])
        scans = {}
        for channel, (target, indices) in enumerate(
            scheme.targets.items(), start=1 if scheme.exclusive else 0
        ):
            values = chance.array[channel].astype(float)
            inside = np.sort(values[np.isin(reference, indices)])
            if inside.size:
                scans[target] = Scan(inside, np.sort(values.ravel()))
        yield scans


def size(scan: Scan, threshold: float) -> float:
    """Marked voxels over true ones."""
    marked = scan.everywhere.size - np.searchsorted(scan.everywhere, threshold)
    return float(marked / scan.inside.size)


def halves(scans: list[Scan], level: float) -> tuple[Floats, Floats]:
    """Mean share missed, and mean size, in the other half of each repeat."""
    missed, sizes = [], []
    for learnt, asked in halvings(len(scans)):
        threshold = threshold_of([scans[place].inside for place in learnt], level)
        if threshold is None:
            break
        others = [scans[place] for place in asked]
        missed.append(
            np.mean([missed_share(each.inside, threshold) for each in others])
        )
        sizes.append(np.mean([size(each, threshold) for each in others]))
    return np.array(missed), np.array(sizes)


def show(run: Path) -> None:
    """The rows of a run."""
    by_target: dict[str, list[Scan]] = {}
    for scans in scans_of(run):
        for target, scan in scans.items():
            by_target.setdefault(target, []).append(scan)
    for target, known in by_target.items():
        usual = np.mean([missed_share(each.inside, 0.5) for each in known])
        for level in LEVELS:
            missed, sizes = halves(known, level)
            measured = ("too few cases", "")
            if missed.size:
                measured = (percent(missed), f"{sizes.mean():.2f}")
            show_row(
                f"{run.name}: {target}",
                len(known),
                f"{100 * usual:.1f}",
                f"{100 * level:.0f}",
                *measured,
            )


def main() -> None:
    runs = given_runs(__doc__)
    torch.set_num_threads(1)
    show_header(
        "run: target",
        "cases",
        "missed at 0.5 (percent)",
        "allowed",
        "missed in the other half (percent +- sd)",
        "marked over true voxels",
    )
    for run in runs:
        show(run)


if __name__ == "__main__":
    main()
