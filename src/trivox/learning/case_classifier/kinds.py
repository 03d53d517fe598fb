"""The kinds of small classifiers on features of a case: shrinkage LDA, logistic
regression, a small network.

Each is fitted on standardised rows and becomes a list of networks (`network`).
"""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from trivox.learning.case_classifier.network import Network
from trivox.volumes.volume import Array

FitKind = Callable[[Array, Array, Array, float, int], tuple[Network, ...]]
"""(rows, answers, weights, setting, seed) -> networks; answers 0..k-1, all present;
weights with mean 1.
"""

HIDDEN = 16
"""Width of the small network."""
MEMBERS = 4
"""Small networks that answer together."""
STEPS = 60
"""Steps that the small network learns for.

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
    mass = member.sum(0)
    prior = mass / member.sum()
    means = member.T @ x / mass[:, None]
    deviations = x - means[answers]
    root = np.sqrt(weights / weights.mean())
    covariance = shrunk_covariance(deviations * root[:, None])
    features = len(covariance)
    ridge = 1e-8 * max(float(np.trace(covariance)) / features, 1e-12)
    directions = np.linalg.solve(covariance + ridge * np.eye(features), means.T).T
    biases = np.log(prior) - 0.5 * (directions * means).sum(1)
    return (((directions, biases),),)


def shrunk_covariance(centred: Array) -> Array:
    """Covariance `(f, f)` of centred rows `(n, f)`, drawn towards a multiple of the
    identity as far as its error asks for.

    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices".
    """
    from sklearn.covariance import ledoit_wolf  # takes a second to import

    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    return np.asarray(covariance)


def fit_logreg(
    x: Array, answers: Array, weights: Array, setting: float, seed: int
) -> tuple[Network, ...]:
    """Multinomial logistic regression with an L2 penalty; setting: C, the weight of the
    rows' summed loss beside it.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=setting, max_iter=1000)
    rotated, back = rotate(x)
    with warnings.catch_warnings():
        # an answer near the optimum is as good: the score decides
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rotated, answers, sample_weight=weights)
    weight = model.coef_ @ back
    bias = model.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps their difference alone
        weight = np.concatenate([-weight / 2, weight / 2])
        bias = np.concatenate([-bias / 2, bias / 2])
    return (((weight, bias),),)


def fit_mlp(
    x: Array, answers: Array, weights: Array, setting: float, seed: int
) -> tuple[Network, ...]:
    """Networks of one hidden layer from several seeds, trained at once; setting: weight
    decay (AdamW, full batch).
    """
    rotated, back = rotate(x)
    spread = x.shape[1] ** -0.5
    layers = _trained_layers(rotated, answers, weights, setting, seed, spread)
    w1, b1, w2, b2 = layers
    networks: list[Network] = []
    for member in range(MEMBERS):
        hidden = (w1[member].T @ back, b1[member, 0])
        last = (w2[member].T, b2[member, 0])
        networks.append((hidden, last))
    return tuple(networks)


def _trained_layers(
    x: Array, answers: Array, weights: Array, decay: float, seed: int, spread: float
) -> list[Array]:
    """Weights and biases of both layers, `(member, in, out)` and `(member, 1, out)`;
    spread: of the first weights at the start.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    features = x.shape[1]
    classes = int(answers.max()) + 1
    with torch.inference_mode(False), torch.enable_grad():
        # (member, row, feature)
        rows = torch.as_tensor(x, dtype=torch.float32).expand(MEMBERS, -1, -1)
        truth = torch.as_tensor(answers, dtype=torch.int64).repeat(MEMBERS)
        weight = torch.as_tensor(weights, dtype=torch.float32).repeat(MEMBERS) / len(x)
        first = torch.randn(MEMBERS, features, HIDDEN, generator=generator)
        second = torch.randn(MEMBERS, HIDDEN, classes, generator=generator)
        layers = [
            first * spread,
            torch.zeros(MEMBERS, 1, HIDDEN),
            second / HIDDEN**0.5,
            torch.zeros(MEMBERS, 1, classes),
        ]
        for layer in layers:
            layer.requires_grad_()
        optimizer = torch.optim.AdamW(layers, lr=0.01, weight_decay=decay)
        for _ in range(STEPS):
            hidden = torch.relu(rows @ layers[0] + layers[1])
            logits = hidden @ layers[2] + layers[3]
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), truth, reduction="none"
            )
            optimizer.zero_grad()
            (losses * weight).sum().backward()
            optimizer.step()
    return [layer.detach().double().numpy() for layer in layers]


FITS: Mapping[str, FitKind] = MappingProxyType(
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
