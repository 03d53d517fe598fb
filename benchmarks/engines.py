"""Engines and precisions on trained models: seconds, memory, agreement, Dice.

For each run and each engine a process of its own loads the model and predicts
validation cases from file to label map, once to warm up and once measured. Agreement is
the mean Dice of the label maps with those of torch in fp32; Dice is that of `trivox
evaluate` against the references, mean over cases and labels. int8 is calibrated on
training cases. Seconds are CPU seconds of the process (`--threads`, default 1), memory
is the peak of the whole process.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from _engines import KINDS, predictor_of
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.evaluation.metrics.overlap import confusion, dice
from trivox.inference.bundle import read_bundle
from trivox.inference.predictor import Predictor
from trivox.verbs.release.export import cases_of_run
from trivox.volumes.formats import read_labels


def scores(scheme: LabelScheme, labels: np.ndarray, others: np.ndarray) -> list[float]:
    """Dice of each target that either has."""
    values = []
    for indices in scheme.targets.values():
        value = dice(confusion(np.isin(labels, indices), np.isin(others, indices)))
        if value is not None:
            values.append(value)
    return values


def predicted(predictor: Predictor, cases: list[Case]) -> list[np.ndarray]:
    """Label indices `(z, y, x)` of each case."""
    scheme = predictor.labels
    maps = (predictor.predict_case(case).labels.array[0] for case in cases)
    return [scheme.encode(labels) for labels in maps]


def measure(run: Path, kind: str, count: int, folder: Path) -> dict[str, object]:
    """What one engine costs and gives; label maps are left in a folder for agreement."""
    known = cases_of_run(read_bundle(run))
    cases = list(known.validation[:count])
    predictor = predictor_of(kind, run, known.train)
    predicted(predictor, cases[:1])
    started = time.process_time()
    maps = predicted(predictor, cases)
    seconds = (time.process_time() - started) / len(cases)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    scheme = predictor.labels
    references = [scheme.encode(read_labels(case.label).array[0]) for case in cases]
    pairs = zip(maps, references, strict=True)
    rated = [np.mean(scores(scheme, labels, truth)) for labels, truth in pairs]
    exact = folder / "fp32.npz"
    if kind == "fp32":
        np.savez_compressed(exact, *maps)
    with np.load(exact) as kept:
        by_torch = [kept[name] for name in kept.files]
    agreeing = zip(maps, by_torch, strict=True)
    alike = [np.mean(scores(scheme, labels, other)) for labels, other in agreeing]
    return {
        "network": predictor.members[0].plan.network,
        "seconds": seconds,
        "peak_gb": peak,
        "dice": float(np.mean(rated)),
        "agreement": float(np.mean(alike)),
        "cases": len(cases),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs")
    parser.add_argument("--cases", type=int, default=8, help="validation cases of each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--into", type=Path, default=Path("/tmp/engines"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        torch.set_num_threads(given.threads)
        found = measure(given.runs[0], given.child, given.cases, given.into)
        print(json.dumps(found))
        return
    print(
        "| run | network | engine, precision | s a case | vs torch fp32 | GB | agreement | Dice |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for run in given.runs:
        folder = given.into / run.name
        folder.mkdir(parents=True, exist_ok=True)
        slowest = None
        for kind in KINDS:
            command = [sys.executable, __file__, str(run), "--child", kind]
            command += ["--cases", str(given.cases), "--threads", str(given.threads)]
            command += ["--into", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(
                    f"| {run.name} | | {kind} | failed: {done.stderr.splitlines()[-1]} |"
                )
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            slowest = slowest or row["seconds"]
            engine = kind if " " in kind else f"torch {kind}"
            print(
                f"| {run.name} | {row['network']} | {engine} | {row['seconds']:.2f} | "
                f"{slowest / row['seconds']:.1f}x | {row['peak_gb']:.2f} | "
                f"{row['agreement']:.4f} | {row['dice']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
