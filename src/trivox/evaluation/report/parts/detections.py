"""What the report shows of how well lesions are found."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trivox.evaluation.metrics.detection.scores import Floats, Pooled
from trivox.evaluation.metrics.detection_content import DetectionSection, FrocCurve
from trivox.evaluation.report.charts import (
    BLUE,
    GREY,
    ORANGE,
    legend_above,
    light_figure,
    plain,
)
from trivox.evaluation.report.drawing import Style, png
from trivox.evaluation.report.pages import (
    Metrics,
    Part,
    methods_text,
    rendered,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trivox.evaluation.metrics.class_content import ShareScore

FEWEST_FALSE = 2**-5
"""False candidates a case at the left of the chart, on an axis of logarithms."""


def detection_part(metrics: Metrics) -> Part:
    """Scores and curves of lesions and cases; empty without the section `detection`."""
    section: DetectionSection | None = metrics.get("detection")
    if not section:
        return Part()
    summary = section["summary"]
    scores = {
        "Average precision of lesions": summary["ap"],
        "AUROC of cases": summary["auroc"],
    }
    for rate, score in summary["sensitivity"].items():
        scores[f"Lesions found at {rate} false a case"] = score
    return Part(
        body=rendered(
            "detection_part.html.j2",
            scores=scores,
            summary=summary,
            lesion=", ".join(section["lesion"]),
            methods=methods_text(scores.values()),
            curves=detection_curves(section),
        ),
        convention=titled("lesions", section.get("convention")),
    )


def detection_curves(section: DetectionSection) -> bytes | None:
    """FROC beside precision over recall of lesions; None without lesions or without
    candidates.
    """
    curve = section["curve"]
    if not curve["likelihood"]:
        return None
    figure = light_figure(4.2)
    left, right = figure.subplots(1, 2)
    _draw_froc(left, curve, section["summary"]["sensitivity"])
    _draw_precision(right, Pooled.of(section["cases"]))
    for axes in (left, right):
        axes.set_ylim(-0.03, 1.03)
        plain(axes)
    return png(figure)


def _draw_froc(
    axes: "Axes", curve: FrocCurve, scores: Mapping[str, "ShareScore"]
) -> None:
    """Sensitivity at no more than so many false candidates a case: steps, and the scores
    with their intervals.
    """
    rates = [float(rate) for rate in scores]
    most = max([*rates, *curve["false_positives"]])
    places = [max(FEWEST_FALSE, each) for each in curve["false_positives"]]
    shares = np.maximum.accumulate(curve["sensitivity"])
    axes.step(
        [FEWEST_FALSE, *places, most],
        [0.0, *shares, shares[-1]],
        where="post",
        color=BLUE,
        linewidth=1.6,
        label="from each likelihood on",
    )
    known = [(rate, score) for rate, score in zip(rates, scores.values(), strict=True)]
    for rate, score in known:
        if score["value"] is None:
            continue
        if score["ci95"] is not None:
            low, high = score["ci95"]
            axes.vlines(rate, low, high, color=ORANGE, linewidth=1.4)
        axes.plot(rate, score["value"], "o", color=ORANGE, markersize=4.5)
    axes.plot([], [], "o-", color=ORANGE, markersize=4.5, label="score, 95 % interval")
    axes.set_xscale("log", base=2)
    axes.set_xlim(FEWEST_FALSE, most * 1.2)
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_xlabel("false candidates a case")
    axes.set_ylabel("share of lesions found")
    legend_above(axes)


def _draw_precision(axes: "Axes", pooled: Pooled) -> None:
    """The share of candidates that are lesions, as more lesions are found; its area is
    the average precision.
    """
    recall, precision = precision_and_recall(pooled)
    axes.step(
        [0.0, *recall],
        [precision[0], *precision],
        where="pre",
        color=BLUE,
        linewidth=1.6,
        label="from each likelihood on",
    )
    chance: Style = {"color": GREY, "linewidth": 1.2, "linestyle": "--"}
    axes.axhline(precision[-1], label="all candidates alike", **chance)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("share of lesions found (recall)")
    axes.set_ylabel("share that are lesions (precision)")
    legend_above(axes)


def precision_and_recall(pooled: Pooled) -> tuple[Floats, Floats]:
    """Recall and precision of candidates from each likelihood on, descending."""
    hits, false, lesions = pooled.counts(np.ones((1, len(pooled.lesions))))
    return hits[0] / lesions[0], hits[0] / (hits[0] + false[0])
