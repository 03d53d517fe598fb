"""What all answers have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import to_jsonable_python

from trivox.files import plain_json


def _absolute(path: Path) -> str:
    return str(path.absolute())


Place = Annotated[
    Path,
    PlainSerializer(_absolute, return_type=str),
    Field(description="an absolute path"),
]
Count = Annotated[int, Field(ge=0)]
Counted = Annotated[int, Field(ge=0), BeforeValidator(len)]
"""How many there are of what has the name."""


def reasons_of(name: str) -> BeforeValidator:
    """Of reasons by what they are of: as rows that call it `name`, and `reason`."""

    def rows(reasons: Mapping[Any, str]) -> list[dict[str, Any]]:
        return [{name: key, "reason": reason} for key, reason in reasons.items()]

    return BeforeValidator(rows)


def _passed_on(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return value


AS_WRITTEN = WrapValidator(_passed_on)
"""Of content that trivox made and wrote: it is passed on as it is."""


class Part(BaseModel):
    """Part of an answer; it is filled from what has attributes of the same names."""

    model_config = ConfigDict(
        frozen=True,
        from_attributes=True,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class Failure(Part):
    """Why a verb ended with another exit code than 0."""

    kind: str
    """Stable name: `usage` for options that do not go together, `internal` for what should
    not happen, else of the class of the error.
    """
    message: str
    """What is wrong, where, and what to do: the line on standard error."""


class Answer(Part):
    """What a verb answers."""

    task: str | None = None
    """What it is about; null where that is not known, or of no task."""
    format_version: Literal[1] = 1
    verb: str | None = None
    """The command; null where none was understood."""
    error: Failure | None = None
    """Null on success. A verb that fails after it has done something says both."""


class ErrorAnswer(Answer):
    """What a command answers of which nothing came. Where it did something nevertheless,
    its own answer says so beside `error`.
    """

    error: Failure


def content_of(answer: BaseModel) -> Any:
    """An answer as JSON: NaN is null, numbers of numpy are numbers."""
    return plain_json(to_jsonable_python(answer, fallback=_listed))


def _listed(value: Any) -> Any:
    """Arrays and numbers of numpy as those of Python, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
