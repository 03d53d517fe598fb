"""How far the probabilities of a run mean what they say, and whether scans that were
damaged on purpose are flagged.

trust.py RUN: a finished run of one fold. Calibration is what its validation measured;
then its held-out cases are predicted as they are and damaged.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from trivox.datasets.reading import read_channels
from trivox.evaluation.metrics.calibration import rank_correlation
from trivox.files import read_json
from trivox.inference.predictor import Predictor
from trivox.inference.rules.rule_trials import candidate_dice
from trivox.volumes.formats import read_labels

from _held_out import held_out  # isort: skip

DAMAGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "as it is": lambda a, rng: a,
    "noise of 1 standard deviation": lambda a, rng: a + rng.normal(0, a.std(), a.shape),
    "noise of 2 standard deviations": lambda a, rng: (
        a + rng.normal(0, 2 * a.std(), a.shape)
    ),
    "blurred by 3 voxels": lambda a, rng: gaussian_filter(a, (0, 3, 3, 3)),
    "inverted": lambda a, rng: a.max() - a,
}


def damaged(
    run: Path, predictor: Predictor, change: Callable
) -> list[tuple[float, float, bool]]:
    """Score, mean Dice and flag of each held-out case whose image was changed; cases
    without foreground are left out.
    """
    rng, scheme = np.random.default_rng(0), predictor.labels
    rows = []
    for case in held_out(run):
        volume = read_channels(case, channels=len(predictor.channels))
        found = predictor.predict_volume(
            volume.with_array(change(volume.array, rng).astype(np.float32))
        )
        indices = [
            scheme.encode(labels.array[0])
            for labels in (found.labels, read_labels(case.label))
        ]
        dice = float(np.nanmean(candidate_dice(*indices, len(scheme.values) - 1)[0]))
        score = found.trust["score"]
        rows.append((np.inf if score is None else score, dice, found.trust["abstain"]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    torch.set_num_threads(1)
    trust = read_json(run / "validation" / "metrics.json")["calibration"]
    print(f"{trust['cases']} cases, temperature {trust['temperature']:.2f}")
    for measure in ("ece", "adaptive_ece", "classwise_ece", "mce", "brier", "nll"):
        print(
            f"{measure} | before {trust['before'][measure]:.4f} "
            f"| after {trust['after'][measure]:.4f}"
        )
    print(f"AUROC of wrong voxels by entropy | {trust['error_ranking_auroc']:.3f}")
    print(f"Spearman of doubt and Dice | {trust['doubt']['spearman_with_dice']:.2f}")
    predictor, seen = Predictor.load(run, device="cpu"), []
    for name, change in DAMAGES.items():
        rows = damaged(run, predictor, change)
        seen += rows
        mean = np.mean([row[1] for row in rows])
        flagged = sum(row[2] for row in rows)
        print(f"{name} | mean Dice {mean:.3f} | flagged {flagged} of {len(rows)}")
    scores = np.array([row[0] for row in seen])
    dice = np.array([row[1] for row in seen])
    print(
        f"Spearman of doubt and Dice, all of them | {rank_correlation(scores, dice):.2f}"
    )


if __name__ == "__main__":
    main()
