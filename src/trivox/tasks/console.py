"""What a stage may tell the user: lines and progress.

The command line shows them, a library user may not care.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Console(Protocol):
    """Where messages and progress go."""

    def say(self, line: str) -> None:
        """Show a line."""

    def track(
        self,
        items: Iterable[T],
        total: int,
        what: str,
        note: Callable[[], str] | None = None,
    ) -> Iterable[T]:
        """Pass `items` through, showing how far they are.

        note: what else is known at a moment, the loss for example.
        """


class Quiet:
    """A console that shows nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def track(
        self,
        items: Iterable[T],
        total: int,
        what: str,
        note: Callable[[], str] | None = None,
    ) -> Iterator[T]:
        """Pass `items` through."""
        return iter(items)


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Show that work goes on of which nobody knows how far it is."""
    steps = iter(console.track((what,), 1, what))
    next(steps, None)
    try:
        yield
        next(steps, None)
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
