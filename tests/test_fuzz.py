"""Damaged and odd files and settings end in success or in one line, whoever reads them.

`benchmarks/fuzz.py` reads a hundred thousand of them in watched processes; here are a
few of each kind, and what once ended otherwise.
"""

import json
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzing import harness
from fuzzing.harness import Bench, counted, fuzz, judged, wrong
from fuzzing.targets import TARGETS, Target
from trivox.cli.terminal import say
from trivox.datasets.tables import read_table
from trivox.errors import FormatError, ResourceError, TrivoxError, visible
from trivox.evaluation.folders.labels import read_metrics
from trivox.files import parse_json, read_json, write_text
from trivox.learning.tracking import read_records

QUICK = [target for target in TARGETS if target.share >= 50]
"""Targets of which an input takes some milliseconds."""
each_quick_target = pytest.mark.parametrize("target", QUICK, ids=lambda t: t.name)


@pytest.mark.filterwarnings("ignore")
@each_quick_target
def test_spoilt_files_end_in_success_or_one_line(target, tmp_path):
    bench = Bench(target, tmp_path, seed=0)
    outcomes = [bench.outcome(number) for number in range(8)]
    assert [o for o in outcomes if o.verdict == "foreign"] == []


@pytest.mark.slow
def test_thousands_of_files_and_settings_end_in_success_or_one_line():
    result = fuzz(TARGETS, count=10_000, seed=1)
    assert counted(result) >= 10_000
    assert wrong(result) == 0, result.groups


def test_a_child_that_dies_is_counted_and_another_goes_on(tmp_path, monkeypatch):
    """A pipe whose other end is closed can be read for ever."""

    class Dead:
        def __init__(self, *_):
            self.pipe, self.other = multiprocessing.Pipe()
            self.process = SimpleNamespace(
                is_alive=lambda: False, join=lambda: None, exitcode=-11
            )
            self.job = None
            self.number = None
            self.silent = False
            self.since = time.monotonic()

        def give(self, job):
            self.job = job

        def end(self):
            self.pipe.close()

    monkeypatch.setattr(harness, "Child", Dead)
    child = Dead()
    child.give(harness.Job("recipe", 0, 5))
    child.number = 3
    child.other.close()
    result = harness.Result()
    waiting = []
    harness._listen([child], waiting, result)
    other = harness._watched(child, tmp_path, 0, waiting, result, 60)
    assert other is not child
    assert other.job == harness.Job("recipe", 4, 1)
    assert result.rows["recipe"].deaths == 1


def test_other_exceptions_are_counted_as_such(tmp_path):
    """A harness that sees nothing would find nothing."""

    def example(folder):
        folder.mkdir()
        (folder / "a.json").write_text('{"a": 1}')

    def careless(folder, file):
        return json.loads(file.read_bytes())["a"] + 1

    target = Target("careless", example, careless)
    bench = Bench(target, tmp_path, seed=0)
    verdicts = {bench.outcome(number).verdict for number in range(40)}
    assert "foreign" in verdicts
    refusing = Target("refusing", example, lambda folder, file: read_json(folder / "b"))
    assert judged(refusing, tmp_path / "x", tmp_path / "x" / "a.json")[0] == "refused"


# -- what once ended otherwise ---------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "9" * 5000,
        '"\\ud800"',
        '{"\\udc00": 1}',
        '{"a": 1, "a": 2}',
        "",
    ],
    ids=["brackets", "braces", "digits", "half", "half key", "twice", "nothing"],
)
def test_json_that_cannot_be_taken_is_one_line(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=r"x\.json"):
        read_json(file)


def test_json_with_whole_pairs_and_a_byte_order_mark_is_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('\ufeff{"a": "\\ud83d\\ude00"}', encoding="utf-8")
    assert read_json(file) == {"a": "\U0001f600"}
    assert parse_json("[1e400]") == [float("inf")]


def test_quoted_cells_keep_their_newlines(tmp_path):
    file = tmp_path / "x.csv"
    file.write_bytes(b'case,note\r\na,"one\ntwo"\r\nb,"three\r\nfour"\r\n')
    table = read_table(file)
    assert table.rows == (("a", "one\ntwo"), ("b", "three\r\nfour"))


@pytest.mark.parametrize("content", ['case,class\n"a,HGG\nb,LGG\n', 'a,"b"c\n'])
def test_a_quotation_mark_without_its_other_swallows_no_rows(tmp_path, content):
    file = tmp_path / "x.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match="quotation mark"):
        read_table(file)


def test_separators_of_unicode_end_no_row(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("case,note\na,one\u2028two\x85three\n", encoding="utf-8")
    assert read_table(file).rows == (("a", "one\u2028two\x85three"),)


@pytest.mark.parametrize(
    "line",
    [
        '"text"',
        "[1]",
        '{"step": "1"}',
        '{"step": 1e999}',
        '{"kind": "epoch", "epoch": 1}',
        '{"kind": "epoch", "step": 1}',
        "9" * 5000,
        "\xff",
        "{",
    ],
)
def test_lines_that_no_training_wrote_are_left_out(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    good = '{"kind": "epoch", "epoch": 0, "step": 3, "train_loss": null}'
    file.write_bytes(f"{line}\n{good}\n".encode("latin-1"))
    assert read_records(file) == [json.loads(good)]


METRICS = {"convention": {}, "cases": {}, "summary": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"cases": {"a": {"organ": {"dice": "0.5"}}}},
        {"cases": {"a": {"organ": {"dice": 10**400}}}},
        {"cases": {"a": {"organ": {"empty": 1}}}},
        {"summary": {"organ": {"dice": 0.5}}},
        {"summary": {"organ": {"dice": {"mean": 1, "ci95": [1]}}}},
        {"warnings": "none"},
        {"classification": {"classes": "ab"}},
    ],
)
def test_metrics_of_other_types_are_refused_with_the_field(tmp_path, change):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(METRICS | change), encoding="utf-8")
    with pytest.raises(TrivoxError, match=next(iter(change))):
        read_metrics(file)


@pytest.mark.parametrize("name", ["", "a" * 300, "taken/below", "folder"])
def test_what_cannot_be_written_is_one_line(tmp_path, name):
    write_text(tmp_path / "taken", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResourceError):
        write_text(tmp_path / name, "text")


def test_a_name_that_is_none_is_one_line():
    with pytest.raises(ResourceError):
        write_text(Path(), "text")


def test_a_device_is_never_written_over(tmp_path):
    """As root a rename would put a file in the place of it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ResourceError, match="device"):
        write_text(pipe, "text")
    assert pipe.is_fifo()


# -- what is shown ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2Jcase", r"\x1b[2Jcase"),
        ("a\x07b\nc", r"a\x07b\nc"),
        ("gnp\u202e.exe", r"gnp\u202e.exe"),
        ("\ud800", r"\ud800"),
        ("Größe 中", "Größe 中"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(name, shown, capsys):
    assert visible(name) == shown
    say(name)
    assert capsys.readouterr().out == f"{shown}\n"
