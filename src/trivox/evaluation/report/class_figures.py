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
    epochs_of,
    keys_of,
    label_epochs,
    legend_above,
    legend_beside,
    light_figure,
    line,
    plain,
    reliability_panels,
    short,
)
from trivox.evaluation.report.drawing import LINES, PALETTE, Style, png
from trivox.evaluation.report.pages import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORST = 5
MAXIMUM_CURVES = 12
SHARE = "class_share/"
RECALL = "class_recall/"
LOGIT = "class_logit/"
SPREAD = 0.28
"""How far marks of a row lie from its middle, in rows."""

Section = Mapping[str, Any]


def predictions_of(section: Section) -> ClassPredictions | None:
    """The cases of the section whose class is known; None without any."""
    classes = tuple(section["classes"])
    cases = section["cases"]
    known = {
        name: case
        for name, case in cases.items()
        if case["class"] in classes and case["probabilities"].keys() >= {*classes}
    }
    if not known:
        return None
    truth = [classes.index(case["class"]) for case in known.values()]
    probabilities = [_probabilities(case, classes) for case in known.values()]
    return ClassPredictions(
        tuple(known),
        np.array(truth, dtype=np.int64),
        np.array(probabilities, dtype=np.float64),
        classes,
    )


def _probabilities(case: Mapping[str, Any], classes: Sequence[str]) -> list[float]:
    return [case["probabilities"][name] for name in classes]


def confusion_and_roc(section: Section) -> bytes | None:
    """Confusion matrix (counts, coloured by their share of the row) beside the ROC
    curve of each class.
    """
    predictions = predictions_of(section)
    if predictions is None:
        return None
    figure = light_figure(5.2 + 0.15 * max(0, len(predictions.classes) - 6))
    left, right = figure.subplots(1, 2)
    _draw_confusion(
        left, np.array(section["summary"]["confusion"]), predictions.classes
    )
    _draw_roc(right, predictions)
    return png(figure)


