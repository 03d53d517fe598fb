"""Networks at equal wall-clock budget on equal data: validation Dice over several
seeds, and paired differences.

Each run is `trivox train DATASET --preset P --network N --minutes M --fold K --seed S`;
a finished run is not repeated, so an interrupted comparison goes on where it stopped.
Differences are paired by case (the mean over seeds of each case), with a bootstrap
interval over cases; they compare validation Dice of one fold, on which no decision of
the training was made but the postprocessing. Run it on a quiet machine: other work
costs the slower networks more steps.
"""

import argparse
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np

from trivox.evaluation.metrics.claims import claim_text, paired_difference

NETWORKS = (
    "hybrid-lite",
    "hybrid-lite:attention=none",
    "nnunet-plain",
    "resenc-m",
    "unet-small",
)


def run(
    dataset: Path, out: Path, network: str, seed: int, given: argparse.Namespace
) -> dict:
    """Train one network (`name` or `name:option=value`); returns its metrics and steps."""
    name, _, option = network.partition(":")
    folder = (
        out / f"{dataset.name}-{network.replace(':', '-').replace('=', '-')}-seed{seed}"
    )
    done = folder / "validation" / "metrics.json"
    if not done.exists():
        command = [
            sys.executable,
            "-c",
            "from trivox.cli import main; main()",
            "train",
            str(dataset),
            "--out",
            str(folder),
        ]
        command += [
            "--preset",
            given.preset,
            "--network",
            name,
            "--fold",
            str(given.fold),
            "--device",
            given.device,
        ]
        if (folder / "checkpoints").exists():
            command += ["--resume"]
        else:
            command += [
                "--minutes",
                str(given.minutes),
                "--seed",
                str(seed),
                "--prepared",
                str(out / dataset.name),
            ]
            command += ["--set", f"network_options.{option}"] if option else []
            command += ["--recipe", given.recipe] if given.recipe else []
            for setting in given.set:
                command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads(done.read_text(encoding="utf-8"))
    log = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    dice = {}
    for case, labels in metrics["cases"].items():
        scores = [row["dice"] for row in labels.values() if row["dice"] is not None]
        if scores:
            dice[case] = float(np.mean(scores))
    return {"dice": dice, "steps": json.loads(log[-1])["step"]}


def _in_order(dice: dict[str, float], cases: list[str]) -> list[float]:
    return [dice[case] for case in cases]


def show(name: str, found: dict[str, list[dict]], against: str) -> None:
    """The table of one dataset."""
    print(
        f"\n{name}\n\n| network | steps | mean Dice of each seed | mean "
        f"| difference to {against} (95 % interval) |"
    )
    print("|---|---|---|---|---|")
    scored = [set(run["dice"]) for run in chain(*found.values())]
    cases = sorted(set.intersection(*scored))
    table = {}
    for network, runs in found.items():
        table[network] = np.array([_in_order(run["dice"], cases) for run in runs])
    for network, dice in table.items():
        text = "-"
        if against in table and network != against:
            gap = paired_difference(
                dice.mean(0).tolist(), table[against].mean(0).tolist()
            )
            text = claim_text(gap)
        steps = ", ".join(str(run["steps"]) for run in found[network])
        seeds = ", ".join(f"{d:.4f}" for d in dice.mean(1))
        print(f"| {network} | {steps} | {seeds} | {dice.mean():.4f} | {text} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), metavar="NAME[:OPTION=VALUE]"
    )
    parser.add_argument(
        "--against", default="resenc-m", help="the network that differences refer to"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--preset", default="quick_test")
    parser.add_argument(
        "--recipe", help="name of a recipe for all networks, for example brats"
    )
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--set", action="append", default=[], help="recipe setting for all networks"
    )
    given = parser.parse_args()
    for dataset in given.datasets:
        found: dict[str, list[dict]] = {network: [] for network in given.networks}
        for seed in range(
            given.seeds
        ):  # all networks of a seed follow each other: what disturbs the machine disturbs all
            for network in given.networks:
                found[network].append(run(dataset, given.out, network, seed, given))
        settings = f"preset {given.preset}" + (
            f", recipe {given.recipe}" if given.recipe else ""
        )
        budget = f"{given.minutes:g} minutes, {settings}, {given.seeds} seeds"
        show(f"{dataset.name}, fold {given.fold}, {budget}", found, given.against)


if __name__ == "__main__":
    main()
