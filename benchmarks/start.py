"""Start-up: how long `--help` takes, against `nnUNetv2_predict -h`; CPU seconds of the
whole child process.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import Cost, Race, arguments


def command(script: str, module: str) -> list[str]:
    """The installed script, or the module where it is not installed."""
    installed = Path(sys.executable).with_name(script)
    return [str(installed)] if installed.exists() else [sys.executable, "-m", module]


def started(call: list[str], environment: dict[str, str]) -> Cost:
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        call,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after, wall = (
        resource.getrusage(resource.RUSAGE_CHILDREN),
        time.perf_counter() - wall,
    )
    return Cost(
        after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall
    )


def main() -> None:
    rounds = 2 if arguments(__doc__).quick else 5
    ours = [*command("trivox", "trivox"), "--help"]
    theirs = [
        *command("nnUNetv2_predict", "nnunetv2.inference.predict_from_raw_data"),
        "-h",
    ]
    with tempfile.TemporaryDirectory() as folder:
        paths = dict.fromkeys(
            ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), folder
        )
        our_costs = []
        their_costs = []
        for _ in range(rounds):
            our_costs.append(started(ours, dict(os.environ)))
            their_costs.append(started(theirs, {**os.environ, **paths}))
    our_best = min(our_costs, key=lambda cost: cost.cpu)
    their_best = min(their_costs, key=lambda cost: cost.cpu)
    Race(our_best, their_best, None, None).show(
        "start: trivox --help, nnUNetv2_predict -h", "help text only"
    )


if __name__ == "__main__":
    main()
