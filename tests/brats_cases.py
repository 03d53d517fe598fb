"""Small seeded pairs of label maps in the labels of BraTS 2023 (1 NCR, 2 ED, 3 ET),
made to meet every rule of its metrics.

Needs numpy and scipy only: the official packages live in a venv without trivox
(`benchmarks/setup_oracles.sh`).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
SHAPE = (30, 34, 38)  # (z, y, x)
ISOTROPIC = (1.0, 1.0, 1.0)
ANISOTROPIC = (3.0, 0.75, 0.5)


def brats_cases():
    """Name -> prediction, reference (both `(z, y, x)` uint8) and spacing in mm `(z, y,
    x)`.
    """
    pairs = _drawn_pairs()
    cases = {name: (*pair, ISOTROPIC) for name, pair in pairs.items()}
    for seed in range(4):
        cases[f"blobs_isotropic_{seed}"] = (*_blobs(seed), ISOTROPIC)
        cases[f"blobs_anisotropic_{seed}"] = (*_blobs(seed), ANISOTROPIC)
    for name in ("dilations_touch", "small_lesions"):
        cases[f"{name}_anisotropic"] = (*pairs[name], ANISOTROPIC)
    return cases


def _drawn_pairs():
    """Prediction and reference by what the pair shows."""
    none = np.zeros(SHAPE, np.uint8)
    two = _paint(((2, 3, 4), 9), ((2, 20, 20), 9))
    return _easy_pairs(none, two) | _hard_pairs()


def _easy_pairs(none, two):
    """Nothing, everything, and lesions that meet or just do not."""
    return {
        "perfect": (two, two),
        "both_empty": (none, none),
        "empty_prediction": (none, two),
        "empty_reference": (two, none),
        "no_overlap": (_paint(((18, 3, 4), 8)), _paint(((2, 3, 4), 8))),
        "dilations_touch": (
            _paint(((3, 4, 4), 6)),
            _paint(((3, 4, 4), 6), ((3, 4, 14), 7)),
        ),
        "dilations_just_apart": (
            _paint(((3, 4, 4), 6)),
            _paint(((3, 4, 4), 6), ((3, 4, 18), 7)),
        ),
        "corners_touch": (
            _paint(((3, 4, 4), 6)),
            _paint(((3, 4, 4), 6), ((9, 10, 10), 5)),
        ),
    }


def _hard_pairs():
    """Lesions that are split, joined, small, at the border or equally near to two."""
    return {
        "one_prediction_two_lesions": (
            _paint(((3, 4, 4), 6), ((5, 6, 8), 3), ((4, 5, 11), 4), ((4, 6, 15), 9)),
            _paint(((3, 4, 4), 6), ((4, 5, 18), 7)),
        ),
        "two_predictions_one_lesion": (
            _paint(((3, 4, 4), 4), ((9, 10, 10), 6)),
            _paint(((3, 4, 4), 13)),
        ),
        "close_but_not_touching": (_paint(((3, 4, 12), 5)), _paint(((3, 4, 4), 6))),
        "small_lesions": (
            _paint(
                ((3, 4, 4), 3), ((20, 20, 20), 3), ((3, 20, 20), 2), ((12, 4, 25), 9)
            ),
            _paint(
                ((3, 4, 5), 3), ((20, 4, 4), 3), ((12, 4, 24), 9), ((26, 26, 26), 1)
            ),
        ),
        "at_the_border": (
            _paint(((0, 0, 0), 7), ((23, 27, 31), 7)),
            _paint(((0, 0, 0), 8), ((21, 27, 30), 9)),
        ),
        "equal_rivals": (
            _paint(((4, 4, 4), 12)),
            _paint(((4, 4, 4), 4), ((12, 12, 12), 4)),
        ),
        "equal_rivals_in_another_order": (
            _paint(((4, 4, 4), 12), ((4, 4, 16), 6)),
            _paint(((4, 4, 12), 4), ((12, 4, 4), 4)),
        ),
    }


def _paint(*cubes):
    """Cubes of three shells: oedema, necrosis and in the middle of it enhancing tumour;
    each a corner and a size.
    """
    labels = np.zeros(SHAPE, np.uint8)
    for corner, size in cubes:
        for value, shell in ((2, 0), (1, 1), (3, 2)):
            if size > 2 * shell:
                inside = tuple(slice(c + shell, c + size - shell) for c in corner)
                labels[inside] = value
    return labels


def _blobs(seed):
    """Many ragged lesions; the prediction agrees with most of them."""
    rng = np.random.default_rng(seed)
    shared, *noises = (gaussian_filter(rng.normal(size=SHAPE), 1.6) for _ in range(3))
    prediction, reference = (_layers(shared + 0.35 * noise) for noise in noises)
    return prediction, reference


def _layers(field):
    """Oedema, necrosis and enhancing tumour where `field` is high, higher, highest."""
    low, middle, high = np.quantile(field, [0.88, 0.93, 0.97])
    labels = np.select([field > high, field > middle, field > low], [3, 1, 2], 0)
    return labels.astype(np.uint8)