def class_reliability(section: Section) -> bytes | None:
    """Accuracy against confidence over cases, above how many cases have which
    confidence.
    """
    predictions = predictions_of(section)
    if predictions is None:
        return None
    figure = light_figure(5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    confidence, correct = top_label(predictions.probabilities, predictions.truth)
    reliability_panels(upper, lower, reliability_curve(confidence, correct))
    title = f"ECE {number(section['summary']['ece']['value'])}"
    upper.set_title(title, fontsize=10.5, color=INK, loc="right")
    legend_above(upper)
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
    cases = np.arange(len(predictions.names))
    chance = predictions.probabilities[cases, predictions.truth]
    worst = np.argsort(chance, kind="stable")[:WORST]
    figure = light_figure(1.1 + max(2.4, 0.4 * len(classes)))
    axes, names = figure.subplots(1, 2, width_ratios=[2.3, 1])
    _draw_cases(axes, predictions, chance, worst)
    axes.set_yticks(range(len(classes)), [short(name) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability of the true class")
    axes.set_ylabel("true class")
    plain(axes)
    legend_above(axes)
    _name_worst(names, predictions, chance, worst)
    return png(figure)


def _draw_cases(
    axes: "Axes",
    predictions: ClassPredictions,
    chance: NDArray[np.float64],
    worst: NDArray[np.int64],
) -> None:
    """A mark a case at `chance`, in the row of its class; the worst are numbered."""
    # fixed: the same each time
    spread = np.random.default_rng(0).uniform(-SPREAD, SPREAD, len(chance))
    # their numbers never overlap
    spread[worst] = np.linspace(-SPREAD, SPREAD, len(worst))
    height = predictions.truth + spread
    right = predictions.answers == predictions.truth
    style: Style = {"markersize": 4.5, "alpha": 0.6, "markeredgewidth": 0}
    for shown, colour, marker, label in (
        (right, BLUE, "o", "right answer"),
        (~right, ORANGE, "D", "wrong answer"),
    ):
        if shown.any():
            axes.plot(
                chance[shown],
                height[shown],
                marker,
                color=colour,
                label=label,
                **style,
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


def class_curves(records: Records) -> bytes | None:
    """The training monitor by epoch: answers by class, recall by class, mean logits,
    and macro-F1.

    records: lines of metrics.jsonl; None if no epoch has shares of answers.
    """
    epochs = epochs_of(records)
    names = [key.removeprefix(SHARE) for key in keys_of(epochs, SHARE)]
    if not names:
        return None
    panels = [(SHARE, "share of answers"), (RECALL, "recall"), (LOGIT, "mean logit")]
    panels = [(prefix, title) for prefix, title in panels if keys_of(epochs, prefix)]
    figure = light_figure(1.2 + 2.0 * (len(panels) + 1))
    *upper, last = figure.subplots(len(panels) + 1, 1, sharex=True)
    for axes, (prefix, title) in zip(upper, panels, strict=True):
        for i, name in enumerate(names):
            line(axes, epochs, prefix + name, short(name), **_look(i, "colour"))
        axes.set_ylabel(title)
    _draw_scores(last, epochs, chance=1 / len(names))
    for axes in (*upper, last):
        if axes.get_ylabel() != "mean logit":
            axes.set_ylim(-0.03, 1.03)
        plain(axes)
        legend_beside(axes)
    return png(figure)


def _draw_scores(axes: "Axes", epochs: Records, *, chance: float) -> None:
    """Macro-F1 and balanced accuracy by epoch; chance: of the balanced accuracy."""
    line(axes, epochs, "validation_macro_f1", "macro-F1", BLUE, linewidth=2.0)
    key = "validation_balanced_accuracy"
    line(axes, epochs, key, "balanced accuracy", ORANGE, linestyle=LINES[1])
    style: Style = {"color": GREY, "linewidth": 1, "linestyle": ":"}
    axes.axhline(chance, label="balanced, by chance", **style)
    axes.set_ylabel("score")
    label_epochs(axes)


def _draw_confusion(
    axes: "Axes", counts: NDArray[np.int64], classes: Sequence[str]
) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = max(6.0, 12.0 - 0.45 * len(classes))
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]}"
        if len(classes) <= MAXIMUM_CURVES:
            text += f"\n{100 * share:.0f} %"
        colour = "white" if share > 0.5 else INK
        centre: Style = {"ha": "center", "va": "center"}
        axes.text(column, row, text, fontsize=size, color=colour, **centre)
    names = [short(name) for name in classes]
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


def _draw_roc(axes: "Axes", predictions: ClassPredictions) -> None:
    """Each class against the rest; of two classes the second, since the other curve
    says the same.
    """
    from sklearn.metrics import roc_curve

    several = len(predictions.classes) > 2
    areas = _areas(predictions, first=0 if several else 1)
    shown = sorted(areas, key=lambda i: areas[i])[:MAXIMUM_CURVES]
    for i in sorted(shown):
        positive = predictions.truth == i
        chances = predictions.probabilities[:, i]
        false_rate, true_rate, _ = roc_curve(positive, chances, drop_intermediate=False)
        look = _look(i, "color") if several else {"color": BLUE}
        label = f"{short(predictions.classes[i])}, AUC {areas[i]:.3f}"
        axes.plot(false_rate, true_rate, label=label, linewidth=1.8, **look)
    chance: Style = {"color": GREY, "linewidth": 1, "linestyle": ":"}
    axes.plot([0, 1], [0, 1], label="by chance, AUC 0.5", **chance)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("false positive rate (1 \u2212 specificity)")
    axes.set_ylabel("true positive rate (recall)")
    title = "ROC, a class against the rest"
    if len(shown) < len(areas):
        title += f": the {len(shown)} lowest of {len(areas)}"
    axes.set_title(title, fontsize=10.5, color=INK)
    box: Style = {"framealpha": 0.9, "edgecolor": "none"}
    axes.legend(fontsize=9, loc="lower right", handlelength=2.8, **box)
    plain(axes)


def _areas(predictions: ClassPredictions, *, first: int) -> dict[int, float]:
    """Area under the curve of each class from `first` on that has one."""
    areas = {}
    for i in range(first, len(predictions.classes)):
        area = area_under_roc(predictions.probabilities[:, i], predictions.truth == i)
        if area is not None:
            areas[i] = area
    return areas


def _name_worst(
    axes: "Axes",
    predictions: ClassPredictions,
    chance: NDArray[np.float64],
    worst: NDArray[np.int64],
) -> None:
    lines = ["lowest"]
    for i, case in enumerate(worst, start=1):
        name = short(predictions.names[case], 26)
        answer = short(predictions.classes[predictions.answers[case]])
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


def _look(i: int, colour: str) -> Style:
    """Colour and line of class i; `colour`: what the colour is called where they go."""
    return {colour: PALETTE[i % len(PALETTE)], "linestyle": LINES[i % len(LINES)]}
