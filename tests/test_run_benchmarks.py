"""Benchmarks of finished runs: what is paired with what, and halves of cases."""

import sys
from pathlib import Path

import numpy as np
import pytest

from trivox.errors import DataError
from trivox.files import write_json

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("hippocampus_paired", "_held_out")
TABLE = """case,fold,conv_label1,conv_label2,large_label1,large_label2
a,0,0.80,0.90,0.81,0.91
b,0,0.70,0.90,0.72,0.92
c,1,0.60,0.80,0.60,0.80
d,1,0.50,0.50,0.50,0.50
"""
IN_RUNS = ("Anterior", "Posterior")
WITHOUT_NAMES = ("label_1", "label_2")


@pytest.fixture
def paired(monkeypatch):
    """The module `benchmarks/hippocampus_paired.py`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hippocampus_paired

    yield hippocampus_paired
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text(TABLE, encoding="utf-8")
    return file


def metrics(file, dice, names=IN_RUNS):
    """A metrics.json with the Dice of both labels by case."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cases = {
        case: {n: {"dice": value} for n, value in zip(names, values, strict=True)}
        for case, values in dice.items()
    }
    content = {"task": "segmentation", "format_version": 1, "convention": {}}
    write_json(file, {**content, "cases": cases, "summary": {}})
    return file


def run(folder, dice):
    metrics(folder / "validation" / "metrics.json", dice)
    return folder


def rows_printed(paired, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["hippocampus_paired.py", *map(str, arguments)])
    paired.main()
    lines = capsys.readouterr().out.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]


PLAIN = {"a": (0.82, 0.92), "b": (0.72, 0.92), "c": (0.70, 0.80)}
MIRRORED = {"a": (0.84, 0.94), "b": (0.76, 0.96), "c": (0.70, 0.86), "x": (0, 0)}


def test_runs_and_files_of_metrics_stand_in_for_one_another(
    paired, table, tmp_path, monkeypatch, capsys
):
    first = {"a": PLAIN["a"]}
    rest = {"b": PLAIN["b"], "c": PLAIN["c"]}
    both = [run(tmp_path / "run", first), metrics(tmp_path / "m.json", rest)]
    alone = metrics(tmp_path / "all.json", PLAIN, WITHOUT_NAMES)
    by_both = rows_printed(paired, monkeypatch, capsys, table, *both)
    assert by_both == rows_printed(paired, monkeypatch, capsys, table, alone)
    header, _, conv, large = by_both
    assert header == ["beside", "cases", "theirs", "ours", "ours - theirs"]
    assert conv[:4] == ["conv", "3", "0.7833", "0.8133"]
    assert conv[4].startswith("+0.0300 [")  # mean of +0.02, +0.02, +0.05
    assert large[4].startswith("+0.0200 [")  # mean of +0.01, 0, +0.05


def test_the_mirrored_copy_is_a_second_column_on_the_same_cases(
    paired, table, tmp_path, monkeypatch, capsys
):
    plain = run(tmp_path / "run", {**PLAIN, "d": (1, 1)})
    mirrored = metrics(tmp_path / "tta.json", MIRRORED, WITHOUT_NAMES)
    given = (table, plain, "--mirrored", mirrored)
    header, _, conv, _ = rows_printed(paired, monkeypatch, capsys, *given)
    names = ["with the mirrored copy", "with the mirrored copy - theirs"]
    assert header[3:] == ["ours", "ours - theirs", *names]
    assert conv[1:4] == ["3", "0.7833", "0.8133"]
    assert conv[4].startswith("+0.0300 [")
    assert conv[5] == "0.8433"
    assert conv[6].startswith("+0.0600 [")  # mean of +0.04, +0.06, +0.08


def test_a_case_that_comes_twice_or_lacks_a_label_is_refused(paired, tmp_path):
    one = metrics(tmp_path / "one.json", PLAIN)
    with pytest.raises(DataError, match="a, b, c came before"):
        paired.measured([one, run(tmp_path / "run", PLAIN)])
    other = metrics(tmp_path / "other.json", {"e": (0.5, 0.5)}, ("Anterior", "tail"))
    with pytest.raises(DataError, match="e has no Dice of both labels"):
        paired.measured([one, other])


@pytest.mark.parametrize("count", [2, 7])
def test_halves_part_the_cases_and_are_always_the_same(paired, count):
    halvings = list(sys.modules["_held_out"].halvings(count))
    for learnt, asked in halvings:
        assert len(learnt) == count // 2
        assert sorted([*learnt, *asked]) == list(range(count))
    again = sys.modules["_held_out"].halvings(count)
    for (one, _), (other, _) in zip(halvings, again, strict=True):
        assert np.array_equal(one, other)
    assert len({tuple(learnt) for learnt, _ in halvings}) > 1
