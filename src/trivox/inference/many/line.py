"""The cases of a folder on their way through one device: while it computes one, the
next is read and the last is written.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

from trivox.datasets.dataset import Case
from trivox.errors import ResourceError, TrivoxError
from trivox.inference.many.origins import origin_of
from trivox.inference.many.predictors import CasePredictor, R
from trivox.inference.many.threads import Crew, Later
from trivox.inference.writing import Record
from trivox.memory import free_memory, memory_ran_out

SHARE = 0.5
"""Of the free memory that the cases of all lines may take which are read early."""


def is_of_case(error: Exception) -> bool:
    """Whether only this case fails. A full disk fails every later one as well, and a
    bug is to be seen.
    """
    if isinstance(error, ResourceError):
        return False
    expected = isinstance(error, TrivoxError | ValueError | MemoryError)
    return expected or memory_ran_out(error)


@dataclass(eq=False)
class Passage(Generic[R]):
    """A case on its way; after an error nothing more is done for it.

    share: of the free memory that it may take beside others; written: joined once its
    case was written; state: of its last step; record: of a case that was written;
    seconds: that were spent on it.
    """

    case: Case
    predictor: CasePredictor[R]
    write: Callable[[Case, R], Record]
    share: float = SHARE
    written: list["Passage[R]"] = field(default_factory=list)
    origin: Record = field(default_factory=dict)
    state: Any = None
    record: Record | None = None
    begun: bool = False
    error: Exception | None = None
    seconds: float = 0.0

    def begin(self) -> None:
        """Read and prepare it."""
        self.begun = True
        with self._step():
            self.origin = origin_of(self.case)  # a later change is noticed
            self.state = self.predictor.begin(self.case)

    def begin_early(self) -> None:
        """The same while another case is on its way, if there is memory for both."""
        if self._is_room():
            self.begin()

    def compute(self) -> None:
        """Run the networks."""
        with self._step():
            if self.error is None:
                self.state = self.predictor.compute(self.state)

    def end(self) -> "Passage[R]":
        """Write what was computed; returns the passage, with its record or its error.

        Raises errors that are not of this case alone.
        """
        with self._step():
            if self.error is None:
                result = self.predictor.complete(self.case, self.state)
                self.record = self.origin | self.write(self.case, result)
                self.written.append(self)
        self.state = None
        if self.error is not None and not is_of_case(self.error):
            raise self.error
        return self

    def _is_room(self) -> bool:
        try:
            needed = self.predictor.forecast(self.case)
        except (TrivoxError, OSError):
            return True  # whoever reads it says why it cannot be read
        return needed <= self.share * free_memory()

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Note the time, and an error."""
        started = time.monotonic()
        try:
            yield
        except Exception as error:
            self.error = error
        if self.error is not None and is_of_case(self.error):
            _forget_frames(self.error)
        self.seconds += time.monotonic() - started


def _forget_frames(error: Exception) -> None:
    """Where an error came from holds what was computed there, much memory at times."""
    error.__traceback__ = None
    error.__context__ = None
    error.__cause__ = None


@dataclass(frozen=True, eq=False)
class Line(Generic[R]):
    """One device, and what goes through it.

    write: writes the prediction of a case; returns what its record says; share: of the
    free memory that a case may take which is read early; written: the cases that were
    written, which whoever is interrupted may not have heard of yet.
    """

    predictor: CasePredictor[R]
    write: Callable[[Case, R], Record]
    share: float = SHARE
    written: list[Passage[R]] = field(default_factory=list)

    def passage(self, case: Case) -> Passage[R]:
        """A case that begins its way."""
        return Passage(case, self.predictor, self.write, self.share, self.written)

    def alone(self, case: Case) -> Passage[R]:
        """A case with nothing else on its way, at its end."""
        passage = self.passage(case)
        passage.begin()
        passage.compute()
        return passage.end()

    def abreast(self, cases: Iterator[Case], crew: Crew) -> Iterator[Passage[R]]:
        """Cases at their end, in order; while one is computed, the crew reads the next
        and writes the last.
        """
        writing: Later[Passage[R]] | None = None
        reading = self._read_next(cases, crew)
        while reading is not None:
            passage = reading.result()
            if not passage.begun:
                # no memory for two
                if writing is not None:
                    yield writing.result()
                    writing = None
                passage.begin()
            reading = self._read_next(cases, crew)
            passage.compute()
            if writing is not None:
                yield writing.result()
            writing = crew.begin(passage.end)
        if writing is not None:
            yield writing.result()

    def _read_next(self, cases: Iterator[Case], crew: Crew) -> Later[Passage[R]] | None:
        case = next(cases, None)
        if case is None:
            return None
        passage = self.passage(case)

        def read() -> Passage[R]:
            passage.begin_early()
            return passage

        return crew.begin(read)
