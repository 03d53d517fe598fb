import threading
import time

import pytest

from trivox.inference.many.threads import Crew, Later


def test_what_was_made_or_raised_meanwhile_comes_with_the_result():
    def fail():
        raise KeyError("gone")

    with Crew() as crew:
        assert crew.begin(lambda: 7).result() == 7
        with pytest.raises(KeyError, match="gone"):
            crew.begin(fail).result()


def test_threads_end_with_their_block_and_clean_up():
    cleaned = []

    def work():
        try:
            while True:
                time.sleep(0.001)
        finally:
            cleaned.append(threading.current_thread())

    def interrupted():
        with crew:
            crew.begin(work)
            crew.begin(work)
            raise KeyboardInterrupt

    crew = Crew()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(cleaned) == 2
    assert not any(thread.is_alive() for thread in cleaned)
    with pytest.raises(SystemExit):
        crew.begin(work)


def test_whoever_waits_for_the_crew_hears_that_it_is_dismissed(monkeypatch):
    """An exception reaches a thread once it runs; it cannot while it waits for a lock
    that the one who sends the exception holds.
    """
    held = []
    interrupt = Later.interrupt

    def noted(later):
        held.append(crew._lock.locked())
        interrupt(later)

    monkeypatch.setattr(Later, "interrupt", noted)
    with Crew() as crew:
        crew.begin(time.monotonic).result()
        crew.begin(lambda: time.sleep(0.01))
    assert held
    assert not any(held)
