"""What the report and the terminal show of volumes from X-rays in metrics.json."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

from trivox.evaluation.folders.volume_summary import (
    COMPARED,
    OF_NETWORK,
    TARGET,
)
from trivox.evaluation.metrics.volumes import NOTICE
from trivox.evaluation.report.charts import Records, volume_curves
from trivox.evaluation.report.pages import (
    Column,
    Curves,
    Headline,
    Metrics,
    Part,
    headlines_of,
    methods_text,
    number,
    rendered,
)
from trivox.evaluation.report.volume_figures import ladder_chart, method_names

COLUMNS = (
    Column("psnr_db", "PSNR", "dB", 2),
    Column("ssim", "SSIM"),
    Column("mae_hu", "MAE", "HU", 1),
    Column("mae_body_hu", "MAE in the body", "HU", 1),
    Column("lung_dice", "Dice of lungs"),
    Column("bone_dice", "Dice of bone"),
    Column("projection_rmse", "Projection RMSE"),
    Column("psnr_reference_grid_db", "PSNR on the reference's voxels", "dB", 2),
    Column("psnr_ceiling_db", "Its ceiling", "dB", 2),
    Column("psnr_slice4095_x2ct_db", "Literature's PSNR", "dB", 2),
)
HEADLINES = COLUMNS[:3]
IN_LADDER = ("psnr_db", "ssim", "mae_hu", "mae_body_hu", "projection_rmse")


class MethodLine(TypedDict):
    """A method of the ladder; gained: what the network adds to it."""

    name: str
    of_network: bool
    gained: Metrics | None
    summary: Metrics


class LadderTable(TypedDict):
    """The ladder of one number of views."""

    views: int
    rows: list[MethodLine]
    columns: list[Column]


class ViewsLine(TypedDict):
    """What a method scored with each number of views."""

    name: str
    of_network: bool
    scores: list[Metrics]


class ViewsTable(TypedDict):
    """Methods (rows) by numbers of views (columns)."""

    views: list[int]
    rows: list[ViewsLine]


class VolumeLine(TypedDict):
    """A row of the table of cases."""

    case: str
    values: Metrics


def volume_part(metrics: Metrics, records: Records = ()) -> Part:
    """Figures of synthetic CTs, the methods that had to be beaten, and every case;
    records: lines of metrics.jsonl.
    """
    curves = volume_curves(records)
    training = []
    if curves is not None:
        training.append(Curves(curves, "Loss and validation figures by epoch"))
    return Part(
        body=rendered("volume_part.html.j2", volumes=_view(metrics)),
        headlines=_headlines(metrics),
        training=training,
        cases=len(metrics["cases"]),
        warnings=metrics.get("warnings", []),
        convention=metrics.get("convention", {}),
    )


def _headlines(metrics: Metrics) -> list[Headline]:
    """The first figures of the page, with the number of views that they hold for."""
    headlines = headlines_of(HEADLINES, _summary(metrics))
    ladder = metrics.get("ladder")
    if not ladder:
        return headlines
    views = views_of(ladder)
    return [replace(each, heading=f"{each.heading}, {views}") for each in headlines]


def volume_headline(metrics: Metrics) -> str:
    """One line with the mean PSNR, SSIM and MAE, their 95 % intervals and the window."""
    summary = _summary(metrics)
    parts = []
    scores = [summary.get(column.metric) or {} for column in HEADLINES]
    for score, (_, heading, unit, digits) in zip(scores, HEADLINES, strict=True):
        text = f"{heading} {number(score.get('mean'), digits)} {unit}".rstrip()
        if score.get("ci95"):
            low, high = (number(edge, digits) for edge in score["ci95"])
            text += f" [{low}, {high}]"
        parts.append(text)
    cases = len(metrics["cases"])
    window = str(metrics["convention"].get("window", "not known"))
    methods = methods_text(scores) or "none"
    circumstances = (
        f"95 % CI over {cases} cases, {methods}; window {window.split(';')[0]}"
    )
    ladder = metrics.get("ladder")
    views = f"{views_of(ladder)}: " if ladder else ""
    return f"{views}{', '.join(parts)} ({circumstances})"


def views_of(section: Metrics) -> str:
    """The number of views of a ladder, as people say it."""
    views = section["views"]
    return f"{views} view{'' if views == 1 else 's'}"


def _summary(metrics: Metrics) -> Metrics:
    """Statistics of the volumes; empty where the file has none."""
    row: Metrics = metrics["summary"].get(TARGET, {})
    return row


def _view(metrics: Metrics) -> Mapping[str, object]:
    """Tables and chart for the template."""
    summary = _summary(metrics)
    ladder = metrics.get("ladder")
    sections = metrics.get("by_views") or []
    charted = sections or ([ladder] if ladder else [])
    return {
        "notice": NOTICE,
        "columns": [column for column in COLUMNS if _is_known(column.metric, summary)],
        "summary": summary,
        "methods": methods_text(summary.values()),
        "ladder": _table(ladder) if ladder else None,
        "by_views": _by_views(sections) if sections else None,
        "chart": ladder_chart(charted, of_network=OF_NETWORK),
        "cases": _case_rows(metrics),
    }


def _table(section: Metrics) -> LadderTable:
    """The rows of a ladder with what the network gained on each."""
    rows: list[MethodLine] = []
    measured: set[str] = set()
    for row in section["rows"]:
        line: MethodLine = {
            "name": row["name"],
            "of_network": row["name"] in OF_NETWORK,
            "gained": (row.get("paired") or {}).get(COMPARED),
            "summary": row["summary"],
        }
        rows.append(line)
        measured.update(m for m in IN_LADDER if _is_known(m, row["summary"]))
    columns = [column for column in COLUMNS if column.metric in measured]
    return {"views": section["views"], "rows": rows, "columns": columns}


def _is_known(metric: str, summary: Metrics) -> bool:
    return (summary.get(metric) or {}).get("mean") is not None


def _by_views(sections: Sequence[Metrics]) -> ViewsTable:
    """PSNR of each method (rows) with each number of views (columns)."""
    rows: list[ViewsLine] = []
    for name in method_names(sections):
        scores = [_score_of(name, section) for section in sections]
        rows.append({"name": name, "of_network": name in OF_NETWORK, "scores": scores})
    return {"views": [section["views"] for section in sections], "rows": rows}


def _score_of(name: str, section: Metrics) -> Metrics:
    """What a method scored in a ladder; empty where it was not measured."""
    for row in section["rows"]:
        if row["name"] == name:
            score: Metrics = row["summary"].get(COMPARED, {})
            return score
    return {}


def _case_rows(metrics: Metrics) -> list[VolumeLine]:
    """One row a case, the lowest PSNR first."""
    rows: list[VolumeLine] = [
        {"case": name, "values": targets.get(TARGET, {})}
        for name, targets in metrics["cases"].items()
    ]
    return sorted(rows, key=_psnr_or_last)


def _psnr_or_last(row: VolumeLine) -> float:
    psnr = row["values"].get(HEADLINES[0].metric)
    return float("inf") if psnr is None else float(psnr)
