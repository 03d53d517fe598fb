"""What the JSON files hold: frozen models, and the one line said of a file that does
not fit its model.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    JsonValue,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from trivox.errors import TrivoxError
from trivox.files import read_json

M = TypeVar("M", bound=BaseModel)

FORMAT_VERSION = 1
"""Of JSON files that state no other."""

STAMP = ("task", "format_version")
"""What JSON files of ours say of themselves."""

JsonObject = dict[str, JsonValue]
"""A JSON object whose fields are not known here."""


LARGEST = 2**63 - 1
"""Whole number that arrays and generators of random numbers still take."""


def stamped(content: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    """The content of a JSON file of ours: what it is about, and how it is written."""
    return {"task": task, "format_version": FORMAT_VERSION, **content}


def unstamped(content: Any) -> dict[str, Any]:
    """The content without what `stamped` says of it; raises `ValueError` for another
    version, and for what is no object. Older files say neither.
    """
    if not isinstance(content, Mapping):
        raise ValueError("no object with named fields")
    version = content.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format {version} is not {FORMAT_VERSION}; use the trivox version that "
            "wrote it"
        )
    return {name: content[name] for name in content if name not in STAMP}


class DescribedAs:
    """What JSON Schemas say of a field whose own type says less.

    kind: a type that all its values have.
    """

    def __init__(self, kind: Any) -> None:
        """Keep the type."""
        self.kind = kind

    def __get_pydantic_json_schema__(
        self, schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of that type."""
        return handler(TypeAdapter(self.kind).core_schema)


class Frozen(BaseModel):
    """Data that never change once they are made; fields without a name are refused, and
    so are NaN, infinity and whole numbers beyond 64 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _within_64_bits(cls, content: Any) -> Any:
        place = beyond_64_bits(content)
        if place is not None:
            raise ValueError(f"{place} is a whole number beyond 64 bits")
        return content


def beyond_64_bits(content: Any, kind: type[int] | type[float] = int) -> str | None:
    """Where in dicts and lists the first number of a kind stands that is too large; None
    if all are within what 64 bits hold as whole numbers. Infinity is for others.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, kind) and LARGEST < abs(value) < math.inf:
            return place
        parts: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            parts = value.items()
        elif isinstance(value, list | tuple):
            parts = enumerate(value)
        waiting += [(f"{place}.{name}".lstrip("."), part) for name, part in parts]
    return None


class Grown(Frozen):
    """Data with fields that older versions do not know: they are written only where
    they say something, so that those versions still read the rest.
    """

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        for name in self.later:
            if getattr(self, name) == type(self).model_fields[name].default:
                content.pop(name, None)
        return content


def validated(
    model: type[M],
    content: Any,
    *,
    where: Path | str,
    error: type[TrivoxError],
    advice: str,
) -> M:
    """`content` as a model; raises `error` in one line: `where`, the first field that
    is wrong, what is wrong with it, and what to do.
    """
    try:
        return model.model_validate(content)
    except ValidationError as invalid:
        raise error(f"{where}: {first_complaint(invalid)}; {advice}") from invalid


def read_stamped(
    model: type[M], file: Path, *, error: type[TrivoxError], advice: str
) -> M:
    """What a JSON file of ours says beside its task and version; raises `error` in one
    line that names the file, and `FormatError` for one that cannot be read.
    """
    try:
        content = unstamped(read_json(file))
    except ValueError as wrong:
        raise error(f"{file}: {wrong}; {advice}") from wrong
    return validated(model, content, where=file, error=error, advice=advice)


KINDS = {"bool", "int", "float", "str", "constrained-int", "constrained-float"}
"""How pydantic calls kinds of values, beside those of which it lists the values."""


def first_complaint(
    invalid: ValidationError, *, whole: str = "", parts: int | None = None
) -> str:
    """The first thing that pydantic found wrong: `field.part: message`.

    whole: what to call the content itself where no field is to blame; parts: of the
    field's name to show at most.
    """
    errors = invalid.errors()
    place = _without_kind(errors[0]["loc"])
    field = ".".join(str(part) for part in place[:parts]) or whole
    # each kind of value that a field may have complains for itself
    alike = [error for error in errors if _without_kind(error["loc"]) == place]
    message = ", or ".join(
        error["msg"].removeprefix("Value error, ") for error in alike
    )
    return f"{field}: {message}" if field else message


def _without_kind(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a wrong value stands, without which of several kinds was tried there."""
    last = str(place[-1]) if place else ""
    kind = last in KINDS or last.startswith("literal[")
    return place[:-1] if kind else place
