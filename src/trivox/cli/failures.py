"""Errors as people and programs are told of them."""

from trivox.errors import ResourceError, TrivoxError, UsageError, visible

INTERNAL = "internal"
"""What should not happen."""


def kind_of(error: BaseException) -> str:
    """Stable name of a kind of error."""
    if isinstance(error, TrivoxError):
        return error.kind
    if hasattr(error, "format_message"):  # of typer: wrong usage
        return UsageError.kind
    known = isinstance(error, OSError | MemoryError)
    return ResourceError.kind if known else INTERNAL


def message_of(error: BaseException) -> str:
    """What is wrong, where, and what to do, in one line that a terminal shows."""
    return visible(" ".join(_text(error).split()))


def _text(error: BaseException) -> str:
    if isinstance(error, TrivoxError):
        return str(error)
    if hasattr(error, "format_message"):
        return str(error.format_message())
    if isinstance(error, OSError | MemoryError):
        return f"{error or 'out of memory'}; run again with --debug for details"
    return f"{type(error).__name__}: {error}"
