"""Charts of numbers: learning curves, the distribution of metrics over cases,
reliability. PNG bytes, no pyplot.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.report.figures import LINES, PALETTE, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#6b7280", "#1f2937"
MAXIMUM_BOXES = 40
OF_LABEL = "validation_dice/"

Records = Sequence[Mapping[str, Any]]


def training_curves(records: Records) -> bytes | None:
    """Loss, validation Dice and learning rate by epoch, from the lines of
    metrics.jsonl; None without any epoch.

    The Dice of each label or region (`validation_dice/NAME`) is drawn where there are 2
    to 7, in the colours of the figures.
    """
    from matplotlib.figure import Figure

    epochs = [record for record in records if record.get("kind") == "epoch"]
    if not epochs:
        return None
    figure = Figure(figsize=(10, 6.4), dpi=110, layout="constrained", facecolor="white")
    loss, dice, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.4])
    line(loss, epochs, "train_loss", "training", BLUE)
    line(loss, epochs, "validation_loss", "validation", ORANGE)
    loss.set_ylabel("loss")
    names = list(
        dict.fromkeys(
            key for epoch in epochs for key in epoch if key.startswith(OF_LABEL)
        )
    )
    for i, key in enumerate(names if 1 < len(names) <= len(PALETTE) else []):
        name = escaped(key.removeprefix(OF_LABEL))
        line(
            dice,
            epochs,
            key,
            name,
            PALETTE[i],
            linestyle=LINES[i % len(LINES)],
            linewidth=1.4,
        )
    line(dice, epochs, "validation_dice", "mean, each epoch", INK, alpha=0.4)
    line(dice, epochs, "validation_dice_ema", "mean, smoothed", INK, linewidth=2.2)
    dice.set_ylabel("validation Dice")
    dice.set_ylim(0, 1)
    line(rate, epochs, "lr", "learning rate", GREY)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("epoch")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    rate.xaxis.get_major_locator().set_params(integer=True)
    for axes in (loss, dice, rate):
        plain(axes)
        if len(axes.lines) > 1:
            axes.legend(
                frameon=False,
                fontsize=9,
                ncols=2 if len(axes.lines) > 3 else 1,
                handlelength=2.8,
            )
    return png(figure)


def box_plots(metrics: Mapping[str, Any]) -> bytes | None:
    """Dice, HD95 and NSD of all cases, a box and a dot a case for each label; None if
    there are no cases.

    With more than 40 labels, those with the lowest mean Dice are shown.
    """
    from matplotlib.figure import Figure

    cases = metrics.get("cases") or {}
    names = list(dict.fromkeys(name for case in cases.values() for name in case))
    if not names:
        return None
    names = _worst(names, metrics) if len(names) > MAXIMUM_BOXES else names
    figure = Figure(
        figsize=(10, 1.3 + 0.42 * len(names)),
        dpi=110,
        layout="constrained",
        facecolor="white",
    )
    titles = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "nsd": _nsd_title(metrics)}
    if not any(
        "nsd" in row for case in cases.values() for row in case.values()
    ):  # some conventions have none
        del titles["nsd"]
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        values = [
            _known(case.get(name, {}).get(metric) for case in cases.values())
            for name in names
        ]
        _boxes(axes, values)
        axes.set_xlabel(title)
        axes.set_xlim(*((-0.03, 1.03) if metric != "hd95_mm" else (0, None)))
        plain(axes)
    panels[0].set_yticks(range(len(names)), [escaped(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    return png(figure)


def reliability_chart(calibration: Mapping[str, Any]) -> bytes | None:
    """Accuracy against confidence, before and after temperature scaling, above how many
    voxels have which confidence.

    calibration: the section of metrics.json. None if it holds no curve.
    """
    from matplotlib.figure import Figure

    curves = calibration.get("reliability") or {}
    if not any(sum(curve["count"]) for curve in curves.values()):
        return None
    figure = Figure(figsize=(10, 5.2), dpi=110, layout="constrained", facecolor="white")
    panels = figure.subplots(
        2, len(curves), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False
    )
    for (stage, curve), (upper, lower) in zip(curves.items(), panels.T, strict=True):
        reliability_panels(upper, lower, curve)
        upper.set_title(
            f"{stage} temperature scaling, ECE {(calibration.get(stage) or {}).get('ece', float('nan')):.3f}",
            fontsize=10.5,
            color=INK,
        )
        lower.set_xlabel("confidence (largest probability)")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("share of voxels (%)")
    return png(figure)


def reliability_panels(upper: "Axes", lower: "Axes", curve: Mapping[str, Any]) -> None:
    """Bars reach the accuracy; the point on each stands at the mean confidence, on the
    diagonal where they agree.
    """
    bins, total = len(curve["count"]), sum(curve["count"])
    centres = (np.arange(bins) + 0.5) / bins
    filled = [i for i in range(bins) if curve["count"][i]]
    confidence, accuracy = (
        [curve[key][i] for i in filled] for key in ("confidence", "accuracy")
    )
    upper.bar(
        centres[filled],
        accuracy,
        width=0.92 / bins,
        color=BLUE,
        alpha=0.35,
        label="accuracy of the bin",
    )
    upper.plot(
        [0, 1],
        [0, 1],
        color=GREY,
        linewidth=1.2,
        linestyle="--",
        label="confidence = accuracy",
    )
    upper.plot(
        confidence,
        accuracy,
        "o-",
        color=ORANGE,
        markersize=4,
        linewidth=1.4,
        label="at its mean confidence",
    )
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    upper.legend(frameon=False, fontsize=9, loc="upper left")
    lower.bar(
        centres,
        [100 * count / total for count in curve["count"]],
        width=0.92 / bins,
        color=GREY,
    )
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


def _boxes(axes: "Axes", values: Sequence[Sequence[float]]) -> None:
    """Box: quartiles; thick line: median; whiskers: the furthest values within 1.5 box
    lengths (Tukey).
    """
    for row, numbers in enumerate(values):
        if not numbers:
            continue
        spread = np.random.default_rng(row).uniform(
            -0.14, 0.14, len(numbers)
        )  # fixed: the same figure each time
        axes.plot(
            numbers,
            row + spread,
            "o",
            color=BLUE,
            markersize=3.5,
            alpha=0.5,
            markeredgewidth=0,
        )
        low, median, high = np.percentile(numbers, [25, 50, 75])
        inside = [
            n
            for n in numbers
            if low - 1.5 * (high - low) <= n <= high + 1.5 * (high - low)
        ]
        axes.barh(
            row,
            high - low,
            left=low,
            height=0.5,
            facecolor="none",
            edgecolor=INK,
            linewidth=1.1,
        )
        axes.hlines(
            [row, row],
            [min(inside), high],
            [low, max(inside)],
            color=INK,
            linewidth=1.1,
        )
        axes.vlines(median, row - 0.25, row + 0.25, color=ORANGE, linewidth=2.2)


def line(
    axes: "Axes", epochs: Records, key: str, label: str, colour: str, **style: Any
) -> None:
    """`key` of the epochs that have it, as a line; nothing if none does."""
    points = [
        (i if e.get("epoch") is None else e["epoch"], e[key])
        for i, e in enumerate(epochs)
        if isinstance(e.get(key), int | float)
    ]
    if points:
        marker = "o" if len(points) < 3 else ""
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            label=label,
            marker=marker,
            **{"linewidth": 1.5, **style},
        )


def plain(axes: "Axes") -> None:
    """No frame above and to the right, a faint grid below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _known(values: Any) -> list[float]:
    return [
        value
        for value in values
        if isinstance(value, int | float) and np.isfinite(value)
    ]


def escaped(name: str) -> str:
    """A name as it is, for matplotlib, which reads text between dollars as mathematics."""
    return name.replace("$", r"\$")
