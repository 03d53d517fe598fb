"""How many voxels, or lesions, of a structure the thresholds of `trivox predict
--max-missed` miss in cases that they were not learnt on, and how much larger the marked
structure gets.

missed.py RUN...: finished runs of one fold, whose held-out cases are predicted. Halves:
thresholds learnt on a random half of the cases and asked of the other, 400 times,
seeded. Cases without the structure are left out. A lesion (26-connected component) is
missed where none of its voxels is marked; alarms are components of what is marked that
meet no lesion, counted for every tenth halving.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import maximum

from trivox.datasets.reading import read_channels, read_reference
from trivox.evaluation.metrics.components import label_components, meetings
from trivox.inference.doubt.missed import missed_share, threshold_of
from trivox.inference.predictor import Predictor
from trivox.volumes.volume import Array

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
EVERY = 10


class Scan(NamedTuple):
    """Probabilities of a target, in ascending order: in its voxels, and everywhere; the
    largest in each of its lesions; its probabilities and its mask as volumes.
    """

    inside: Floats
    everywhere: Floats
    lesions: Floats
    chance: Array
    mask: Array

    def of(self, missed: str) -> Floats:
        """What is to be found."""
        return self.lesions if missed == "lesions" else self.inside


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
            mask = np.isin(reference, indices)
            inside = np.sort(values[mask])
            if inside.size:
                peaks = np.array(labeled_max(values, mask))
                scans[target] = Scan(
                    inside, np.sort(values.ravel()), peaks, values, mask
                )
        yield scans


def size(scan: Scan, threshold: float) -> float:
    """Marked voxels over true ones."""
    marked = scan.everywhere.size - np.searchsorted(scan.everywhere, threshold)
    return float(marked / scan.inside.size)


def alarms(scan: Scan, threshold: float) -> int:
    """Components of what is marked that meet no lesion."""
    marked = label_components(scan.chance >= threshold)
    return int(marked.max()) - len(np.unique(meetings(marked, scan.mask).first))


def labeled_max(values: Array, mask: Array) -> list[float]:
    """The largest value in each component of a mask."""
    numbers = label_components(mask)
    return list(maximum(values, numbers, range(1, int(numbers.max()) + 1)))


class Measured(NamedTuple):
    """Means over the other half, of each repeat; alarms: of some of them."""

    missed: Floats
    sizes: Floats
    alarms: Floats


def halves(scans: list[Scan], level: float, what: str) -> Measured:
    """What thresholds of one half do in the other."""
    missed, sizes, false = [], [], []
    for repeat, (learnt, asked) in enumerate(halvings(len(scans))):
        threshold = threshold_of([scans[place].of(what) for place in learnt], level)
        if threshold is None:
            break
        others = [scans[place] for place in asked]
        missed.append(
            np.mean([missed_share(each.of(what), threshold) for each in others])
        )
        sizes.append(np.mean([size(each, threshold) for each in others]))
        if repeat % EVERY == 0:
            false.append(np.mean([alarms(each, threshold) for each in others]))
    return Measured(np.array(missed), np.array(sizes), np.array(false))


def show(run: Path) -> None:
    """The rows of a run."""
    by_target: dict[str, list[Scan]] = {}
    for scans in scans_of(run):
        for target, scan in scans.items():
            by_target.setdefault(target, []).append(scan)
    for target, known in by_target.items():
        for what in ("voxels", "lesions"):
            show_target(f"{run.name}: {target}, {what}", known, what)


def show_target(title: str, known: list[Scan], what: str) -> None:
    """The rows of what may be missed of a target."""
    usual = np.mean([missed_share(each.of(what), 0.5) for each in known])
    count = sum(each.of(what).size for each in known)
    false = np.mean([alarms(each, 0.5) for each in known])
    for level in LEVELS:
        measured = halves(known, level, what)
        said = ["too few cases", "", ""]
        if measured.missed.size:
            said = [
                percent(measured.missed),
                f"{measured.sizes.mean():.2f}",
                f"{measured.alarms.mean():.1f}",
            ]
        show_row(
            title,
            len(known),
            count,
            f"{100 * usual:.1f}, {false:.1f}",
            f"{100 * level:.0f}",
            *said,
        )


def main() -> None:
    runs = given_runs(__doc__)
    torch.set_num_threads(1)
    show_header(
        "run: target, what",
        "cases",
        "of them in all",
        "at 0.5: missed (percent), alarms a case",
        "allowed",
        "missed in the other half (percent +- sd)",
        "marked over true voxels",
        "alarms a case",
    )
    for run in runs:
        show(run)


if __name__ == "__main__":
    main()
