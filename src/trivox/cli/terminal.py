"""Lines and progress for people."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SECONDS = 30.0
"""Longest silence of long work where there is no terminal to draw a bar on."""


class Terminal:
    """A bar with the time left on a terminal; elsewhere (a notebook, nohup, CI) a line
    at least every 30 seconds.
    """

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

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
            yield from _with_lines(items, total, what, note)


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


def _with_lines(
    items: Iterable[T], total: int, what: str, note: Callable[[], str] | None
) -> Iterator[T]:
    began = time.monotonic()
    said = began
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= SECONDS:
            said = now
            print(progress_line(what, done, total, now - began, note), flush=True)
        yield item


def progress_line(
    what: str,
    done: int,
    total: int,
    seconds: float,
    note: Callable[[], str] | None = None,
) -> str:
    """How far work is after `seconds`, and how long it will take at this speed."""
    known = f", {note()}" if note is not None else ""
    left = ""
    if done:
        minutes = seconds / done * (total - done) / 60
        left = f", about {minutes:.0f} min left" if minutes >= 1 else ", nearly done"
    return f"{what}: {done} of {total}{known}{left}"
