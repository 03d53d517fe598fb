"""What pages are made of: parts, and templates that need nothing else: no network, no
other file.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trivox.evaluation.metrics.claims import SMALLEST
from trivox.evaluation.metrics.statistics import methods_of
from trivox.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

MISSING = "–"

Metrics = Mapping[str, Any]
"""The content of metrics.json."""


class Column(NamedTuple):
    """How a metric is shown."""

    metric: str
    heading: str
    unit: str = ""
    digits: int = 3


@dataclass(frozen=True, eq=False)
class Headline:
    """A main number of a report with its 95 % interval, if it has one, and how that was
    found.
    """

    heading: str
    mean: float
    ci95: Sequence[float] | None
    method: str
    unit: str = ""
    digits: int = 3


@dataclass(frozen=True, eq=False)
class Curves:
    """A chart of the training by epoch: PNG, what it shows, and a caption."""

    image: bytes
    shows: str
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Part:
    """What a report shows of a metrics.json; a task chooses the parts of its report.

    body: HTML of tables and figures, before the pictures of cases; details: HTML of
    what is long, after them. cases: how many were measured. convention: name -> what a
    number means.
    """

    body: str = ""
    details: str = ""
    headlines: Sequence[Headline] = ()
    training: Sequence[Curves] = ()
    cases: int = 0
    warnings: Sequence[str] = ()
    convention: Mapping[str, Any] = field(default_factory=dict)


@cache
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
        number=number,
        chance=_chance,
        method=_method,
        interval=_interval,
        data_uri=_data_uri,
        compact=_compact,
        script_json=_script_json,
    )
    return environment


def rendered(template: str, **content: Any) -> str:
    """HTML from a template of this folder; other templates take it as it is."""
    from markupsafe import Markup

    return Markup(
        page_environment().get_template(template).render(version=__version__, **content)
    )


def headlines_of(
    columns: Iterable[Column], statistics: Mapping[str, Any]
) -> list[Headline]:
    """A headline for each column whose mean over cases is known."""
    headlines = []
    for metric, heading, unit, digits in columns:
        row = statistics.get(metric) or {}
        if row.get("mean") is not None:
            text = f"Mean {heading}"
            method = methods_text([row])
            headlines.append(
                Headline(text, row["mean"], row["ci95"], method, unit, digits)
            )
    return headlines


def methods_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The methods of the intervals of statistics or scores, as a reader wants them."""
    return "; ".join(methods_of(rows))


def titled(title: str, convention: Mapping[str, Any] | None) -> dict[str, object]:
    """The convention of a section of metrics.json, with its title before each name."""
    return {f"{title}: {name}": text for name, text in (convention or {}).items()}


def number(value: Any, digits: int = 3) -> str:
    """A number with a proper minus sign; a dash for what is not known."""
    if not isinstance(value, int | float) or value != value:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.removeprefix("-")


def _interval(edges: Sequence[float], digits: int = 3) -> str:
    low, high = edges
    return f"{number(low, digits)} to {number(high, digits)}"


def _method(row: Mapping[str, Any]) -> str:
    return methods_text([row])


def _chance(value: Any) -> str:
    """A probability that is never shown as 0."""
    if isinstance(value, int | float) and value < SMALLEST:
        return f"< {SMALLEST}"
    return number(value, 4)


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
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _script_json(value: Any) -> Any:
    """JSON for a script element: no `<` that could end it."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
