"""Two remedies against one imbalance are said."""

import pytest

from trivox.config.recipe import make_recipe
from trivox.config.remedies import doubled_remedies

WEIGHTED = {"class_weights": "inverse_frequency"}
BALANCED = {"imbalance": "balanced_sampler", **WEIGHTED}


@pytest.mark.parametrize(
    ("overrides", "classes", "named"),
    [
        ({}, True, []),
        ({"loss_options": WEIGHTED}, True, []),
        ({"foreground_fraction": 0.6}, True, []),
        (
            {"loss_options": WEIGHTED, "foreground_fraction": 0.6},
            False,
            [
                (
                    "loss_options.class_weights=inverse_frequency",
                    "foreground_fraction=0.6",
                )
            ],
        ),
        (
            {"loss_options": {**WEIGHTED, "target_weights": {"a": 2.0}}},
            False,
            [("loss_options.class_weights", "loss_options.target_weights")],
        ),
        ({"classification": BALANCED}, False, []),
        (
            {"classification": BALANCED},
            True,
            [
                (
                    "classification.imbalance=balanced_sampler",
                    "classification.class_weights=inverse_frequency",
                )
            ],
        ),
        (
            {"classification": {**WEIGHTED, "imbalance": "none"}},
            True,
            [],
        ),
    ],
)
def test_two_remedies_at_once_are_said_in_a_line(overrides, classes, named):
    lines = list(
        doubled_remedies(make_recipe("quick_test", overrides), classes=classes)
    )
    assert len(lines) == len(named)
    for line, settings in zip(lines, named, strict=True):
        assert all(setting in line for setting in settings)
        assert line.endswith("keep one of them")
