"""How many voxels of a structure the thresholds of `trivox predict --max-missed` miss in
cases that they were not learnt on, and how much larger the marked structure gets.

missed_voxels.py RUN...: finished runs of one fold, whose held-out cases are predicted.
Halves: thresholds learnt on a random half of the cases and asked of the other, 400
times, seeded. Cases without the structure are left out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.reading import read_channels, read_reference
from trivox.files import read_json
from trivox.inference.doubt.missed import missed_share, threshold_of
from trivox.inference.predictor import Predictor

Floats = NDArray[np.float64]

LEVELS = (0.05, 0.1, 0.2)
REPEATS = 400


class Scan(NamedTuple):
    """Probabilities of a target, in ascending order: in its voxels, and everywhere."""

    inside: Floats
    everywhere: Floats


def scans_of(run: Path) -> Iterator[dict[str, Scan]]:
    """What a run says of each held-out case, by target."""
    predictor = Predictor.load(run, device="cpu")
    scheme = predictor.labels
    fold = int(read_json(run / "run.json")["fold"])
    names = read_json(run / "splits.json")[fold]["validation"]
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    for case in (cases[name] for name in names):
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
    rng = np.random.default_rng(0)
    missed, sizes = [], []
    for _ in range(REPEATS):
        order = rng.permutation(len(scans))
        middle = len(scans) // 2
        learnt = [scans[place].inside for place in order[:middle]]
        threshold = threshold_of(learnt, level)
        if threshold is None:
            break
        others = [scans[place] for place in order[middle:]]
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
            measured = "too few cases | "
            if missed.size:
                measured = (
                    f"{100 * missed.mean():.1f} +- {100 * missed.std():.1f} | "
                    f"{sizes.mean():.2f}"
                )
            print(
                f"| {run.name}: {target} | {len(known)} | {100 * usual:.1f} | "
                f"{100 * level:.0f} | {measured} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| run: target | cases | missed at 0.5 (percent) | allowed | missed in the other "
        "half (percent +- sd) | marked over true voxels |"
    )
    print("|---|---|---|---|---|---|")
    for run in given.runs:
        show(run)


if __name__ == "__main__":
    main()
