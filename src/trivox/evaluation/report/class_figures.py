"""Figures of how cases were classified, from the section `classification` of
metrics.json. PNG bytes, no pyplot.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.metrics.calibration import (
    area_under_roc,
    reliability_curve,
    top_label,
)
from trivox.evaluation.metrics.classification import ClassPredictions
from trivox.evaluation.report.charts import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Records,
    escaped,
    line,
    plain,
    reliability_panels,
)
from trivox.evaluation.report.figures import LINES, PALETTE, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST = 5
MAXIMUM_CURVES = 12
SHARE, RECALL, LOGIT = "class_share/", "class_recall/", "class_logit/"

Section = Mapping[str, Any]


def predictions_of(section: Section) -> ClassPredictions | None:
    """The cases of the section whose class is known; None without any."""
    classes, cases = tuple(section["classes"]), section["cases"]
    known = {name: case for name, case in cases.items() if case["class"] is not None}
    if not known:
        return None
    truth = np.array(
        [classes.index(case["class"]) for case in known.values()], dtype=np.int64
    )
    table = [
        [case["probabilities"][name] for name in classes] for case in known.values()
    ]
    return ClassPredictions(
        tuple(known), truth, np.array(table, dtype=np.float64), classes
    )


def confusion_and_roc(section: Section) -> bytes | None:
    """Confusion matrix (counts, coloured by their share of the row) beside the ROC
    curve of each class.
    """
    predictions = predictions_of(section)
    if predictions is None:
        return None
    figure = _figure(5.2 + 0.15 * max(0, len(predictions.classes) - 6))
    left, right = figure.subplots(1, 2)
    _confusion(left, np.array(section["summary"]["confusion"]), predictions.classes)
    _roc(right, predictions)
    return png(figure)


def class_reliability(section: Section) -> bytes | None:
    """Accuracy against confidence over cases, above how many cases have which
    confidence.
    """
    predictions = predictions_of(section)
    if predictions is None:
        return None
    figure = _figure(5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    reliability_panels(
        upper,
        lower,
        reliability_curve(*top_label(predictions.probabilities, predictions.truth)),
    )
    upper.set_title(
        f"ECE {section['summary']['ece']['value']:.3f}",
        fontsize=10.5,
        color=INK,
        loc="right",
    )
    _legend_above(upper)
    upper.set_ylabel("accuracy")
    lower.set_ylabel("cases (%)")
    lower.set_xlabel("confidence (largest probability)")
    return png(figure)


def true_class_probabilities(section: Section) -> bytes | None:
    """Probability of the true class of each case, a row a class; the five lowest are
    numbered and named beside it.
    """
    predictions = predictions_of(section)
    if predictions is None:
        return None
    classes = predictions.classes
    figure = _figure(1.1 + max(2.4, 0.4 * len(classes)))
    axes, names = figure.subplots(1, 2, width_ratios=[2.3, 1])
    chance = predictions.probabilities[
        np.arange(len(predictions.names)), predictions.truth
    ]
    right = predictions.answers == predictions.truth
    height = predictions.truth + np.random.default_rng(0).uniform(
        -0.28, 0.28, len(chance)
    )  # fixed: the same each time
    worst = np.argsort(chance, kind="stable")[:WORST]
    height[worst] = predictions.truth[worst] + np.linspace(
        -0.28, 0.28, len(worst)
    )  # their numbers never overlap
    for kept, colour, marker, label in (
        (right, BLUE, "o", "right answer"),
        (~right, ORANGE, "D", "wrong answer"),
    ):
        if not kept.any():
            continue
        axes.plot(
            chance[kept],
            height[kept],
            marker,
            color=colour,
            markersize=4.5,
            alpha=0.6,
            markeredgewidth=0,
            label=label,
        )
    for i, case in enumerate(worst, start=1):
        axes.annotate(
            str(i),
            (chance[case], height[case]),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            va="center",
        )
    axes.set_yticks(range(len(classes)), [_short(name) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability of the true class")
    axes.set_ylabel("true class")
    plain(axes)
    _legend_above(axes)
    _name_worst(names, predictions, chance, worst)
    return png(figure)


def class_curves(records: Records) -> bytes | None:
    """The training monitor by epoch: answers by class, recall by class, mean logits,
    and macro-F1.

    records: lines of metrics.jsonl; None if no epoch has shares of answers.
    """
    epochs = [record for record in records if record.get("kind") == "epoch"]
    names = _names(epochs, SHARE)
    if not names:
        return None
    panels = [(SHARE, "share of answers"), (RECALL, "recall"), (LOGIT, "mean logit")]
    panels = [(prefix, title) for prefix, title in panels if _names(epochs, prefix)]
    figure = _figure(1.2 + 2.0 * (len(panels) + 1))
    *upper, last = figure.subplots(len(panels) + 1, 1, sharex=True)
    for axes, (prefix, title) in zip(upper, panels, strict=True):
        for i, name in enumerate(names):
            line(axes, epochs, prefix + name, _short(name), **_look(i, "colour"))
        axes.set_ylabel(title)
    line(last, epochs, "validation_macro_f1", "macro-F1", BLUE, linewidth=2.0)
    line(
        last,
        epochs,
        "validation_balanced_accuracy",
        "balanced accuracy",
        ORANGE,
        linestyle=LINES[1],
    )
    last.axhline(
        1 / len(names),
        color=GREY,
        linewidth=1,
        linestyle=":",
        label="balanced, by chance",
    )
    last.set_ylabel("score")
    last.set_xlabel("epoch")
    last.xaxis.get_major_locator().set_params(integer=True)
    for axes in (*upper, last):
        if axes.get_ylabel() != "mean logit":
            axes.set_ylim(-0.03, 1.03)
        plain(axes)
        axes.legend(
            frameon=False,
            fontsize=9,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            handlelength=2.8,
        )
    return png(figure)


def roc_curve(
    score: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], ...]:
    """False and true positive rate at each threshold, from (0, 0) to (1, 1); equal
    scores make one step.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf))
    hits = np.cumsum(positive[order])[ends]
    rates = (
        np.cumsum(~positive[order])[ends] / max(int((~positive).sum()), 1),
        hits / max(int(positive.sum()), 1),
    )
    return tuple(np.concatenate([[0.0], rate]) for rate in rates)


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(
        figsize=(10, height), dpi=110, layout="constrained", facecolor="white"
    )


