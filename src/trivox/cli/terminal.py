"""Lines and progress for people."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from trivox.errors import visible
from trivox.repeating import repeating

T = TypeVar("T")

SECONDS = 30.0
"""Longest silence of long work where there is no terminal to draw a bar on."""


for_people: ContextVar[bool] = ContextVar("for_people", default=True)
"""Whether people read the answer, not a program."""


def remark(line: str) -> None:
    """Print a line; what names in it would make a terminal do is shown instead."""
    print(visible(line), flush=True)


def say(line: str) -> None:
    """Print a line of an answer, unless a program gets it."""
    if for_people.get():
        remark(line)


class Terminal:
    """A bar with the time left on a terminal; elsewhere (a notebook, nohup, CI) a line
    at least every 30 seconds.
    """

    def say(self, line: str) -> None:
        """Print a line."""
        remark(line)

    def track(
        self,
        items: Iterable[T],
        total: int,
        what: str,
        note: Callable[[], str] | None = None,
    ) -> Iterator[T]:
        """Show how far `items` are, and what else is known."""
        if total == 0:
            yield from items
        elif sys.stderr.isatty():
            yield from _with_bar(items, total, what)
        else:
            yield from _with_lines(items, Work(what, total, note))


def _with_bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=what)


@dataclass
class Work:
    """Long work, and how far it is.

    note: what else is known at a moment.
    """

    what: str
    total: int
    note: Callable[[], str] | None = None
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def line(self, seconds: float) -> str:
        """How far the work is after `seconds`, and how long it takes at this speed."""
        parts = [f"{self.what}: {self.done} of {self.total}"]
        if self.note is not None:
            parts.append(self.note())
        if self.done:
            minutes = seconds / self.done * (self.total - self.done) / 60
            left = f"about {minutes:.0f} min left" if minutes >= 1 else "nearly done"
            parts.append(left)
        return ", ".join(part for part in parts if part)


def _with_lines(items: Iterable[T], work: Work) -> Iterator[T]:
    with _speaking(work):
        for item in items:
            yield item
            work.done += 1


@contextmanager
def _speaking(work: Work) -> Iterator[None]:
    """Print a line from time to time, however long a single item takes."""

    def speak() -> None:
        remark(work.line(time.monotonic() - work.began))

    with repeating(speak, every=SECONDS, thread_name="trivox-progress"):
        yield
