"""BraTS metrics: one 240 x 240 x 155 case with 20 lesions under the three official
conventions, against the official code.

Runs in benchmarks/.venv-oracles (setup_oracles.sh). Ours:
`choose_convention(name).evaluate(...)` for WT, TC and ET. Theirs: MedPy with nnU-Net's
rules, panoptica as brats-evaluation configures it (these three regions only), and, with
`--script eval.py` of github.com/rachitsaluja/BraTS-2023-Metrics, the script of 2023,
which also reads its two files.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _measure import header, race
from brats_cases import ISOTROPIC, REGIONS
from brats_oracles import instance_wise, legacy, lesion_wise
from trivox.evaluation.conventions.choice import choose_convention

SHAPE = (155, 240, 240)
RADII = (34, 22, 15, 12, 10, *[8] * 5, *[5] * 10)


def case(*, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference `(z, y, x)` uint8: 20 ragged lesions; predicted shifted,
    two missed, two made up.
    """
    rng = np.random.default_rng(seed)
    centres: list[np.ndarray] = []
    while len(centres) < len(RADII) + 2:
        new = rng.uniform(0.15, 0.85, 3) * SHAPE
        radii = (*RADII, 6, 6)
        if all(
            np.linalg.norm(new - c) > radii[len(centres)] + r + 8
            for c, r in zip(centres, radii, strict=False)
        ):
            centres.append(new)
    reference = _paint(centres[:-2], RADII, rng)
    moved = [centre + rng.uniform(-1.5, 1.5, 3) for centre in centres]
    return _paint([*moved[:-4], *moved[-2:]], (*RADII[:-2], 6, 6), rng), reference


def _paint(
    centres: list[np.ndarray], radii: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    rough = gaussian_filter(rng.normal(size=SHAPE).astype(np.float32), 3)
    rough *= 0.05 / rough.std()
    labels = np.zeros(SHAPE, np.uint8)
    for centre, radius in zip(centres, radii, strict=True):
        box = tuple(
            slice(max(int(c - 1.6 * radius), 0), int(c + 1.6 * radius)) for c in centre
        )
        grid = np.meshgrid(
            *(
                np.arange(s.start, min(s.stop, n))
                for s, n in zip(box, SHAPE, strict=True)
            ),
            indexing="ij",
        )
        distance = (
            np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
            / radius
            + rough[box]
        )
        for value, limit in ((2, 1.0), (1, 0.7), (3, 0.5)):
            labels[box][distance < limit] = value
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--script", type=Path, help="eval.py of BraTS-2023-Metrics")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    header()
    prediction, reference = case()
    theirs = {
        "brats-legacy": lambda: legacy(prediction, reference, ISOTROPIC),
        "brats-instance": lambda: instance_wise(prediction, reference, ISOTROPIC),
    }
    if given.script:
        theirs["brats-lesion-wise"] = lambda: lesion_wise(
            prediction, reference, ISOTROPIC, "BraTS-GLI", given.script
        )
    for name, call in theirs.items():
        convention = choose_convention(name)
        found = race(
            lambda rules=convention: rules.evaluate(
                prediction, reference, spacing=ISOTROPIC, targets=REGIONS
            ),
            call,
            rounds=given.rounds,
        )
        gaps = []
        for region, row in found.their_result.items():
            own_row = found.our_result[region]
            gaps += [abs(own_row[metric] - value) for metric, value in row.items()]
        found.show(name, f"largest difference of {len(gaps)} values {max(gaps):.1e}")


if __name__ == "__main__":
    main()
