"""What the JSON files hold: frozen models, and the one line said of a file that does
not fit its model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from trivox.errors import TrivoxError

M = TypeVar("M", bound=BaseModel)

FORMAT_VERSION = 1
"""Of JSON files that state no other."""

STAMP = ("task", "format_version")
"""What JSON files of ours say of themselves."""

JsonObject = dict[str, JsonValue]
"""A JSON object whose fields are not known here."""


def stamped(content: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    """The content of a JSON file of ours: what it is about, and how it is written."""
    return {"task": task, "format_version": FORMAT_VERSION, **content}


def unstamped(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content without what `stamped` says of it; raises `ValueError` for another
    version. Older files say neither.
    """
    version = content.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format {version} is not {FORMAT_VERSION}; use the trivox version that "
            "wrote it"
        )
    return {name: content[name] for name in content if name not in STAMP}


class Frozen(BaseModel):
    """Data that never change once they are made; fields without a name are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
