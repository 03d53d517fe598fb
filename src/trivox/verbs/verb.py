"""What makes a function a verb: its docstring says what the options mean, and options
that are chosen from a list are refused if they are not in it.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from textwrap import fill
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from trivox.errors import UsageError
from trivox.verbs.texts import text

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """A function as users call it; raises `UsageError` for an option that is none of
    its choices.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        given = signature.bind(*args, **options).arguments
        for name, value in given.items():
            require_choice(name, value, signature.parameters[name].annotation)
        return function(*args, **options)

    lines = [inspect.cleandoc(function.__doc__ or ""), "", "Options:"]
    lines += [_line(function.__name__, name) for name in signature.parameters]
    checked.__doc__ = "\n".join(lines)
    return checked


def require_choice(option: str, value: Any, annotation: Any) -> None:
    """Raise `UsageError` if a value, or one of several, is not among the choices that
    an annotation lists.
    """
    choices = choices_in(annotation)
    several = isinstance(value, Sequence) and not isinstance(value, str)
    for each in value if several else [value]:
        if choices and each is not None and each not in choices:
            raise UsageError(
                f"{option} '{each}' does not exist; choose one of {', '.join(choices)}"
            )


def choices_in(annotation: Any) -> list[str]:
    """What a `Literal` in an annotation lists; nothing where there is none."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    choices = []
    for part in get_args(annotation):
        choices += choices_in(part)
    return choices


def _line(name: str, option: str) -> str:
    meaning = f"{option}: {text(name, option)}"
    return fill(meaning, 88, initial_indent="  ", subsequent_indent="      ")
