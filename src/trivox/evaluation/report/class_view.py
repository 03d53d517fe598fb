"""What the report shows of the section `classification` of metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivox.evaluation.report.class_figures import (
    class_reliability,
    confusion_and_roc,
    true_class_probabilities,
)
from trivox.evaluation.report.pages import MISSING, number

COLUMNS: tuple[tuple[str, str, int], ...] = (  # metric, heading, digits
    ("macro_f1", "Macro-F1", 3),
    ("auc", "AUC", 3),
    ("balanced_accuracy", "Balanced accuracy", 3),
    ("accuracy", "Accuracy", 3),
    ("mcc", "MCC", 3),
)
TRUST = (
    ("ece", "ECE", 3),
    ("brier", "Brier score", 3),
    ("log_loss", "Log loss (nats)", 3),
)
MOST_COLUMNS = 8

FIGURES = (
    (
        confusion_and_roc,
        "Answers by true class, and recall against false alarms at every threshold.",
    ),
    (
        true_class_probabilities,
        "How probable the true class was held, a mark a case; further right is better.",
    ),
    (
        class_reliability,
        "Bars below the diagonal: the classifier is too sure of itself; above: not sure enough.",
    ),
)

Section = Mapping[str, Any]


def class_headlines(section: Section | None) -> list[dict[str, Any]]:
    """Macro-F1 and AUC, as far as they are known, like the other headlines of the
    report.
    """
    found = (
        [
            (heading, digits, section["summary"][metric])
            for metric, heading, digits in COLUMNS[:2]
        ]
        if section
        else []
    )
    return [
        {
            "heading": heading,
            "unit": "",
            "digits": digits,
            "mean": score["value"],
            "ci95": score["ci95"],
        }
        for heading, digits, score in found
        if score["value"] is not None
    ]


def class_view(section: Section | None) -> dict[str, Any] | None:
    """Tables and figures for the template `class_part.html.j2`; None without the
    section.
    """
    if not section:
        return None
    classes, summary = section["classes"], section["summary"]
    few = len(classes) <= MOST_COLUMNS
    return {
        "columns": COLUMNS,
        "trust": TRUST,
        "rows": [{"difference": {}, **row} for row in section["rows"]],
        "compared": any(row.get("difference") for row in section["rows"]),
        "note": _note(section),
        "answered": classes if few else [],
        "by_class": [
            {
                "name": name,
                "cases": summary["support"][name],
                "recall": summary["recall"][name],
                "precision": summary["precision"][name],
                "answers": counts if few else [],
            }
            for name, counts in zip(classes, summary["confusion"], strict=True)
        ],
        "shown": classes if few else ["the class", "the answer"],
        "wrong": _wrong(section, classes if few else None),
        "figures": [
            (caption, image) for draw, caption in FIGURES if (image := draw(section))
        ],
        "classifier": section.get("classifier") or {},
    }


def _note(section: Section) -> str:
    """What the tables are about, in sentences."""
    known = sum(section["summary"]["support"].values())
    lines = [
        f"Over {known} cases whose class is known; below each score its 95 % bootstrap interval."
    ]
    if len(section["rows"]) > 1:
        lines.append("Gained: this model minus the row, on the same cases.")
    if len(section["cases"]) > known:
        lines.append(f"{len(section['cases']) - known} more were answered.")
    if section.get("resubstitution"):
        own, gap = section["resubstitution"], section["gap"]
        lines.append(
            f"On the cases that it was fitted on: macro-F1 {number(own['macro_f1'])} and AUC {number(own['auc'])}, "
            f"a gap of {number(gap['macro_f1'])} and {number(gap['auc'])}."
        )
    flagged = sum(bool(case["flags"]) for case in section["cases"].values())
    if flagged:
        lines.append(f"{flagged} answers are flagged.")
    return " ".join(lines)


def _wrong(section: Section, classes: Sequence[str] | None) -> list[dict[str, Any]]:
    """Cases answered wrongly; probabilities of `classes`, or of the true class and the
    answer.
    """
    rows = []
    for name, case in section["cases"].items():
        truth, answer, chance = case["class"], case["answer"], case["probabilities"]
        if truth is not None and truth != answer:
            shown = [chance[one] for one in classes or (truth, answer)]
            rows.append(
                {
                    "name": name,
                    "truth": truth,
                    "answer": answer,
                    "probabilities": shown,
                    "chance": chance[truth],
                    "fold": case.get("fold") or MISSING,
                    "flags": "; ".join(case["flags"]),
                }
            )
    return sorted(rows, key=lambda row: row["chance"])
