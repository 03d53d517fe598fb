"""Lines and progress: a line from time to time where there is no terminal."""

import threading

import pytest

from trivox.cli import terminal
from trivox.cli.options import split_triples
from trivox.cli.terminal import Terminal, Work
from trivox.tasks.console import Quiet, working


@pytest.fixture
def said(monkeypatch):
    """Lines that are printed, and an event of the first one; a line is due at once."""
    lines = []
    first = threading.Event()

    def note(line, **options):
        lines.append(line)
        first.set()

    monkeypatch.setattr(terminal, "SECONDS", 0.001)
    monkeypatch.setattr(terminal, "print", note, raising=False)
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: False)
    return lines, first


def test_a_single_long_item_is_not_silent(said):
    lines, first = said
    for item in Terminal().track("ab", 2, "predicting", lambda: "loss 0.412"):
        if item == "a":
            assert first.wait(600)
    assert lines[0] == "predicting: 0 of 2, loss 0.412"


def test_work_of_unknown_length_is_not_silent_and_ends_quietly(said):
    lines, first = said

    def break_off():
        with working(Terminal(), "calibrating"):
            assert first.wait(600)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        break_off()
    assert lines[0] == "calibrating: 0 of 1"
    assert not [t for t in threading.enumerate() if t.name == "trivox-progress"]


def test_a_loop_that_is_left_early_ends_quietly(said):
    for _ in Terminal().track(range(3), 3, "measuring"):
        break
    assert not [t for t in threading.enumerate() if t.name == "trivox-progress"]


@pytest.mark.parametrize("console", [Quiet(), Terminal()])
def test_every_item_is_passed_once(console):
    assert list(console.track(range(5), 5, "measuring")) == [0, 1, 2, 3, 4]
    with working(console, "drawing"):
        pass


def test_a_line_says_how_far_and_how_long():
    work = Work("training", 100, lambda: "loss 0.412", done=25)
    assert work.line(600) == "training: 25 of 100, loss 0.412, about 30 min left"
    assert Work("training", 4, done=3).line(30) == "training: 3 of 4, nearly done"
    assert Work("training", 4).line(30) == "training: 0 of 4"


@pytest.mark.parametrize(
    ("given", "split"),
    [
        (["--patch-size", "96,96,64"], ["--patch-size", "96", "96", "64"]),
        (["--patch-size=8,8,8"], ["--patch-size", "8", "8", "8"]),
        (["--patch-size", "8", "8", "8"], ["--patch-size", "8", "8", "8"]),
        (["--isocentre", "-1.5,2,3"], ["--isocentre", "-1.5", "2", "3"]),
        (["--scales", "0.9,1"], ["--scales", "0.9,1"]),
        (["--views=0,90", "a,b"], ["--views=0,90", "a,b"]),
    ],
)
def test_three_numbers_may_come_as_one(given, split):
    assert split_triples(given) == split
