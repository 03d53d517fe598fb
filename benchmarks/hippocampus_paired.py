"""A recipe of ours beside nnU-Net's own training for 1000 epochs, case by case.

Give the table of published out-of-fold Dice (columns `case`, `fold`, and for each network
`NAME_label1`, `NAME_label2`) and runs on MSD hippocampus: the held-out cases of each were
predicted by a network that never saw them. The difference of the mean Dice over both
labels is paired by case, with its 95 % interval, the probability that the claim is false
and the effect size. The folds need not be the same: both sides are out of fold.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from trivox.evaluation.metrics.claims import CONVENTION, claim_text, paired_difference
from trivox.files import read_object

LABELS = ("label1", "label2")
NAMES = ("Anterior", "Posterior")


def published(file: Path) -> dict[str, dict[str, float]]:
    """Mean Dice of both labels by network and case."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    networks = [name.removesuffix("_label1") for name in rows[0] if "_label1" in name]
    return {
        network: {
            row["case"]: float(np.mean([float(row[f"{network}_{n}"]) for n in LABELS]))
            for row in rows
        }
        for network in networks
    }


def ours(runs: list[Path]) -> dict[str, float]:
    """The same by case, of the cases that the runs held out."""
    values: dict[str, float] = {}
    for run in runs:
        cases = read_object(run / "validation" / "metrics.json")["cases"]
        for case, rows in cases.items():
            values[case] = float(np.mean([rows[name]["dice"] for name in NAMES]))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path, help="hippocampus_nnunet_folds.csv")
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    held_out = ours(given.runs)
    print(f"{len(held_out)} held-out cases of {len(given.runs)} runs")
    print("| beside | cases | ours | theirs | ours - theirs |\n|---|---|---|---|---|")
    for network, theirs in published(given.table).items():
        names = sorted(held_out.keys() & theirs.keys())
        mine = [held_out[name] for name in names]
        peer = [theirs[name] for name in names]
        text = claim_text(paired_difference(mine, peer))
        means = f"{np.mean(mine):.4f} | {np.mean(peer):.4f}"
        print(f"| {network} | {len(names)} | {means} | {text} |")
    print(CONVENTION)


if __name__ == "__main__":
    main()
