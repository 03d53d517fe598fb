"""Adrenal shapes: normal or abnormal from the mask alone, beside the published figures
of AdrenalMNIST3D.

Shape features of every training shape, `fit_classifier` on the official training split,
measured once on the official validation split; settings are chosen by cross-validation
within the training split. FILE: `adrenalmnist3d_64.npz` of MedMNIST (CC BY 4.0). The
published figures are of the **test** split (298 shapes, 28^3), ours of the
**validation** split (98 shapes, 64^3): they stand side by side for orientation and
prove no ranking.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.evaluation.metrics.classification import ClassPredictions, measure_classes
from trivox.inference.classes.case_masks import case_masks
from trivox.inference.classes.lesion_shape import depth_of, shape_features
from trivox.learning.case_classifier.fitting import best_single_feature, fit_classifier

CLASSES = ("normal", "abnormal")
SCHEME = LabelScheme(labels={"adrenal": 1})
PUBLISHED = {
    "ResNet-18 + 2.5D": (0.718, 0.772),
    "ResNet-18 + 3D": (0.827, 0.721),
    "ResNet-18 + ACS": (0.839, 0.754),
    "ResNet-50 + 2.5D": (0.732, 0.763),
    "ResNet-50 + 3D": (0.828, 0.745),
    "ResNet-50 + ACS": (0.828, 0.758),
    "auto-sklearn": (0.828, 0.802),
    "AutoKeras": (0.804, 0.705),
}
"""AUC and accuracy on the test split as reported, not run again here: Yang et al.

2023, "MedMNIST v2", Scientific Data 10:41 (doi 10.1038/s41597-022-01721-8).
"""


def features_of(shapes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Shape features `(n, f)` of masks `(n, z, y, x)`, and their names.

    Voxels count as 1 mm.
    """
    spacing, rows = (1.0, 1.0, 1.0), []
    for shape in shapes:
        masks = case_masks((shape > 0).astype(np.int16), SCHEME, (1,), spacing)
        rows.append(shape_features(masks, depth_of(masks["lesion"], spacing), spacing))
    return np.array([list(row.values()) for row in rows]), list(rows[0])


def with_interval(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def show(name: str, truth: np.ndarray, probabilities: np.ndarray) -> None:
    """One row, with bootstrap intervals."""
    cases = tuple(f"case {i}" for i in range(len(truth)))
    found = measure_classes(
        ClassPredictions(cases, truth, probabilities, CLASSES), seed=0
    )
    cells = (
        with_interval(found[score]["value"], found[score]["ci95"])
        for score in ("auc", "accuracy", "macro_f1")
    )
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="adrenalmnist3d_64.npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a fifth of the training shapes; only indicative",
    )
    given = parser.parse_args()
    with np.load(given.file) as data:
        shapes, truth = (
            data["train_images"],
            data["train_labels"].ravel().astype(np.int64),
        )
        held_out, held_truth = (
            data["val_images"],
            data["val_labels"].ravel().astype(np.int64),
        )
    if given.quick:
        shapes, truth = shapes[::5], truth[::5]
    start = time.process_time()
    features, names = features_of(shapes)
    measured, _ = features_of(held_out)
    seconds = time.process_time() - start
    print(
        f"{len(names)} shape features of {len(shapes)} + {len(held_out)} shapes: "
        f"{seconds:.0f} CPU seconds"
    )

    print(
        "\n| official validation split, 98 shapes, 64^3 | AUC (95 % interval) "
        "| accuracy | macro-F1 |\n|---|---|---|---|"
    )
    common = {"names": names, "class_names": CLASSES, "seed": given.seed}
    single = best_single_feature(features, truth, **common)
    rows = {f"best single feature ({single.names[0]})": single}
    for imbalance in ("balanced", "none"):
        found = fit_classifier(
            features, truth, subsets={"shape": names}, imbalance=imbalance, **common
        )
        rows[f"{found.classifier.kind}, imbalance={imbalance}"] = found.classifier
    for name, classifier in rows.items():
        columns = [names.index(wanted) for wanted in classifier.names]
        show(name, held_truth, classifier.probabilities(measured[:, columns]))
    share = np.bincount(truth) / len(truth)
    show("majority answer", held_truth, np.tile(share, (len(held_truth), 1)))

    print(
        "\n| published, test split, 298 shapes, 28^3: another split | AUC | accuracy |\n"
        "|---|---|---|"
    )
    for name, (auc, accuracy) in PUBLISHED.items():
        print(f"| {name} | {auc:.3f} | {accuracy:.3f} |")


if __name__ == "__main__":
    main()
