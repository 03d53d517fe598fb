"""The report: one HTML file that needs nothing else, to read, print, mail and archive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivox.evaluation.folders.labels import mean_row
from trivox.evaluation.report.charts import (
    box_plots,
    reliability_chart,
    training_curves,
)
from trivox.evaluation.report.class_figures import class_curves
from trivox.evaluation.report.class_view import class_headlines, class_view
from trivox.evaluation.report.pages import number, page_environment
from trivox.evaluation.report.viewer import Scene
from trivox.evaluation.report.volume_figures import reconstruction_curves
from trivox.evaluation.report.volume_view import reconstruction_view
from trivox.files import write_text

COLUMNS: tuple[tuple[str, str, str, int], ...] = (  # metric, heading, unit, digits
    ("dice", "Dice", "", 3),
    ("hd95_mm", "HD95", "mm", 2),
    ("nsd", "NSD", "", 3),
    ("assd_mm", "ASSD", "mm", 2),
    ("sensitivity", "Sensitivity", "", 3),
    ("precision", "Precision", "", 3),
    ("specificity", "Specificity", "", 4),
    ("instance_dice", "Dice of lesions", "", 3),
    ("instance_hd95_mm", "HD95 of lesions", "mm", 2),
    ("instance_nsd", "NSD of lesions", "", 3),
    ("rq", "F1 of lesions", "", 3),
    ("pq", "PQ", "", 3),
    ("lesions_found", "Lesions found", "", 1),
    ("lesions_missed", "Lesions missed", "", 1),
    ("lesions_spurious", "Spurious lesions", "", 1),
    ("whole_dice", "Dice of the region", "", 3),
    ("whole_hd95_mm", "HD95 of the region", "mm", 2),
    ("volume_error_percent", "Volume error", "%", 1),
)
HEADLINES = COLUMNS[:3]


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
    metrics: Mapping[str, Any],
    plan: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    records: Sequence[Mapping[str, Any]] = (),
    pictures: Sequence[CasePictures] = (),
    surfaces: tuple[str, Scene] | None = None,
    warnings: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the report to `out` atomically.

    metrics: content of metrics.json, or empty. plan, recipe: content of their JSON
    files. records: lines of metrics.jsonl. pictures: cases, in the order shown.
    surfaces: caption and scene of the one case that can be turned on the page itself.
    facts: name -> value, shown at the top (device, training time...). All text is
    escaped; the page loads nothing from anywhere.
    """
    volumes = reconstruction_view(metrics)
    labelled: Mapping[str, Any] = (
        {} if volumes else metrics
    )  # figures of labels; volumes have figures of their own
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            headlines=[
                *(volumes["headlines"] if volumes else []),
                *_headlines(labelled),
                *class_headlines(metrics.get("classification")),
            ],
            case_count=len(
                metrics.get("cases")
                or (metrics.get("classification") or {}).get("cases", {})
            ),
            facts=facts or {},
            columns=_columns(labelled),
            summary=_summary_rows(labelled),
            rows=_case_rows(labelled),
            boxes=box_plots(labelled),
            calibration=_calibration_rows(metrics.get("calibration") or {}),
            reliability=reliability_chart(metrics.get("calibration") or {}),
            trust=_trust_lines(metrics.get("calibration") or {}),
            classes=class_view(metrics.get("classification")),
            volumes=volumes,
            curves=reconstruction_curves(records) or training_curves(records),
            class_curves=class_curves(records),
            pictures=pictures,
            surfaces=surfaces,
            plan=_plan_rows(plan or {}),
            recipe=dict(recipe or {}),
            warnings=list(
                dict.fromkeys(
                    [*warnings, *metrics.get("warnings", []), *_class_warnings(metrics)]
                )
            ),
            convention={
                **metrics.get("convention", {}),
                **_titled_convention("calibration", metrics.get("calibration") or {}),
                **_titled_convention("classes", metrics.get("classification") or {}),
            },
        )
    )
    write_text(out, page)


def _columns(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, int]]:
    """What this metrics.json holds; conventions differ in it."""
    held = {
        metric
        for case in metrics.get("cases", {}).values()
        for row in case.values()
        for metric in row
    }
    return [column for column in COLUMNS if column[0] in held]


