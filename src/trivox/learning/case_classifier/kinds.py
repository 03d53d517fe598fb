"""The kinds of small classifiers on features of a case: shrinkage LDA, logistic
regression, a small network.

Each is fitted on standardised rows and becomes a list of networks: layers of (weight,
bias) with ReLU in between, whose logits are averaged. A linear kind is one network of
one layer.
"""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from trivox.volumes.volume import Array

Layer = tuple[Array, Array]
"""Weight `(out, in)` and bias `(out,)`."""
Network = tuple[Layer, ...]
Fit = Callable[[Array, Array, Array, float, int], tuple[Network, ...]]
"""(rows, answers, weights, setting, seed) -> networks; answers 0..k-1, all present;
weights with mean 1.
"""

HIDDEN, MEMBERS, STEPS = 16, 4, 60
"""Of the small network.

BraTS grade: 40, 60 and 80 steps are alike; at 150 single cases have been learnt by
heart.
"""


def fit_lda(
    x: Array, answers: Array, weights: Array, setting: float, seed: int
) -> tuple[Network, ...]:
    """Linear discriminant analysis with a pooled covariance, shrunk; setting, seed: not
    used.

    The share of a class in the weights is its prior.
    """
    member = np.eye(answers.max() + 1)[answers] * weights[:, None]
    prior = member.sum(0) / member.sum()
    means = member.T @ x / member.sum(0)[:, None]
    covariance = shrunk_covariance(
        (x - means[answers]) * np.sqrt(weights / weights.mean())[:, None]
    )
    ridge = 1e-8 * max(float(np.trace(covariance)) / len(covariance), 1e-12)
    directions = np.linalg.solve(
        covariance + ridge * np.eye(len(covariance)), means.T
    ).T
    return (((directions, np.log(prior) - 0.5 * (directions * means).sum(1)),),)


def shrunk_covariance(centred: Array) -> Array:
    """Covariance `(f, f)` of centred rows `(n, f)`, drawn towards a multiple of the
    identity as far as its error asks for.

    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices".
    """
    n, f = centred.shape
    sample = centred.T @ centred / n
    mean = float(np.trace(sample)) / f
    squares = float((sample**2).sum())
    distance = squares - f * mean**2
    error = (float(((centred**2).sum(1) ** 2).mean()) - squares) / n
    share = min(error, distance) / distance if distance > 0 else 0.0
    return np.asarray((1 - share) * sample + share * mean * np.eye(f))


def fit_logreg(
    x: Array, answers: Array, weights: Array, setting: float, seed: int
) -> tuple[Network, ...]:
    """Multinomial logistic regression with an L2 penalty; setting: C, the weight of the
    rows' summed loss beside it.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=setting, max_iter=1000)
    rotated, back = rotate(x)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # an answer near the optimum is as good: the score decides
        model.fit(rotated, answers, sample_weight=weights)
    weight, bias = model.coef_ @ back, model.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps their difference alone
        weight, bias = (
            np.concatenate([-weight / 2, weight / 2]),
            np.concatenate([-bias / 2, bias / 2]),
        )
    return (((weight, bias),),)


def fit_mlp(
    x: Array, answers: Array, weights: Array, setting: float, seed: int
) -> tuple[Network, ...]:
    """Networks of one hidden layer from several seeds, trained at once; setting: weight
    decay (AdamW, full batch).
    """
    import torch

    rotated, back = rotate(x)
    generator = torch.Generator().manual_seed(seed)
    sizes = rotated.shape[1], int(answers.max()) + 1
    with torch.inference_mode(False), torch.enable_grad():
        rows = torch.as_tensor(rotated, dtype=torch.float32).expand(
            MEMBERS, -1, -1
        )  # (member, row, feature)
        truth = torch.as_tensor(answers, dtype=torch.int64).repeat(MEMBERS)
        weight = torch.as_tensor(weights, dtype=torch.float32).repeat(MEMBERS) / len(x)
        first = (
            torch.randn(MEMBERS, sizes[0], HIDDEN, generator=generator)
            / x.shape[1] ** 0.5
        )
        second = (
            torch.randn(MEMBERS, HIDDEN, sizes[1], generator=generator) / HIDDEN**0.5
        )
        layers = [
            first,
            torch.zeros(MEMBERS, 1, HIDDEN),
            second,
            torch.zeros(MEMBERS, 1, sizes[1]),
        ]
        optimiser = torch.optim.AdamW(
            [layer.requires_grad_() for layer in layers], lr=0.01, weight_decay=setting
        )
        for _ in range(STEPS):
            logits = torch.relu(rows @ layers[0] + layers[1]) @ layers[2] + layers[3]
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), truth, reduction="none"
            )
            optimiser.zero_grad()
            (losses * weight).sum().backward()
            optimiser.step()
    w1, b1, w2, b2 = (layer.detach().double().numpy() for layer in layers)
    return tuple(
        ((w1[i].T @ back, b1[i, 0]), (w2[i].T, b2[i, 0])) for i in range(MEMBERS)
    )


FITS: Mapping[str, Fit] = MappingProxyType(
    {"lda": fit_lda, "logreg": fit_logreg, "mlp": fit_mlp}
)
SETTINGS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"lda": (0.0,), "logreg": (0.001, 0.01, 0.1, 1.0), "mlp": (1.0,)}
)
"""What is tried of each kind."""


def rotate(x: Array) -> tuple[Array, Array]:
    """Rows in the space that they span `(n, r)`, r <= n, and the way back `(r, f)`: `x
    == rotated @ back`.

    A penalty on the length of the weights has the same solution there, at the cost of r
    columns instead of f.
    """
    if x.shape[1] <= len(x):
        return x, np.eye(x.shape[1])
    u, s, back = np.linalg.svd(x, full_matrices=False)
    return u * s, back


def logits_of(networks: tuple[Network, ...], x: Array) -> Array:
    """Mean over the networks of their logits `(n, k)` for rows `(n, f)`."""
    total: Array = np.zeros(())
    for network in networks:
        hidden = x
        for i, (weight, bias) in enumerate(network):
            hidden = (np.maximum(hidden, 0) if i else hidden) @ weight.T + bias
        total = total + hidden
    return total / len(networks)


def scaled(networks: tuple[Network, ...], factor: float) -> tuple[Network, ...]:
    """The networks with their logits multiplied by a factor."""
    return tuple(
        (*layers[:-1], (layers[-1][0] * factor, layers[-1][1] * factor))
        for layers in networks
    )
