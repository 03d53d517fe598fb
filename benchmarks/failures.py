"""Which score points best at poor predictions: the doubt score (mean entropy in the
predicted foreground), or how little the votes overlap (1 - pairwise Dice; Zenk et al.
2025, arXiv:2406.03323).

failures.py RUN...: finished runs of one fold of the same data, whose held-out cases
are predicted as they are, and every fourth of them damaged; by the runs together (votes:
the networks), and by the first alone (votes: its mirrored copies). Area under the
risk-coverage curve with risk 1 - Dice; lower is better. Halves: the score that is better
on a random half of the cases, as training chooses which one flags, asked of the other
half, 400 times, seeded.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trivox.datasets.dataset import Case
from trivox.datasets.reading import read_channels
from trivox.evaluation.metrics.calibration import rank_correlation, risk_coverage
from trivox.inference.predictor import Predictor
from trivox.inference.rules.rule_trials import candidate_dice
from trivox.volumes.formats import read_labels

from _held_out import given_runs, held_out, show_header, show_row  # isort: skip
from trust import DAMAGES  # isort: skip

AS_IT_IS = "as it is"
EVERY = 4
RESAMPLES = 2000
HALVINGS = 400


class Answer(NamedTuple):
    """What was said of a case, and how good it was."""

    entropy: float
    disagreement: float
    dice: float


def loaded(runs: Sequence[Path], *, mirror: bool | None = None) -> Predictor:
    """Runs whose score is entropy, whatever flags their cases."""
    predictor = Predictor.load(runs, device="cpu", mirror=mirror)
    descriptions = tuple(
        each.model_copy(update={"flag": None}) for each in predictor.descriptions
    )
    return replace(predictor, descriptions=descriptions)


def asked(predictor: Predictor, case: Case, damage: str) -> Answer:
    """Predict a case; where nothing is found both scores are the largest."""
    rng = np.random.default_rng(0)
    scheme = predictor.labels
    volume = read_channels(case, channels=len(predictor.channels))
    changed = DAMAGES[damage](volume.array, rng).astype(np.float32)
    prediction = predictor.predict_volume(
        volume.with_array(changed), uncertainty=["entropy"]
    )
    maps = (prediction.labels, read_labels(case.label))
    indices = [scheme.encode(labels.array[0]) for labels in maps]
    dice = candidate_dice(*indices, len(scheme.values) - 1)[0]
    score = prediction.trust["score"]
    agreement = prediction.trust["agreement"]
    return Answer(
        np.inf if score is None else score,
        1.0 if agreement is None else 1 - agreement,
        float(np.nanmean(dice)),
    )


def halves(table: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Areas of entropy, of disagreement, and of what was chosen on the other half; how
    often that was disagreement.
    """
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(HALVINGS):
        first, second = np.array_split(rng.permutation(len(table)), 2)
        areas = [
            [
                risk_coverage(table[half, column], 1 - table[half, 2])["aurc"]
                for column in (0, 1)
            ]
            for half in (first, second)
        ]
        chosen = int(areas[0][1] < areas[0][0])
        rows.append([*areas[1], areas[1][chosen], chosen])
    entropy, disagreement, chosen_area, often = np.mean(rows, axis=0).tolist()
    return entropy, disagreement, chosen_area, often


def show(title: str, answers: Sequence[Answer]) -> None:
    """A row: both scores, and the difference of their areas by paired bootstrap."""
    table = np.array(answers)
    risk = 1 - table[:, 2]
    areas = [risk_coverage(table[:, column], risk) for column in (0, 1)]
    ranks = [rank_correlation(table[:, column], table[:, 2]) for column in (0, 1)]
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(table), len(table))
        by_score = [
            risk_coverage(table[drawn, column], risk[drawn])["aurc"]
            for column in (0, 1)
        ]
        gains.append(by_score[0] - by_score[1])
    low, high = np.quantile(gains, [0.025, 0.975])
    *in_halves, often = halves(table)
    show_row(
        title,
        len(table),
        f"{areas[0]['best']:.4f}",
        f"{areas[0]['random']:.4f}",
        f"{areas[0]['aurc']:.4f}",
        f"{areas[1]['aurc']:.4f}",
        f"{areas[0]['aurc'] - areas[1]['aurc']:+.4f} [{low:+.4f}, {high:+.4f}]",
        f"{ranks[0]:.2f}, {ranks[1]:.2f}",
        f"{', '.join(f'{area:.4f}' for area in in_halves)} ({100 * often:.0f} %)",
    )


def main() -> None:
    runs = given_runs(__doc__)
    torch.set_num_threads(1)
    voters = {"mirrored copies": loaded(runs[:1], mirror=True)}
    if len(runs) > 1:
        voters[f"{len(runs)} networks"] = loaded(runs)
    show_header(
        "votes, cases",
        "n",
        "best",
        "random",
        "AURC entropy",
        "AURC 1 - pairwise Dice",
        "entropy minus pairwise",
        "Spearman with Dice",
        "halves: entropy, 1 - pairwise, chosen (1 - pairwise in)",
    )
    cases = held_out(runs[0])
    for name, predictor in voters.items():
        plain = [asked(predictor, case, AS_IT_IS) for case in cases]
        show(f"{name}, as they are", plain)
        damages = [damage for damage in DAMAGES if damage != AS_IT_IS]
        damaged = [
            asked(predictor, case, damage)
            for damage in damages
            for case in cases[::EVERY]
        ]
        show(f"{name}, damaged ones among them", [*plain, *damaged])
    single = [answer.dice for answer in plain]
    print(f"mean Dice as they are: {np.mean(single):.3f}")


if __name__ == "__main__":
    main()