def _headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean and interval of the main metrics over all labels."""
    row = _mean_of_labels(metrics)
    return [
        {"heading": f"Mean {heading}", "unit": unit, "digits": digits, **row[metric]}
        for metric, heading, unit, digits in HEADLINES
        if (row.get(metric) or {}).get("mean") is not None
    ]


def _mean_of_labels(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    row: Mapping[str, Any] = metrics.get("summary", {}).get(
        mean_row(_labels(metrics)), {}
    )
    return row


def _labels(metrics: Mapping[str, Any]) -> list[str]:
    return list(
        dict.fromkeys(
            name for case in metrics.get("cases", {}).values() for name in case
        )
    )


def _summary_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a label, then the mean of labels, each with the statistics of all
    columns.
    """
    summary, labels = metrics.get("summary", {}), _labels(metrics)
    rows = [
        {"name": name, "overall": False, "statistics": summary[name]}
        for name in labels
        if name in summary
    ]
    if len(rows) > 1:
        rows.append(
            {
                "name": "all labels",
                "overall": True,
                "statistics": _mean_of_labels(metrics),
            }
        )
    return rows


def _case_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a case and label, the worst Dice first, those without Dice last."""
    notes = {
        "both": "empty in both",
        "prediction": "missed",
        "reference": "not in the reference",
    }
    rows = [
        {
            "case": case,
            "label": label,
            "values": values,
            "note": notes.get(values.get("empty") or "", ""),
        }
        for case, targets in metrics.get("cases", {}).items()
        for label, values in targets.items()
    ]
    return sorted(
        rows,
        key=lambda row: (
            2.0 if row["values"].get("dice") is None else row["values"]["dice"]
        ),
    )


def _calibration_rows(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a measure, with its value before and after temperature scaling."""
    names = {
        "ece": "ECE",
        "adaptive_ece": "Adaptive ECE",
        "classwise_ece": "Class-wise ECE",
        "mce": "Largest gap (MCE)",
        "brier": "Brier score",
        "nll": "Negative log-likelihood",
    }
    before, after = (calibration.get(stage) or {} for stage in ("before", "after"))
    return [
        {"name": name, "before": before.get(key), "after": after.get(key)}
        for key, name in names.items()
        if before.get(key) is not None
    ]


def _trust_lines(calibration: Mapping[str, Any]) -> list[str]:
    """What else was learnt about trust, a sentence each."""
    if not calibration:
        return []
    doubt, rule = calibration.get("doubt") or {}, calibration.get("abstention")
    lines = [
        f"Temperature {number(calibration.get('temperature'), 3)}: logits are divided by it."
    ]
    if calibration.get("error_ranking_auroc") is not None:
        lines.append(
            f"Entropy ranks wrong voxels above right ones with an AUROC of "
            f"{number(calibration['error_ranking_auroc'], 3)}."
        )
    if doubt.get("spearman_with_dice") is not None:
        lines.append(
            f"Mean entropy in the predicted foreground and Dice of a case: Spearman "
            f"{number(doubt['spearman_with_dice'], 2)} over {doubt['cases']} cases."
        )
    if rule is None:
        lines.append("Too few validation cases to choose when a case is flagged.")
    else:
        lines.append(
            f"A case is flagged above {number(rule['threshold'], 3)} nats: {rule['flagged']} of "
            f"{rule['cases']} validation cases, {rule['flagged_poor']} of the {rule['poor']} with a Dice below "
            f"{number(rule['poor_dice'], 3)}."
        )
    return lines


def _titled_convention(title: str, section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{title}: {name}": text
        for name, text in (section.get("convention") or {}).items()
    }


def _class_warnings(metrics: Mapping[str, Any]) -> list[str]:
    return [
        f"classes: {warning}"
        for warning in (metrics.get("classification") or {}).get("warnings", [])
    ]


def _plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Name, value and reason of each decision: those with a reason first; reasons for
    no single field at the end.
    """
    reasons = dict(plan.get("reasons") or {})
    fields = [
        (name, value, str(reasons.pop(name, "")))
        for name, value in plan.items()
        if name != "reasons"
    ]
    fields.sort(key=lambda field: not field[2])
    return [*fields, *((name, None, str(reason)) for name, reason in reasons.items())]
