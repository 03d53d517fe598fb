"""What the models of the release score on a few cases, and the least that they may.

    python tests/golden_models.py DATA     renews tests/golden/ready_models.json

DATA: folder of real scans. To be run when a model is released, and never to make a
test pass.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.evaluation.metrics.volumes import measure_volume
from trivox.files import write_json
from trivox.inference.predictor import Predictor
from trivox.inference.reconstructor import Reconstructor
from trivox.volumes.formats import read_labels, read_volume

SHELF = Path(__file__).parents[1] / "models"
FILE = Path(__file__).parent / "golden" / "ready_models.json"
HIPPOCAMPI = ("hippocampus_001", "hippocampus_088", "hippocampus_394")
"""The released weights learnt from the first two and never saw the third."""
MARGIN = {"hippocampus": 0.003, "brain-phantom": 0.003, "xray-phantom": 0.05}
"""For the rounding of other processors: Dice, Dice, dB."""


def hippocampi(data):
    folder = data / "hippocampus"
    return [
        Case(
            name=name,
            images=(folder / "imagesTr" / f"{name}.nii.gz",),
            label=folder / "labelsTr" / f"{name}.nii.gz",
        )
        for name in HIPPOCAMPI
    ]


def brains(folder):
    """Drawn with a seed that no training used."""
    settings = BrainPhantomSettings(cases=2, shape=(48, 60, 52), seed=99)
    return load_dataset(write_brain_phantoms(folder / "brains", settings)).cases


def chests(folder):
    """Likewise, with two X-rays each."""
    settings = ThoraxSettings(cases=2, size=64, seed=99, angles=(0.0, 90.0))
    return load_dataset(write_thoraxes(folder / "chests", settings)).cases


def dice(predicted, reference, values):
    first, second = (np.isin(array, values) for array in (predicted, reference))
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def label_scores(model, cases):
    """Dice of each target in each case, by `case/target`."""
    predictor = Predictor.load(SHELF / model, device="cpu", precision="fp32")
    labels = predictor.labels
    scores = {}
    for case in cases:
        predicted = predictor.predict_case(case).labels.array
        reference = read_labels(case.label).array
        for target, indices in labels.targets.items():
            values = [labels.values[index] for index in indices]
            scores[f"{case.name}/{target}"] = dice(predicted, reference, values)
    return scores


def volume_scores(model, cases):
    """PSNR of each case (dB), by case."""
    reconstructor = Reconstructor.load(SHELF / model, device="cpu", precision="fp32")
    window = reconstructor.plan.window
    scores = {}
    for case in cases:
        made = reconstructor.predict_case(case).volume
        row = measure_volume(made, read_volume(case.volume), window=window)
        scores[case.name] = row["psnr_db"]
    return scores


def least(scores, margin):
    return {name: math.floor(1e4 * (s - margin)) / 1e4 for name, s in scores.items()}


def main(data):
    with tempfile.TemporaryDirectory() as made:
        scores = {
            "hippocampus": label_scores("hippocampus", hippocampi(data)),
            "brain-phantom": label_scores("brain-phantom", brains(Path(made))),
            "xray-phantom": volume_scores("xray-phantom", chests(Path(made))),
        }
    write_json(FILE, {name: least(each, MARGIN[name]) for name, each in scores.items()})
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
