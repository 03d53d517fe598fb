"""What is done again and again while something else is done."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(
    act: Callable[[], object], *, every: float, thread_name: str
) -> Iterator[None]:
    """Within, a thread calls `act` every so many seconds, the first time after as many.

    The block ends only when the last call has returned; none follows, whatever ended the
    block. What `act` raises is reported as an error of a thread is
    (`threading.excepthook`: a traceback on stderr) and is the last call; the block goes
    on.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            act()

    thread = threading.Thread(target=repeat, name=thread_name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
