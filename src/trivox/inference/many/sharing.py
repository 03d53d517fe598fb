"""Cases shared among devices, each of which takes the next one when it has time."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, Queue
from threading import Lock
from typing import Any

import torch

from trivox.datasets.dataset import Case
from trivox.inference.many.line import Line, Passage
from trivox.inference.many.predictors import R
from trivox.inference.many.threads import PATIENCE, Crew

Arrivals = Queue[Passage[Any] | int]
"""Cases that came to their end, and the numbers of lines that have no more to do."""


class Shared(Iterator[Case]):
    """Cases that several threads take, each case once."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._cases = iter(cases)
        self._lock = Lock()

    def __next__(self) -> Case:
        with self._lock:
            return next(self._cases)


def ended(
    lines: Sequence[Line[R]], cases: Iterable[Case], *, abreast: bool
) -> Generator[Passage[R]]:
    """Every case at its end, written or failed.

    abreast: while cases are computed, others are read and written. What fails beside
    others is tried once more when nothing else is on its way: it may have lacked the
    memory that others took.
    """
    first = lines[0]
    if not abreast:
        for case in cases:
            yield first.alone(case)
        return
    again: list[Case] = []
    with Crew() as crew:
        for passage in _together(lines, cases, crew):
            if passage.record is None:
                again.append(passage.case)
            else:
                yield passage
    for case in again:
        yield first.alone(case)


def _together(
    lines: Sequence[Line[R]], cases: Iterable[Case], crew: Crew
) -> Iterator[Passage[R]]:
    """Cases at their end; a single line is worked on by this thread."""
    if len(lines) == 1:
        yield from lines[0].abreast(iter(cases), crew)
        return
    shared = Shared(cases)
    arrived: Arrivals = Queue()

    def work(line: Line[R]) -> None:
        try:
            if line.predictor.device.type == "cuda":
                torch.cuda.set_device(line.predictor.device)
            for passage in line.abreast(shared, crew):
                arrived.put(passage)
        finally:
            arrived.put(lines.index(line))

    working = [crew.begin(partial(work, line)) for line in lines]
    at_work = len(working)
    while at_work:
        arrival = _next(arrived)
        if isinstance(arrival, Passage):
            yield arrival
            continue
        at_work -= 1
        try:
            working[arrival].result()
        except Exception:
            crew.dismiss()
            yield from _waiting(arrived)
            raise


def _next(arrived: Arrivals) -> Passage[Any] | int:
    """The next arrival; Ctrl-C is heard meanwhile on every system."""
    while True:
        with suppress(Empty):
            return arrived.get(timeout=PATIENCE)


def _waiting(arrived: Arrivals) -> Iterator[Passage[Any]]:
    """Cases that came to their end before the work was ended."""
    while not arrived.empty():
        arrival = arrived.get()
        if isinstance(arrival, Passage):
            yield arrival
