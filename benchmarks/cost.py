"""What a training costs: forecast by `trivox plan --cost` in a process of its own, then
measured by `trivox train` under that plan, stage by stage.

    python cost.py ../shared/data/hippocampus ../shared/data/brats-cubes --out /tmp/cost

CPU seconds are those of all threads. On a machine that others use as well they are what
can be foretold: time by the clock, also printed, depends on what else runs then and now.
With `--minutes` the time of training is given, and the number of steps is what is
forecast.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

STAGES = ("preparation", "training", "validation", "report")
GOAL = 0.25
"""Largest part by which the sum may differ from its forecast."""


def arguments() -> argparse.Namespace:
    """Datasets, and how long to train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minutes", type=float, help="in place of epochs")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def trivox(*words: object) -> dict[str, Any]:
    """What a command answers."""
    command = [sys.executable, "-m", "trivox", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def line(name: str, forecast: float, measured: float, unit: str) -> float:
    """Print one quantity; returns measured / forecast."""
    ratio = measured / forecast
    print(f"{name} | {forecast:.4g} {unit} | {measured:.4g} {unit} | {ratio:.2f}")
    return ratio


def together(stages: dict[str, Any], quantity: str) -> float:
    """Sum over the stages."""
    return float(sum(stages[stage][quantity] for stage in STAGES))


def compare(dataset: Path, given: argparse.Namespace) -> bool:
    """Forecast, train and print; whether the CPU seconds were within the goal."""
    out = given.out / dataset.name
    plan = out / "plan" / "plan.json"
    length: tuple[object, ...] = ("--epochs", given.epochs)
    if given.minutes is not None:
        length = ("--minutes", given.minutes)
    settings = (*length, "--device", given.device)
    planned = trivox("plan", dataset, "--out", plan, "--cost", *settings)["cost"]
    run = out / "run"
    trained = trivox("train", dataset, "--out", run, "--plan", plan, *settings)
    forecast = planned["forecast"]["stages"]
    measured = trained["cost"]["measured"]
    for stage in STAGES:
        before = forecast[stage]
        after = measured[stage]
        name = f"{dataset.name}, {stage}"
        line(name, before["cpu_seconds"], after["cpu_seconds"], "CPU s")
        line(f"{name}, clock", before["seconds"], after["seconds"], "s")
    total = [together(stages, "cpu_seconds") for stages in (forecast, measured)]
    ratio = line(f"{dataset.name}, all", *total, "CPU s")
    clock = [together(stages, "seconds") for stages in (forecast, measured)]
    line(f"{dataset.name}, all, clock", *clock, "s")
    energy = [together(stages, "joules") / 3.6e6 for stages in (forecast, measured)]
    line(f"{dataset.name}, energy", *energy, "kWh")
    memory = [
        max(stages[stage]["memory_bytes"] for stage in STAGES) / 1e9
        for stages in (forecast, measured)
    ]
    line(f"{dataset.name}, memory", *memory, "GB")
    records = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = json.loads(records[-1])["step"]
    line(f"{dataset.name}, steps", planned["forecast"]["steps"], steps, "")
    print(f"{dataset.name}: energy by {'; '.join(measured['training']['energy_by'])}")
    return abs(ratio - 1) <= GOAL


def main() -> None:
    """Print every dataset; exit 1 unless all are within the goal."""
    given = arguments()
    print("name | forecast | measured | measured / forecast", flush=True)
    within = [compare(dataset, given) for dataset in given.datasets]
    sys.exit(0 if all(within) else 1)


if __name__ == "__main__":
    main()
