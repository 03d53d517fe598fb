"""What the JSON files hold: frozen models, and the one line said of a file that does
not fit its model.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    ValidationError,
    model_validator,
)

from trivox.errors import TrivoxError

M = TypeVar("M", bound=BaseModel)

JsonObject = dict[str, JsonValue]
"""A JSON object whose fields are not known here."""


LARGEST = 2**63 - 1
"""Whole number that arrays and generators of random numbers still take."""


class Frozen(BaseModel):
    """Data that never change once they are made; fields without a name are refused, and
    so are NaN, infinity and whole numbers beyond 64 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _within_64_bits(cls, content: Any) -> Any:
        place = _beyond_64_bits(content)
        if place is not None:
            raise ValueError(f"{place} is a whole number beyond 64 bits")
        return content


def _beyond_64_bits(content: Any) -> str | None:
    """Where in dicts and lists the first whole number stands that is too large; None if
    all are within 64 bits.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, int) and abs(value) > LARGEST:
            return place
        parts: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            parts = value.items()
        elif isinstance(value, list | tuple):
            parts = enumerate(value)
        waiting += [(f"{place}.{name}".lstrip("."), part) for name, part in parts]
    return None


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


def first_complaint(
    invalid: ValidationError, *, whole: str = "", parts: int | None = None
) -> str:
    """The first thing that pydantic found wrong: `field.part: message`.

    whole: what to call the content itself where no field is to blame; parts: of the
    field's name to show at most.
    """
    first: Mapping[str, Any] = invalid.errors()[0]
    field = ".".join(str(part) for part in first["loc"][:parts]) or whole
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
