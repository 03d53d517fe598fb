"""The report: one HTML file that needs nothing else, to read, print, mail and archive."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trivox.evaluation.report.pages import Part, rendered
from trivox.evaluation.report.viewer import SurfaceScene
from trivox.files import write_text

T = TypeVar("T")


class CostLine(Protocol):
    """One quantity that training took; ratio: measured / forecast."""

    @property
    def what(self) -> str:
        """Its name."""

    @property
    def forecast(self) -> str:
        """What was expected."""

    @property
    def measured(self) -> str:
        """What it was."""

    @property
    def ratio(self) -> float | None:
        """None where only one of them is known."""


@dataclass(frozen=True, eq=False)
class CasePictures:
    """What is shown of a case. figures: (caption, PNG).

    page: file of its surfaces in 3-D, relative to the report.
    """

    title: str
    figures: Sequence[tuple[str, bytes]] = field(default_factory=list)
    page: str | None = None


def write_report(
    out: Path,
    *,
    title: str,
    parts: Sequence[Part],
    plan: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    pictures: Sequence[CasePictures] = (),
    surfaces: tuple[str, SurfaceScene] | None = None,
    warnings: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    costs: Sequence[CostLine] = (),
    cost_notes: Sequence[str] = (),
) -> None:
    """Write the report to `out` atomically.

    parts: what is shown of metrics.json, in this order (`label_part`, `class_part`,
    `trust_part`, `volume_part`). plan, recipe: content of their JSON files. pictures:
    cases, in the order shown. surfaces: caption and scene of the one case that can be
    turned on the page itself. warnings: before those of the parts. facts: name ->
    value, shown at the top (device, training time...). costs: what training took beside
    what was forecast, and how that is known. All text is escaped; the page
    loads nothing from anywhere.
    """
    convention = _chained(part.convention.items() for part in parts)
    page = rendered(
        "report.html.j2",
        title=title,
        parts=parts,
        headlines=_chained(part.headlines for part in parts),
        case_count=next((part.cases for part in parts if part.cases), 0),
        training=_chained(part.training for part in parts),
        warnings=list(dict.fromkeys(chain(warnings, *(p.warnings for p in parts)))),
        convention=dict(convention),
        facts=facts or {},
        pictures=pictures,
        surfaces=surfaces,
        plan=_plan_rows(plan or {}),
        recipe=dict(recipe or {}),
        costs=costs,
        forecast=any(line.forecast for line in costs),
        cost_notes=cost_notes,
    )
    write_text(out, page)


def _chained(groups: Iterable[Iterable[T]]) -> list[T]:
    return list(chain.from_iterable(groups))


def _plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Name, value and reason of each decision: those with a reason first; reasons for
    no single field at the end.
    """
    reasons = dict(plan.get("reasons") or {})
    rows = []
    for name, value in plan.items():
        if name != "reasons":
            rows.append((name, value, str(reasons.pop(name, ""))))
    rows.sort(key=lambda row: not row[2])
    return rows + [(name, None, str(reason)) for name, reason in reasons.items()]