def _confusion(axes: "Axes", counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = max(6.0, 12.0 - 0.45 * len(classes))
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]}" + (
            f"\n{100 * share:.0f} %" if len(classes) <= MAXIMUM_CURVES else ""
        )
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share > 0.5 else INK,
        )
    names = [_short(name) for name in classes]
    slanted = len(classes) > 4 or max(map(len, names)) > 10
    axes.set_xticks(
        range(len(classes)),
        names,
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(classes)), names)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    axes.set_title("cases, and share of the true class", fontsize=10.5, color=INK)
    axes.tick_params(length=0)


def _roc(axes: "Axes", predictions: ClassPredictions) -> None:
    """Each class against the rest; of two classes the second, since the other curve
    says the same.
    """
    truth, chances = predictions.truth, predictions.probabilities
    several = len(predictions.classes) > 2
    found = {
        i: area_under_roc(chances[:, i], truth == i)
        for i in range(0 if several else 1, len(predictions.classes))
    }
    areas = {i: area for i, area in found.items() if area is not None}
    shown = sorted(areas, key=lambda i: areas[i])[:MAXIMUM_CURVES]
    for i in sorted(shown):
        look = _look(i, "color") if several else {"color": BLUE}
        label = f"{_short(predictions.classes[i])}, AUC {areas[i]:.3f}"
        axes.plot(
            *roc_curve(chances[:, i], truth == i), label=label, linewidth=1.8, **look
        )
    axes.plot(
        [0, 1],
        [0, 1],
        color=GREY,
        linewidth=1,
        linestyle=":",
        label="by chance, AUC 0.5",
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("false positive rate (1 \u2212 specificity)")
    axes.set_ylabel("true positive rate (recall)")
    lowest = (
        f": the {len(shown)} lowest of {len(areas)}" if len(shown) < len(areas) else ""
    )
    axes.set_title(f"ROC, a class against the rest{lowest}", fontsize=10.5, color=INK)
    axes.legend(
        framealpha=0.9,
        edgecolor="none",
        fontsize=9,
        loc="lower right",
        handlelength=2.8,
    )
    plain(axes)


def _name_worst(
    axes: "Axes",
    predictions: ClassPredictions,
    chance: NDArray[np.float64],
    worst: NDArray[np.int64],
) -> None:
    lines = ["lowest"]
    for i, case in enumerate(worst, start=1):
        name, answer = (
            _short(predictions.names[case], 26),
            _short(predictions.classes[predictions.answers[case]]),
        )
        lines.append(f"{i}  {name}\n    {chance[case]:.3f}, answered {answer}")
    axes.set_axis_off()
    for i, text in enumerate(lines):
        axes.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, -28 * i + 8 * bool(i)),
            va="top",
            color=INK,
            textcoords="offset points",
            fontsize=8.5,
            linespacing=1.25,
        )


def _legend_above(axes: "Axes") -> None:
    axes.legend(
        frameon=False,
        fontsize=9,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.2,
    )


def _names(epochs: Records, prefix: str) -> list[str]:
    return list(
        dict.fromkeys(
            key.removeprefix(prefix)
            for epoch in epochs
            for key in epoch
            if key.startswith(prefix)
        )
    )


def _look(i: int, colour: str) -> dict[str, Any]:
    """Colour and line of class i; `colour`: what the colour is called where they go."""
    return {colour: PALETTE[i % len(PALETTE)], "linestyle": LINES[i % len(LINES)]}


def _short(name: str, length: int = 18) -> str:
    """A name that fits; its end tells cases apart better than its middle."""
    keep = length // 2
    return escaped(
        name if len(name) <= length else f"{name[: length - keep - 1]}…{name[-keep:]}"
    )
