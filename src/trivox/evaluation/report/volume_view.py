"""What the report and the terminal show of the metrics.json of a reconstruction."""

from collections.abc import Mapping
from typing import Any

from trivox.evaluation.folders.volume_summary import (
    COMPARED,
    CONSISTENT,
    NETWORK,
    TARGET,
)
from trivox.evaluation.metrics.volumes import NOTICE
from trivox.evaluation.report.pages import number
from trivox.evaluation.report.volume_figures import ladder_chart

COLUMNS: tuple[tuple[str, str, str, int], ...] = (  # metric, heading, unit, digits
    ("psnr_db", "PSNR", "dB", 2),
    ("ssim", "SSIM", "", 3),
    ("mae_hu", "MAE", "HU", 1),
    ("mae_body_hu", "MAE in the body", "HU", 1),
    ("lung_dice", "Dice of lungs", "", 3),
    ("bone_dice", "Dice of bone", "", 3),
    ("projection_rmse", "Projection RMSE", "", 3),
    ("psnr_ceiling_db", "Ceiling of the grid", "dB", 2),
    ("psnr_slice4095_x2ct_db", "Literature's PSNR", "dB", 2),
)
HEADLINES = COLUMNS[:3]
IN_LADDER = ("psnr_db", "ssim", "mae_hu", "mae_body_hu", "projection_rmse")
OURS = (NETWORK, CONSISTENT)

Metrics = Mapping[str, Any]


def is_reconstruction_metrics(metrics: Metrics) -> bool:
    """Whether a metrics.json is about synthetic CTs."""
    return metrics.get("notice") == NOTICE


def reconstruction_headline(metrics: Metrics) -> str:
    """One line with the mean PSNR, SSIM and MAE, their 95 % intervals and the window."""
    summary, cases = metrics["summary"][TARGET], len(metrics["cases"])
    parts = []
    for metric, heading, unit, digits in HEADLINES:
        found = summary[metric]
        edges = [number(edge, digits) for edge in found["ci95"] or ()]
        told = f"{heading} {number(found['mean'], digits)}" + (
            f" {unit}" if unit else ""
        )
        parts.append(told + (f" [{', '.join(edges)}]" if edges else ""))
    return f"{', '.join(parts)} (95 % CI over {cases} cases; window {metrics['convention']['window'].split(';')[0]})"


def reconstruction_view(metrics: Metrics) -> dict[str, Any] | None:
    """Tables and chart for the template `reconstruction_part.html.j2`; None for other
    metrics.
    """
    if not is_reconstruction_metrics(metrics):
        return None
    summary = metrics["summary"][TARGET]
    columns = [
        column
        for column in COLUMNS
        if (summary.get(column[0]) or {}).get("mean") is not None
    ]
    ladder, by_views = metrics.get("ladder"), metrics.get("by_views") or []
    return {
        "notice": NOTICE,
        "headlines": [
            {
                "heading": f"Mean {heading}",
                "unit": unit,
                "digits": digits,
                **summary[metric],
            }
            for metric, heading, unit, digits in HEADLINES
            if summary[metric]["mean"] is not None
        ],
        "columns": columns,
        "summary": summary,
        "ladder": _table(ladder) if ladder else None,
        "by_views": _by_views(by_views),
        "chart": ladder_chart(by_views or ([ladder] if ladder else []), ours=OURS),
        "cases": _cases(metrics),
    }


def _table(section: Metrics) -> dict[str, Any]:
    """The rows of a ladder with what the network gained on each."""
    rows = [
        {
            "name": row["name"],
            "ours": row["name"] in OURS,
            "summary": row["summary"],
            "gained": (row.get("paired") or {}).get(COMPARED),
        }
        for row in section["rows"]
    ]
    measured = {
        metric
        for row in rows
        for metric, found in row["summary"].items()
        if found["mean"] is not None
    }
    columns = [
        column for column in COLUMNS if column[0] in measured and column[0] in IN_LADDER
    ]
    return {"views": section["views"], "rows": rows, "columns": columns}


def _by_views(sections: list[Metrics]) -> dict[str, Any] | None:
    """PSNR of each method (rows) with each number of views (columns)."""
    if not sections:
        return None
    names = list(
        dict.fromkeys(row["name"] for section in sections for row in section["rows"])
    )
    scores = [
        {row["name"]: row["summary"][COMPARED] for row in section["rows"]}
        for section in sections
    ]
    return {
        "views": [section["views"] for section in sections],
        "rows": [
            {
                "name": name,
                "ours": name in OURS,
                "scores": [found.get(name, {}) for found in scores],
            }
            for name in names
        ],
    }


def _cases(metrics: Metrics) -> list[dict[str, Any]]:
    """One row a case, the lowest PSNR first."""
    rows = [
        {"case": name, "values": targets[TARGET]}
        for name, targets in metrics["cases"].items()
    ]
    return sorted(rows, key=lambda row: row["values"]["psnr_db"])
