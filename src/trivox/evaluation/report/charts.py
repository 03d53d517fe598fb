"""Charts of numbers: learning curves, the distribution of metrics over cases,
reliability. PNG bytes, no pyplot.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.folders.labels import names_in
from trivox.evaluation.report.drawing import (
    DPI,
    LINES,
    PALETTE,
    WIDTH,
    Style,
    escaped,
    png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#0072B2"
ORANGE = "#D55E00"
GREY = "#6b7280"
INK = "#1f2937"
MAXIMUM_BOXES = 40
OF_LABEL = "validation_dice/"
WHISKER = 1.5
"""Longest whisker of a box plot in lengths of its box (Tukey 1977)."""

Records = Sequence[Mapping[str, Any]]


def training_curves(records: Records) -> bytes | None:
    """Loss, validation Dice and learning rate by epoch, from the lines of
    metrics.jsonl; None without any epoch.

    The Dice of each label or region (`validation_dice/NAME`) is drawn where there are 2
    to 7, in the colours of the figures.
    """
    epochs = epochs_of(records)
    if not epochs:
        return None
    figure = light_figure(6.4)
    loss, dice, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.4])
    _draw_losses(loss, epochs)
    _draw_dice(dice, epochs)
    line(rate, epochs, "lr", "learning rate", GREY)
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    label_epochs(rate)
    for axes in (loss, dice, rate):
        plain(axes)
        legend_beside(axes)
    return png(figure)


def _draw_dice(axes: "Axes", epochs: Records) -> None:
    """The Dice of each label, and over it their mean."""
    keys = keys_of(epochs, OF_LABEL)
    for i, key in enumerate(keys if 1 < len(keys) <= len(PALETTE) else []):
        name = short(key.removeprefix(OF_LABEL))
        style: Style = {"linestyle": LINES[i % len(LINES)], "linewidth": 1.4}
        line(axes, epochs, key, name, PALETTE[i], **style)
    line(axes, epochs, "validation_dice", "mean, each epoch", INK, alpha=0.4)
    line(axes, epochs, "validation_dice_ema", "mean, smoothed", INK, linewidth=2.2)
    axes.set_ylabel("validation Dice")
    axes.set_ylim(0, 1)


def volume_curves(records: Records) -> bytes | None:
    """Loss, validation PSNR and SSIM by epoch, from the lines of metrics.jsonl; None
    without PSNR in them.

    Each number of views (`validation_psnr/2 views`) has a line of its own.
    """
    epochs = epochs_of(records)
    if not any("validation_psnr" in epoch for epoch in epochs):
        return None
    figure = light_figure(6.4)
    loss, decibels, similarity = figure.subplots(
        3, 1, sharex=True, height_ratios=[2, 3, 2]
    )
    _draw_losses(loss, epochs)
    _draw_by_views(decibels, epochs, "validation_psnr")
    decibels.set_ylabel("validation PSNR (dB)")
    _draw_by_views(similarity, epochs, "validation_ssim")
    similarity.set_ylabel("validation SSIM")
    label_epochs(similarity)
    for axes in (loss, decibels, similarity):
        plain(axes)
        legend_beside(axes)
    return png(figure)


def _draw_by_views(axes: "Axes", epochs: Records, metric: str) -> None:
    """A line for each number of views, and their mean where there are several."""
    start = f"{metric}/"
    keys = keys_of(epochs, start)
    for i, key in enumerate(keys):
        style: Style = {"linestyle": LINES[i % len(LINES)], "linewidth": 1.4}
        colour = PALETTE[i % len(PALETTE)]
        views = key.removeprefix(start)
        name = "1 view" if views == "1 views" else views
        line(axes, epochs, key, name, colour, **style)
    if len(keys) != 1:
        line(axes, epochs, metric, "mean", INK, linewidth=2.2)


def _draw_losses(axes: "Axes", epochs: Records) -> None:
    line(axes, epochs, "train_loss", "training", BLUE)
    line(axes, epochs, "validation_loss", "validation", ORANGE)
    axes.set_ylabel("loss")


def box_plots(metrics: Mapping[str, Any]) -> bytes | None:
    """Dice, HD95 and NSD of all cases, a box and a dot a case for each label; None if
    there are no cases.

    With more than 40 labels, those with the lowest mean Dice are shown.
    """
    cases = metrics.get("cases") or {}
    names = names_in(cases.values())
    if not names:
        return None
    if len(names) > MAXIMUM_BOXES:
        names = _worst(names, metrics)
    figure = light_figure(1.3 + 0.42 * len(names))
    titles = {"dice": "Dice", "hd95_mm": "HD95 (mm)"}
    if "nsd" in measured_metrics(cases):  # some conventions have none
        titles["nsd"] = _nsd_title(metrics)
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        for place, name in enumerate(names):
            rows = [case.get(name, {}) for case in cases.values()]
            _draw_box(axes, place, _known(row.get(metric) for row in rows))
        axes.set_xlabel(title)
        _limit(axes, shares=metric != "hd95_mm")
        plain(axes)
    panels[0].set_yticks(range(len(names)), [escaped(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    return png(figure)


def reliability_chart(calibration: Mapping[str, Any]) -> bytes | None:
    """Accuracy against confidence, before and after temperature scaling, above how many
    voxels have which confidence.

    calibration: the section of metrics.json. None if it holds no curve.
    """
    curves = calibration.get("reliability") or {}
    if not any(sum(curve["count"]) for curve in curves.values()):
        return None
    figure = light_figure(5.2)
    panels = figure.subplots(
        2, len(curves), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False
    )
    for (stage, curve), (upper, lower) in zip(curves.items(), panels.T, strict=True):
        reliability_panels(upper, lower, curve)
        error = (calibration.get(stage) or {}).get("ece", float("nan"))
        title = f"{stage} temperature scaling, ECE {error:.3f}"
        upper.set_title(title, fontsize=10.5, color=INK)
        lower.set_xlabel("confidence (largest probability)")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("share of voxels (%)")
    handles, names = panels[0, 0].get_legend_handles_labels()
    style: Style = {"loc": "outside upper center", "ncols": 3, "frameon": False}
    figure.legend(handles, names, fontsize=9, **style)
    return png(figure)


def reliability_panels(upper: "Axes", lower: "Axes", curve: Mapping[str, Any]) -> None:
    """Bars reach the accuracy; the point on each stands at the mean confidence, on the
    diagonal where they agree.
    """
    bins = len(curve["count"])
    total = sum(curve["count"])
    centres = (np.arange(bins) + 0.5) / bins
    filled = [i for i in range(bins) if curve["count"][i]]
    accuracy = [curve["accuracy"][i] for i in filled]
    confidence = [curve["confidence"][i] for i in filled]
    shares = [100 * count / total for count in curve["count"]]
    bars: Style = {"width": 0.92 / bins, "color": BLUE, "alpha": 0.35}
    upper.bar(centres[filled], accuracy, label="accuracy of the bin", **bars)
    diagonal: Style = {"color": GREY, "linewidth": 1.2, "linestyle": "--"}
    upper.plot([0, 1], [0, 1], label="confidence = accuracy", **diagonal)
    points: Style = {"color": ORANGE, "markersize": 4, "linewidth": 1.4}
    upper.plot(confidence, accuracy, "o-", label="at its mean confidence", **points)
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    lower.bar(centres, shares, width=0.92 / bins, color=GREY)
    plain(upper)
    plain(lower)


def _nsd_title(metrics: Mapping[str, Any]) -> str:
    tolerance = (metrics.get("convention") or {}).get("tolerance_mm")
    return f"NSD at {tolerance:g} mm" if isinstance(tolerance, int | float) else "NSD"


def _worst(names: Sequence[str], metrics: Mapping[str, Any]) -> list[str]:
    def mean(name: str) -> float:
        value = (metrics.get("summary", {}).get(name, {}).get("dice") or {}).get("mean")
        return 2.0 if value is None else float(value)

    return sorted(names, key=mean)[:MAXIMUM_BOXES]


def _draw_box(axes: "Axes", place: int, numbers: Sequence[float]) -> None:
    """Box: quartiles; thick line: median; whiskers: the furthest values within 1.5 box
    lengths (Tukey); a dot a number.
    """
    if not numbers:
        return
    # fixed: the same figure each time
    spread = np.random.default_rng(place).uniform(-0.14, 0.14, len(numbers))
    dots: Style = {"color": BLUE, "markersize": 3.5, "alpha": 0.5, "markeredgewidth": 0}
    axes.plot(numbers, place + spread, "o", **dots)
    low, median, high = np.percentile(numbers, [25, 50, 75])
    reach = WHISKER * (high - low)
    inside = [n for n in numbers if low - reach <= n <= high + reach]
    edge: Style = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.1}
    axes.barh(place, high - low, left=low, height=0.5, **edge)
    starts = [min(inside), high]
    ends = [low, max(inside)]
    axes.hlines([place, place], starts, ends, color=INK, linewidth=1.1)
    axes.vlines(median, place - 0.25, place + 0.25, color=ORANGE, linewidth=2.2)


def _limit(axes: "Axes", *, shares: bool) -> None:
    """Leave room on both sides of the values: shares from 0 to 1, or mm from 0 on."""
    axes.use_sticky_edges = False
    _, highest = axes.get_xlim()
    if shares:
        axes.set_xlim(-0.03, 1.03)
    else:
        axes.set_xlim(-0.03 * highest, highest)


def _known(values: Iterable[Any]) -> list[float]:
    numbers = [value for value in values if isinstance(value, int | float)]
    return [number for number in numbers if np.isfinite(number)]


# -- parts of charts -------------------------------------------------------------------
def light_figure(height: float) -> "Figure":
    """An empty white figure of the common width, `height` inches high."""
    from matplotlib.figure import Figure

    return Figure(
        figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white"
    )


def epochs_of(records: Records) -> Records:
    """The lines of metrics.jsonl that are about a whole epoch."""
    return [record for record in records if record.get("kind") == "epoch"]


def measured_metrics(cases: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The metrics that any case holds for any of its labels."""
    metrics: set[str] = set()
    for case in cases.values():
        for row in case.values():
            metrics.update(row)
    return metrics


