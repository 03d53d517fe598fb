"""What is done again and again ends with the block that it is done for."""

import threading
import time

import pytest

from trivox.repeating import repeating

NAME = "trivox-test"
LONG = 600.0


def threads():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


class Acts:
    """Counts calls, and says when there were as many as wanted, or fails then."""

    def __init__(self, wanted, *, fails=False):
        self.calls = 0
        self.wanted = wanted
        self.fails = fails
        self.reached = threading.Event()

    def __call__(self):
        self.calls += 1
        if self.calls < self.wanted:
            return
        self.reached.set()
        if self.fails:
            raise ValueError("broken")


def test_it_is_done_again_and_again_and_never_after_the_block():
    acts = Acts(3)
    with repeating(acts, every=1e-3, thread_name=NAME):
        assert acts.reached.wait(LONG)
    assert not threads()
    assert acts.calls >= 3


def test_it_ends_also_when_the_block_fails():
    acts = Acts(1)

    def break_off():
        with repeating(acts, every=1e-3, thread_name=NAME):
            assert acts.reached.wait(LONG)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        break_off()
    assert not threads()


def test_nothing_is_done_in_a_block_that_is_shorter_than_a_turn():
    acts = Acts(1)
    with repeating(acts, every=LONG, thread_name=NAME):
        assert len(threads()) == 1
    assert acts.calls == 0


def test_the_block_ends_after_a_call_that_is_under_way():
    begun = threading.Event()
    returned = threading.Event()

    def act():
        begun.set()
        time.sleep(0.02)
        returned.set()

    with repeating(act, every=1e-3, thread_name=NAME):
        assert begun.wait(LONG)
    assert returned.is_set()


def test_an_error_is_reported_and_is_the_last_call_and_the_block_goes_on(monkeypatch):
    reports = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    acts = Acts(2, fails=True)
    with repeating(acts, every=1e-3, thread_name=NAME):
        (thread,) = threads()
        assert acts.reached.wait(LONG)
        thread.join(LONG)
        went_on = True
    assert went_on
    assert acts.calls == 2
    (report,) = reports
    assert report.exc_type is ValueError
    assert report.thread is thread
