"""A small label map: an organ with a tumour in it."""

import numpy as np

SPACING = (2.0, 1.0, 0.5)


def label_map(shift=0, tumour=True):
    """Organ 1 and tumour 2 `(z, y, x)`, shifted along x."""
    labels = np.zeros((12, 16, 20), np.int16)
    labels[3:9, 3:12, 3 + shift : 14 + shift] = 1
    if tumour:
        labels[4:6, 5:8, 6 + shift : 9 + shift] = 2
    return labels