def keys_of(epochs: Records, prefix: str) -> list[str]:
    """The keys of all epochs that start with `prefix`."""
    return [key for key in names_in(epochs) if key.startswith(prefix)]


def line(
    axes: "Axes", epochs: Records, key: str, label: str, colour: str, **style: Any
) -> None:
    """`key` of the epochs that have it, as a line; nothing if none does."""
    places = []
    values = []
    for number, epoch in enumerate(epochs):
        if isinstance(epoch.get(key), int | float):
            place = epoch.get("epoch")
            places.append(number if place is None else place)
            values.append(epoch[key])
    if values:
        marker = "o" if len(values) < 3 else ""
        style = {"linewidth": 1.5} | style
        axes.plot(places, values, color=colour, label=label, marker=marker, **style)


def label_epochs(axes: "Axes") -> None:
    """The axis of epochs, in whole numbers."""
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)


def legend_beside(axes: "Axes") -> None:
    """A legend on the right of the panel, where no line can lie below it; nothing for
    a single line.
    """
    if len(axes.lines) > 1:
        axes.legend(
            frameon=False,
            fontsize=9,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            handlelength=2.8,
        )


def legend_above(axes: "Axes") -> None:
    """A legend over the panel, where nothing is drawn."""
    axes.legend(
        frameon=False,
        fontsize=9,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.2,
    )


def short(name: str, length: int = 18) -> str:
    """A name that fits; its end tells cases apart better than its middle."""
    if len(name) > length:
        end = length // 2
        name = f"{name[: length - end - 1]}…{name[-end:]}"
    return escaped(name)


def plain(axes: "Axes") -> None:
    """No frame above and to the right, a faint grid below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
