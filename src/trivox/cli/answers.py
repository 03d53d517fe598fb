"""Answers for programs: with `--json` standard output holds one JSON document and
nothing else; progress, warnings and remarks go to standard error.
"""

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from itertools import takewhile
from typing import Annotated, Any

import typer

from trivox.cli.failures import kind_of, message_of
from trivox.cli.runtime import is_first_rank
from trivox.cli.terminal import for_people
from trivox.errors import InterruptedTrainingError

FLAG = "--json"
AsJson = Annotated[
    bool,
    typer.Option(
        FLAG, help="print the answer as one JSON document; remarks go to standard error"
    ),
]
ASKED = "trivox.json"
VERB = "trivox.verb"
NO_ANSWER = (typer.Exit, typer.Abort, InterruptedTrainingError)
"""What ends a command without an answer: help, and Ctrl-C."""

Command = Callable[..., Any]
Meta = MutableMapping[str, Any]
"""What the commands of one call know of each other."""


def is_asked(arguments: Iterable[str]) -> bool:
    """Whether a command line asks for JSON."""
    return FLAG in takewhile(lambda argument: argument != "--", arguments)


def answers(verb: str) -> Callable[[Command], Command]:
    """Give a command the option `--json`: what it returns is its answer, see
    `trivox.verbs.answers`.
    """

    def with_option(function: Command) -> Command:
        parameters = inspect.signature(function).parameters

        @wraps(function)
        def command(context: typer.Context, as_json: bool, **options: Any) -> Any:
            context.meta[VERB] = verb
            if "context" in parameters:
                options["context"] = context
            if not context.meta.get(ASKED):
                return function(**options)
            with _told_to_a_program():
                return function(**options)

        _declare(command, parameters.values())
        return command

    return with_option


@contextmanager
def _told_to_a_program() -> Iterator[None]:
    """Around a command: its answer is for a program, remarks go to standard error."""
    before = for_people.set(False)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for_people.reset(before)


def _declare(command: Any, parameters: Iterable[inspect.Parameter]) -> None:
    """Let a command have the parameters of another one, the context and `--json`."""
    named = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", named, annotation=typer.Context)
    flag = inspect.Parameter("as_json", named, default=False, annotation=AsJson)
    all_of_them = {each.name: each.replace(kind=named) for each in parameters}
    all_of_them |= {"context": context, "as_json": flag}
    command.__signature__ = inspect.Signature(list(all_of_them.values()))
    command.__annotations__ = {
        name: each.annotation for name, each in all_of_them.items()
    }


def print_answer(meta: Meta, result: object) -> None:
    """Print what a command has answered, where JSON is asked for."""
    if meta[ASKED] and VERB in meta:
        _print(meta[VERB], result, None)


@contextmanager
def failures_answered(meta: Meta) -> Iterator[None]:
    """Where JSON is asked for, print why a command ends without what was wanted."""
    try:
        yield
    except NO_ANSWER:
        raise
    except Exception as error:
        if meta[ASKED]:
            _print(meta.get(VERB), getattr(error, "result", None), error)
        raise


def _print(verb: str | None, result: object, error: Exception | None) -> None:
    """Print a document: ASCII alone, which every terminal and every pipe takes."""
    # slow to import, and most calls are of people
    from trivox.verbs.answers.documents import document

    if not is_first_rank():
        return
    failure = None
    if error is not None:
        failure = {"kind": kind_of(error), "message": message_of(error)}
    content = document(verb, result, failure)
    print(json.dumps(content, indent=2, allow_nan=False), flush=True)
