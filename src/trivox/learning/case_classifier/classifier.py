"""What answers with the class of a case from its features; numpy and safetensors are
all that it needs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import softmax

from trivox.errors import BundleError, DataError
from trivox.files import atomic_path
from trivox.learning.case_classifier.network import (
    LIMIT,
    Network,
    logits_of,
    standardise,
)
from trivox.schema import Frozen
from trivox.volumes.volume import Array


@dataclass(frozen=True, eq=False)
class CaseClassifier:
    """Features of a case -> probabilities of its classes.

    names: features used, in the order of the arrays; fill: values for those that are
    not known (medians of training); mean, scale: of training, `(f,)`; networks: see
    `trivox.learning.case_classifier.network`, their mean logits are divided by
    `temperature`; classes: names in the order of the outputs; kind: what it was fitted
    as, in words.
    """

    names: tuple[str, ...]
    fill: Array
    mean: Array
    scale: Array
    networks: tuple[Network, ...]
    temperature: float
    classes: tuple[str, ...]
    kind: str = ""

    def probabilities(self, features: Array | Mapping[str, float]) -> Array:
        """`(n, k)` for rows `(n, f)` in the order of `names`; or for one case as a
        mapping by name (n = 1).

        NaN stands for not known; a mapping may hold more than is used. Raises
        `DataError` for too few.
        """
        return np.asarray(softmax(self.logits(self._rows(features)), axis=1))

    def logits(self, rows: Array) -> Array:
        """Calibrated logits `(n, k)` of rows `(n, f)`."""
        x = standardise(rows, self.fill, self.mean, self.scale)
        return logits_of(self.networks, x) / self.temperature

    def beyond(self, features: Mapping[str, float]) -> set[str]:
        """Names of the features that it uses and that lie so far from those of training
        that they count as less far.
        """
        (row,) = self._rows(features)
        far = np.abs(row - self.mean) > LIMIT * self.scale
        return {name for name, is_far in zip(self.names, far, strict=True) if is_far}

    def _rows(self, features: Array | Mapping[str, float]) -> Array:
        if isinstance(features, Mapping):
            missing = [name for name in self.names if name not in features]
            if missing:
                raise DataError(
                    f"the classifier needs {len(missing)} features that the case does "
                    f"not have ('{missing[0]}', ...); measure it with the channels and "
                    "labels that the model was trained with"
                )
            return np.array([[features[name] for name in self.names]], dtype=np.float64)
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.names):
            raise DataError(
                f"features of shape {rows.shape}: "
                f"the classifier needs (cases, {len(self.names)})"
            )
        return rows

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, the words as JSON in its metadata;
        raises `DataError` for numbers that are none, which nothing can be answered with.
        """
        from safetensors.numpy import save_file

        try:
            self._check()
        except ValueError as error:
            raise DataError(
                f"{path}: no classifier could be fitted ({error}); check the features, "
                "or take --set classification.classifier=head"
            ) from error
        arrays = {"fill": self.fill, "mean": self.mean, "scale": self.scale}
        for i, network in enumerate(self.networks):
            for j, (weight, bias) in enumerate(network):
                arrays[f"network{i}.layer{j}.weight"] = weight
                arrays[f"network{i}.layer{j}.bias"] = bias
        words = _Words(
            names=self.names,
            classes=self.classes,
            kind=self.kind,
            temperature=self.temperature,
            layers=tuple(len(network) for network in self.networks),
        )
        content = {
            name: np.ascontiguousarray(array, dtype=np.float64)
            for name, array in arrays.items()
        }
        metadata = {"classifier": words.model_dump_json()}
        with atomic_path(path) as temporary:
            save_file(content, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "CaseClassifier":
        """Read what `save` wrote; raises `BundleError` for a file that is missing,
        damaged or of another format.
        """
        from safetensors import SafetensorError

        try:
            classifier = cls._read(path)
            classifier._check()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BundleError(
                f"{path}: not a classifier that can be read ({error}); "
                "copy or export it again"
            ) from error
        return classifier

    @classmethod
    def _read(cls, path: Path) -> "CaseClassifier":
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            words = _Words.model_validate(json.loads(metadata["classifier"]))
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
        networks = [
            _network(arrays, number, layers)
            for number, layers in enumerate(words.layers)
        ]
        return cls(
            names=words.names,
            fill=arrays["fill"],
            mean=arrays["mean"],
            scale=arrays["scale"],
            networks=tuple(networks),
            temperature=words.temperature,
            classes=words.classes,
            kind=words.kind,
        )

    def _check(self) -> None:
        """Raises `ValueError` for shapes that do not fit each other or numbers that are
        none.
        """
        arrays = [self.fill, self.mean, self.scale]
        if any(part.shape != (len(self.names),) for part in arrays):
            raise ValueError("number of features")
        if not self.networks:
            raise ValueError("number of networks")
        for network in self.networks:
            _check_shapes(network, len(self.names), len(self.classes))
            for layer in network:
                arrays += layer
        if not all(np.isfinite(part).all() for part in arrays):
            raise ValueError("numbers that are not finite")
        if not (self.scale > 0).all():
            raise ValueError("scale")
        if not 0 < self.temperature < float("inf"):
            raise ValueError("temperature")


class _Words(Frozen):
    """The JSON beside the arrays."""

    format: Literal[1] = 1
    names: tuple[str, ...]
    classes: tuple[str, ...]
    kind: str
    temperature: float
    layers: tuple[int, ...]


def _network(arrays: Mapping[str, Array], number: int, layers: int) -> Network:
    names = [f"network{number}.layer{layer}" for layer in range(layers)]
    return tuple((arrays[f"{name}.weight"], arrays[f"{name}.bias"]) for name in names)


def _check_shapes(network: Network, features: int, classes: int) -> None:
    """Raises `ValueError` unless each layer takes what the one before it gives."""
    width = features
    for weight, bias in network:
        if weight.ndim != 2 or weight.shape[1] != width:
            raise ValueError("shape of a layer")
        width = len(weight)
        if bias.shape != (width,):
            raise ValueError("shape of a layer")
    if width != classes:
        raise ValueError("number of classes")
