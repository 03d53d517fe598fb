"""What the JSON files hold: frozen models, and the one line said of a file that does
not fit its model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from trivox.errors import TrivoxError

M = TypeVar("M", bound=BaseModel)

JsonObject = dict[str, JsonValue]
"""A JSON object whose fields are not known here."""


class Frozen(BaseModel):
    """Data that never change once they are made; fields without a name are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


def first_complaint(invalid: ValidationError, *, whole: str = "") -> str:
    """The first thing that pydantic found wrong: `field.part: message`.

    whole: what to call the content itself where no field is to blame.
    """
    first: Mapping[str, Any] = invalid.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
