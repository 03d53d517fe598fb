"""Losses of a class for the whole case."""

import pytest
import torch
import torch.nn.functional as F

from trivox.config.options import ClassificationOptions
from trivox.learning.losses.classes import balanced_weights, class_cross_entropy

LOGITS = torch.tensor(
    [[2.0, 0.0, -1.0], [0.5, 0.5, 0.0], [0.0, 3.0, 1.0]], dtype=torch.float64
)


def test_it_is_cross_entropy_where_the_class_is_known():
    classes = torch.tensor([0, 2, 1])
    assert torch.allclose(
        class_cross_entropy(LOGITS, classes),
        F.cross_entropy(LOGITS, classes, reduction="none"),
    )
    smooth = F.cross_entropy(LOGITS, classes, reduction="none", label_smoothing=0.1)
    assert torch.allclose(
        class_cross_entropy(LOGITS, classes, label_smoothing=0.1), smooth
    )


def test_an_unknown_class_gives_no_loss_and_no_gradient():
    """Defect 5 of research/models.md 1.3: a missing class became the majority class."""
    logits = LOGITS.clone().requires_grad_()
    loss = class_cross_entropy(
        logits, torch.tensor([-1, 2, -1]), weights=torch.ones(3), focal_gamma=2.0
    )
    loss.sum().backward()
    assert loss[0] == loss[2] == 0
    assert loss[1] > 0
    assert not logits.grad[0].any()
    assert not logits.grad[2].any()
    assert logits.grad[1].any()


def test_focal_loss_is_cross_entropy_times_the_power_of_the_error():
    classes = torch.tensor([0, 1, 1])
    chance = LOGITS.softmax(1)[torch.arange(3), classes]
    expected = -((1 - chance) ** 2) * chance.log()
    assert torch.allclose(
        class_cross_entropy(LOGITS, classes, focal_gamma=2.0), expected
    )


@pytest.mark.parametrize("kind", ["inverse_frequency", "effective_number"])
def test_weights_favour_rare_classes_and_have_mean_one_over_the_cases(kind):
    counts = torch.tensor([62.0, 106.0, 84.0], dtype=torch.float64)
    weights = balanced_weights(counts, ClassificationOptions(class_weights=kind))
    assert weights[0] > weights[2] > weights[1]
    assert float((weights.double() * counts).sum() / counts.sum()) == pytest.approx(
        1, abs=1e-6
    )
    if kind == "inverse_frequency":
        assert float(weights[0] / weights[1]) == pytest.approx(106 / 62, rel=1e-5)


def test_effective_numbers_lie_between_equal_and_inverse_frequency():
    counts = torch.tensor([10.0, 1000.0])
    ratio = {}
    for beta in (0.0, 0.99, 0.999999):
        options = ClassificationOptions(
            class_weights="effective_number", effective_number_beta=beta
        )
        weights = balanced_weights(counts, options)
        ratio[beta] = float(weights[0] / weights[1])
    assert ratio[0.0] == pytest.approx(1)
    assert 1 < ratio[0.99] < ratio[0.999999]
    assert ratio[0.999999] == pytest.approx(100, rel=1e-2)


def test_without_a_rule_there_are_no_weights():
    assert balanced_weights(torch.tensor([1.0, 2.0]), ClassificationOptions()) is None
