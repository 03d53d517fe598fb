"""A training too short to mean anything says so."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.config.recipe import Recipe
from trivox.files import read_json
from trivox.tasks.brevity import EPOCHS, FEWEST_STEPS, rises_steeply, too_short


def run_of(folder, scores, *, steps):
    folder.mkdir(exist_ok=True)
    lines = [
        {
            "kind": "epoch",
            "epoch": number + 1,
            "step": (number + 1) * steps,
            "validation_dice": score,
        }
        for number, score in enumerate(scores)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return {0: folder}


FLAT = [0.1, 0.5, 0.7, 0.8, 0.8, 0.81, 0.8, 0.81, 0.8, 0.81]
RISING = [0.0, 0.0, 0.01, 0.02, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6]


@pytest.mark.parametrize(
    ("scores", "steps", "said"),
    [
        (FLAT, 100, None),
        (FLAT, 3, "30 steps only"),
        (RISING, 100, "rose steeply"),
        ([None] * 10, 100, None),
        ([], 100, None),
        ([None] * 5 + [0.5] * 5, 100, None),
    ],
)
def test_what_is_said_of_a_training(tmp_path, scores, steps, said):
    lines = too_short(Recipe(), run_of(tmp_path / "run", scores, steps=steps))
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_weights_to_start_from_need_fewer_steps(tmp_path):
    folders = run_of(tmp_path / "run", FLAT, steps=FEWEST_STEPS // 20)
    assert too_short(Recipe(), folders)
    assert not too_short(Recipe(pretrained="bundle"), folders)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_curve_that_ends_where_it_stood_does_not_rise(scores):
    assert not rises_steeply([*scores, *[scores[-1]] * len(scores) * 3])
    if len(scores) < EPOCHS:
        assert not rises_steeply(scores)


@given(st.integers(EPOCHS, 100))
def test_a_line_rises_and_what_levels_off_does_not(epochs):
    line = np.linspace(0, 1, epochs)
    assert rises_steeply(line.tolist())
    assert rises_steeply((line**2).tolist())
    assert not rises_steeply((1 - np.exp(-8 * line)).tolist())


def test_report_and_metrics_of_a_short_run_say_so_first(tiny_run):
    metrics = read_json(tiny_run / "validation" / "metrics.json")
    assert "trained for 6 steps only" in metrics["warnings"][0]
    report = (tiny_run / "report.html").read_text()
    assert "trained for 6 steps only" in report
