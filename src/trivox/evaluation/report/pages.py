"""Templates of pages that need nothing else: no network, no other file."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

MISSING = "–"


def page_environment() -> "Environment":
    """Jinja2 with the templates of this folder; all text is escaped, unknown names are
    errors.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, data_uri=_data_uri, compact=_compact, script_json=_script_json
    )
    return environment


def number(value: Any, digits: int = 3) -> str:
    """A number with a proper minus sign; a dash for what is not known."""
    if not isinstance(value, int | float) or value != value:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.removeprefix("-")


def _compact(value: Any) -> str:
    """A setting on one line: text as it is, anything else as JSON; floats with six
    digits.
    """
    if value is None or isinstance(value, str):
        return value or MISSING
    return json.dumps(_rounded(value), ensure_ascii=False, default=str)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return (
        [_rounded(item) for item in value]
        if isinstance(value, Iterable) and not isinstance(value, str)
        else value
    )


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _script_json(value: Any) -> Any:
    """JSON for a script element: no `<` that could end it."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
