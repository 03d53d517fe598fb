"""One part in this process: `python -m gpu_parts PART --out FILE`."""

import argparse
import importlib
import os
import sys
import warnings
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pretend", action="store_true")
    parser.add_argument("--expected", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.pretend:
        sys.path.insert(0, str(ROOT / "tests"))
        from pretended_gpu.device import pretend

        pretend()
        import torch

        torch.set_num_threads(1)
    from gpu_parts.record import Record

    record = Record(given.out, pretended=given.pretend)
    run = importlib.import_module(f"gpu_parts.{given.part}").run
    if given.part == "sync":
        run = partial(run, expected=given.expected)
    run(record)
    # at the interpreter's end, autograd's threads of a device may abort it
    os._exit(0)


if __name__ == "__main__":
    main()
