"""The most important figures of label maps in one line."""

from collections.abc import Mapping
from typing import Any

from trivox.evaluation.folders.labels import mean_row


def label_headline(metrics: Mapping[str, Any]) -> str:
    """Mean Dice of each label and over all, macro-F1 and AUC of the classes, with 95 %
    intervals.
    """
    lines = []
    if metrics["cases"]:
        scores = ", ".join(_dice(metrics["summary"]))
        cases = len(metrics["cases"])
        lines.append(f"Dice: {scores} (95 % CI over {cases} cases)")
    classes = (metrics.get("classification") or {}).get("summary")
    if classes:
        scores = ", ".join(_class_scores(classes))
        cases = sum(classes["support"].values())
        lines.append(f"classes: {scores} (95 % CI over {cases} cases)")
    return "; ".join(lines)


def _dice(summary: Mapping[str, Any]) -> list[str]:
    scores = []
    for name, row in summary.items():
        dice = row.get("dice") or {"mean": None}
        if dice["mean"] is None:
            continue
        others = [other for other in summary if other != name]
        title = "mean over labels" if name == mean_row(others) else name
        scores.append(f"{title} {_with_interval(dice['mean'], dice['ci95'], 4)}")
    return scores


def _class_scores(classes: Mapping[str, Any]) -> list[str]:
    scores = []
    for title, score in (("macro-F1", classes["macro_f1"]), ("AUC", classes["auc"])):
        if score["value"] is not None:
            value = _with_interval(score["value"], score["ci95"], 3)
            scores.append(f"{title} {value}")
    return scores


def _with_interval(value: float, interval: list[float] | None, digits: int) -> str:
    edges = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{value:.{digits}f}{edges}"
