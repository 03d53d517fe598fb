"""The exception tree.

Every message says what is wrong, where, and what to do. The command line prints it on
one line and exits with 1.

    TrivoxError
    ├── DataError            something about the user's data
    │   ├── FormatError      a file that cannot be read (missing, corrupt, too large)
    │   ├── GeometryError    images and labels that do not lie on one grid
    │   └── LabelError       label values that are not what the dataset declares
    ├── PlanError            a plan that cannot be made or does not fit the data
    ├── RecipeError          settings that do not exist or contradict each other
    ├── UsageError           options that do not go together or do not apply
    ├── BundleError          a run or bundle that is incomplete or was altered
    ├── TrustError           a file of a kind that can carry code, not declared trusted
    ├── ResourceError        memory, disk or an optional package is missing
    ├── BusyError            another process writes there
    ├── DivergedTrainingError  a training that learns nothing any more
    └── InterruptedTrainingError  work was asked to stop and has saved its state
"""

import unicodedata
from collections.abc import Iterable
from typing import ClassVar, Self

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Kinds of characters that a terminal obeys, or that cannot be seen (Unicode)."""


def few(names: Iterable[str], *, separator: str = ", ", shown: int = 5) -> str:
    """The first names of a list for a message, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return separator.join(listed[:shown]) + more


def of_case(name: str, reason: str) -> str:
    """`reason` with the name of the case in front, once."""
    return reason if reason.startswith(f"{name}: ") else f"{name}: {reason}"


def visible(text: str) -> str:
    """Text as one line that a terminal shows and does not obey: control characters,
    those that turn the direction of writing and halves of characters are written as
    `\\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if unicodedata.category(character) in HIDDEN:
        return character.encode("unicode_escape").decode()
    return character


class TrivoxError(Exception):
    """Base of every error that trivox raises on purpose.

    kind: what programs are told that it is, the same in every version; result: what a
    verb has done nevertheless, None where nothing came of it.
    """

    kind: ClassVar[str] = "error"
    result: object = None

    def with_result(self, result: object) -> Self:
        """The same error, with what was done nevertheless."""
        self.result = result
        return self


class DataError(TrivoxError):
    """The user's data cannot be used as they are."""

    kind = "data"


class FormatError(DataError):
    """A file is missing, corrupt, of an unknown format, or larger than the limit."""

    kind = "format"


class GeometryError(DataError):
    """Two volumes that must share a grid do not, or a grid is impossible."""

    kind = "geometry"


class LabelError(DataError):
    """A label map holds values that the dataset does not declare, or no whole numbers."""

    kind = "label"


class PlanError(TrivoxError):
    """A plan cannot be made, or does not fit the data that it is used on."""

    kind = "plan"


class RecipeError(TrivoxError):
    """A setting does not exist, has a wrong type, or contradicts another one."""

    kind = "recipe"


class BundleError(TrivoxError):
    """A run or bundle is incomplete, was altered, or has an unknown format version."""

    kind = "bundle"


class TrustError(TrivoxError):
    """A file of a kind that can carry code was not declared trusted."""

    kind = "trust"


class ResourceError(TrivoxError):
    """Memory, disk space or an optional package is missing."""

    kind = "resource"


class BusyError(TrivoxError):
    """Another process writes what was to be written."""

    kind = "busy"


class DivergedTrainingError(TrivoxError):
    """A loss or weights are no numbers any more, or the loss stays far above its start;
    no model comes of it.
    """

    kind = "diverged"


class InterruptedTrainingError(TrivoxError):
    """Work was asked to stop (Ctrl-C or SIGTERM) and has saved its state."""

    kind = "interrupted"


class UsageError(TrivoxError):
    """Options that contradict each other or do not apply; the command line exits with
    2.
    """

    kind = "usage"
