"""What every fitted classifier is made of: small networks whose logits are averaged.

Layers of (weight, bias) with ReLU in between; a linear classifier is one network of one
layer. Numpy is all that they need, and exports carry this module as it is
(`trivox.exporting.programs`).
"""

import numpy as np

from trivox.volumes.volume import Array

Layer = tuple[Array, Array]
"""Weight `(out, in)` and bias `(out,)`."""
Network = tuple[Layer, ...]

LIMIT = 4.0
"""Standard deviations beyond which a feature counts as this far: one odd value must not
decide a case.
"""


def standardise(rows: Array, fill: Array, mean: Array, scale: Array) -> Array:
    """Rows `(n, f)` with what is not known (or not finite) filled in, centred, scaled,
    and held within `LIMIT`.
    """
    known = np.where(np.isfinite(rows), rows, fill)
    return np.asarray(np.clip((known - mean) / scale, -LIMIT, LIMIT))


def logits_of(networks: tuple[Network, ...], x: Array) -> Array:
    """Mean over the networks of their logits `(n, k)` for rows `(n, f)`."""
    total: Array = np.zeros(())
    for network in networks:
        total = total + _logits(network, x)
    return total / len(networks)


def _logits(network: Network, x: Array) -> Array:
    (weight, bias), *others = network
    outputs = x @ weight.T + bias
    for weight, bias in others:
        hidden = np.maximum(outputs, 0)
        outputs = hidden @ weight.T + bias
    return outputs


def scaled(networks: tuple[Network, ...], factor: float) -> tuple[Network, ...]:
    """The networks with their logits multiplied by a factor."""
    result: list[Network] = []
    for network in networks:
        *hidden, (weight, bias) = network
        last = (weight * factor, bias * factor)
        result.append((*hidden, last))
    return tuple(result)


def widened(
    network: Network, places: Array, outputs: int, *, bias_of_others: float
) -> Network:
    """The network with `outputs` outputs, its own at `places` `(k,)`; the others have
    the same logit whatever the row.
    """
    *hidden, (weight, bias) = network
    all_weights = np.zeros((outputs, weight.shape[1]))
    all_weights[places] = weight
    all_biases = np.full(outputs, bias_of_others)
    all_biases[places] = bias
    return (*hidden, (all_weights, all_biases))
