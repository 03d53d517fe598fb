"""What a stage may tell the user: lines and progress.

The command line shows them, a library user may not care.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Console(Protocol):
    """Where messages and progress go."""

    def say(self, line: str) -> None:
        """Show a line."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """Pass `items` through, showing how far they are."""


class Quiet:
    """A console that shows nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Pass `items` through."""
        return iter(items)
