"""A recipe of ours beside nnU-Net's own training for 1000 epochs, case by case.

Give the table of published out-of-fold Dice (columns `case`, `fold`, and for each network
`NAME_label1`, `NAME_label2`) and runs on MSD hippocampus, whose held-out cases were
predicted by a network that never saw them, or metrics.json files of `trivox evaluate`, if
that is true of their cases. `--mirrored` takes more of both for a second column: of
`trivox predict --tta`, or runs that were validated so; what has only one of both columns
is left out. The difference of the mean Dice over both labels is paired by case, with its
95 % interval, the probability that the claim is false and the effect size. The folds need
not be the same: both sides are out of fold.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trivox.errors import DataError, TrivoxError, few
from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.metrics.claims import CONVENTION, claim_text, paired_difference

from _held_out import show_header, show_row  # isort: skip

LABELS = ("label1", "label2")
NAMES = (("Anterior", "label_1"), ("Posterior", "label_2"))
"""Of each label: in runs, and in metrics of label maps that come without names."""
PLAIN = "ours"
MIRRORED = "with the mirrored copy"

Dice = dict[str, float]
"""Mean of both labels by case."""


def published(file: Path) -> dict[str, Dice]:
    """Of each network."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    networks = [name.removesuffix("_label1") for name in rows[0] if "_label1" in name]
    return {
        network: {
            row["case"]: float(np.mean([float(row[f"{network}_{n}"]) for n in LABELS]))
            for row in rows
        }
        for network in networks
    }


def measured(sources: Sequence[Path]) -> Dice:
    """Of the held-out cases of runs, and the cases of metrics.json files; raises
    `DataError` for a case that two of them have, or that lacks a label.
    """
    values: Dice = {}
    for source in sources:
        file = source / "validation" / "metrics.json" if source.is_dir() else source
        cases = read_metrics(file)["cases"]
        twice = values.keys() & cases.keys()
        if twice:
            raise DataError(f"{file}: {few(sorted(twice))} came before; give each once")
        for case, rows in cases.items():
            values[case] = float(np.mean([dice(rows, names) for names in NAMES]))
            if not np.isfinite(values[case]):
                raise DataError(f"{file}: {case} has no Dice of both labels")
    return values


def dice(rows: Mapping[str, Mapping[str, object]], names: Sequence[str]) -> float:
    """Of a label under one of its names; NaN where there is none."""
    for name in names:
        value = rows.get(name, {}).get("dice")
        if isinstance(value, float | int):
            return float(value)
    return float("nan")


def compare(networks: Mapping[str, Dice], columns: Mapping[str, Dice]) -> None:
    """Print the table: each column beside each network, on the cases that all have."""
    names = [name for column in columns for name in (column, f"{column} - theirs")]
    show_header("beside", "cases", "theirs", *names)
    for network, theirs in networks.items():
        cases = sorted(theirs.keys() & set.intersection(*map(set, columns.values())))
        if not cases:
            raise DataError(f"no case of {network} is among those that are given")
        peer = [theirs[case] for case in cases]
        cells = []
        for column in columns.values():
            mine = [column[case] for case in cases]
            cells.append(f"{np.mean(mine):.4f}")
            cells.append(claim_text(paired_difference(mine, peer)))
        show_row(network, len(cases), f"{np.mean(peer):.4f}", *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path, help="hippocampus_nnunet_folds.csv")
    parser.add_argument("sources", type=Path, nargs="+", metavar="RUN|METRICS")
    parser.add_argument(
        "--mirrored", type=Path, nargs="+", default=[], metavar="RUN|METRICS"
    )
    given = parser.parse_args()
    try:
        columns = {PLAIN: measured(given.sources)}
        if given.mirrored:
            columns[MIRRORED] = measured(given.mirrored)
        for name, values in columns.items():
            print(f"{name}: {len(values)} held-out cases")
        compare(published(given.table), columns)
    except TrivoxError as error:
        raise SystemExit(f"error: {error}") from None
    print(CONVENTION)


if __name__ == "__main__":
    main()
