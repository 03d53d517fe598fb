"""Cases of three classes that a single feature tells apart, for the tests of case
classifiers.
"""

import numpy as np

from trivox.learning.case_classifier.fitting import fit_classifier

CLASSES = ("benign", "mild", "severe")


def toy(seed=0, counts=(20, 30, 25), features=8, shift=1.5):
    """Class k lies at k * shift along the first feature; the others are noise."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    rows = rng.standard_normal((len(truth), features))
    rows[:, 0] += shift * truth
    return rows, truth, [f"f{i}" for i in range(features)]


def fit(rows, truth, names, **more):
    given = {
        "class_names": CLASSES,
        "subsets": {"all": names},
        "kinds": ("lda",),
        **more,
    }
    return fit_classifier(rows, truth, names=names, **given)


def answers_to(classifier, rows, names):
    """Probabilities of rows that hold all features, in the order of `names`."""
    return classifier.probabilities(
        rows[:, [names.index(name) for name in classifier.names]]
    )


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
