"""Damaged and odd files for every reader: each ends in success or in one line.

A hundred thousand inputs, drawn from a seed: JSON with huge, missing, nested and
doubled values, tables with odd cells, archives, weights and images with wrong bytes.
Counts what is accepted, what is refused in one line, and what must be zero: other
exceptions, deaths of the process and hangs. Exits with 1 if any of these is not.

    python benchmarks/fuzz.py [--inputs 100000] [--seed 0] [--only NAME ...]
    python benchmarks/fuzz.py --only 'class tables' --number 17     # one input, with its traceback
"""

import argparse
import os
import sys
from pathlib import Path

# children must not run as many threads as there are cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzzing.harness import fuzz, once, table, wrong
from fuzzing.targets import named


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, help="begin no more after so long")
    parser.add_argument("--only", nargs="*", default=(), help="parts of targets' names")
    parser.add_argument("--number", type=int, help="read this input alone, here")
    given = parser.parse_args()
    targets = list(named(given.only))
    if given.number is not None:
        once(targets[0], given.number, given.seed)
        return 0
    result = fuzz(
        targets,
        count=given.inputs,
        seed=given.seed,
        children=given.children,
        until=given.minutes and 60 * given.minutes,
    )
    print("\n".join(table(result)))
    return int(wrong(result) > 0)


if __name__ == "__main__":
    sys.exit(main())
