"""Choices that the command line lists are those that the rooms know."""

from typing import get_args

from trivox.config import choices
from trivox.config.presets import PRESETS
from trivox.evaluation.conventions.choice import CONVENTIONS
from trivox.inference.doubt.kinds import KINDS
from trivox.tasks.choice import TASKS
from trivox.verbs.demo import DEMOS, SCALED_DOWN


def test_choices_are_what_the_rooms_know():
    assert get_args(choices.TaskName) == tuple(TASKS)
    assert set(get_args(choices.PresetName)) == set(PRESETS) == set(SCALED_DOWN)
    assert get_args(choices.UncertaintyKind) == tuple(KINDS)
    assert tuple(choices.Uncertainty) == tuple(KINDS)
    assert get_args(choices.ConventionName) == tuple(CONVENTIONS)
    assert set(get_args(choices.DemoName)) == set(DEMOS)
