import threading
import time

import pytest

from trivox.inference.many.threads import Crew


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
