"""Shared by benchmarks of finished runs: the cases that a run held out, halves of them,
and the table that is printed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.splits import read_folds
from trivox.tasks.stages import read_run

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

REPEATS = 400


def parser_of_runs(description: str | None) -> argparse.ArgumentParser:
    """Reads the runs that a command names."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    return parser


def given_runs(description: str | None) -> list[Path]:
    """The runs that a command names, which has no other arguments."""
    runs: list[Path] = parser_of_runs(description).parse_args().runs
    return runs


def fold_of(run: Path) -> int:
    """The fold that a run trained."""
    return int(read_run(run).fold)


def held_out(run: Path) -> list[Case]:
    """The cases that the fold of a run has not seen."""
    names = read_folds(run)[fold_of(run)].validation
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    return [cases[name] for name in names]


def halvings(count: int) -> Iterator[tuple[Places, Places]]:
    """Places of `count` cases in two random halves, 400 times, seeded: what is learnt
    on, the smaller one where they differ, and what is asked.
    """
    rng = np.random.default_rng(0)
    for _ in range(REPEATS):
        order = rng.permutation(count)
        yield order[: count // 2], order[count // 2 :]


def percent(shares: Floats) -> str:
    """Mean and standard deviation of shares."""
    return f"{100 * shares.mean():.1f} +- {100 * shares.std():.1f}"


def show_header(*names: str) -> None:
    """Print the head of a table."""
    show_row(*names)
    print("|" + "---|" * len(names), flush=True)


def show_row(*cells: object) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)
