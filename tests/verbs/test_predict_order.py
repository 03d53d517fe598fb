from pathlib import Path

import pytest

from trivox.verbs.predict import Predictions


def predictions(agreements):
    records = {f"c{i}": {"agreement": each} for i, each in enumerate(agreements)}
    return Predictions(Path("out"), {**records, "broken": {"error": "no image"}})


@pytest.mark.parametrize(
    ("agreements", "said"),
    [
        ([0.9, 0.2, 0.7, 0.8], "c1 (0.20), c2 (0.70), c3 (0.80)"),
        ([0.5, 0.5, 0.5, None, 0.4, 1.0], "c4 (0.40), c0 (0.50), c1 (0.50)"),
        ([0.1, 0.2, 0.3, None], ""),
        ([], ""),
    ],
)
def test_cases_on_which_votes_agree_least_are_named_worst_first(agreements, said):
    expected = f"the votes agree least on {said}" if said else ""
    assert predictions(agreements).doubtful == expected
