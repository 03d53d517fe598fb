"""A classifier of cases as arrays."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from network import logits_of, standardise
from scipy.special import softmax
from volume import Array


class Classifier:
    """Probabilities of the classes from features by name."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as arrays:
            self.arrays = dict(arrays)
        self.networks = []
        while f"network{len(self.networks)}.layer0.weight" in self.arrays:
            self.networks.append(tuple(self.layers(len(self.networks))))

    def layers(self, number: int) -> Iterator[tuple[Array, Array]]:
        """Weight and bias of each layer of a network."""
        for layer in itertools.count():
            name = f"network{number}.layer{layer}"
            if f"{name}.weight" not in self.arrays:
                return
            yield self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]

    def probabilities(self, features: dict[str, float]) -> Array:
        """Of the classes (k,)."""
        arrays = self.arrays
        row = np.array([[features[name] for name in arrays["names"].tolist()]])
        x = standardise(row, arrays["fill"], arrays["mean"], arrays["scale"])
        logits = logits_of(tuple(self.networks), x) / arrays["temperature"]
        return softmax(logits, axis=1)[0]
