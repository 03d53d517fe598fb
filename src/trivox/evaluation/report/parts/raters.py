"""What the report shows of several raters: how they agree with one another, and the
model with them.
"""

from typing import TYPE_CHECKING, NamedTuple

from trivox.evaluation.folders.labels import mean_row
from trivox.evaluation.folders.rater_words import standing
from trivox.evaluation.metrics.content import (
    RatersSection,
    RatersTarget,
    Statistic,
)
from trivox.evaluation.report.charts import (
    BLUE,
    GREY,
    ORANGE,
    legend_above,
    light_figure,
    plain,
    short,
)
from trivox.evaluation.report.drawing import png
from trivox.evaluation.report.pages import (
    Metrics,
    Part,
    methods_text,
    rendered,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL = "all labels"
MOST_RATERS = 30
"""In the figure; a table has all."""


class RaterLine(NamedTuple):
    """A row of the table of a target: who is compared, and Dice with raters and model."""

    name: str
    raters: Statistic | None
    model: Statistic | None
    sensitivity: Statistic | None = None
    specificity: Statistic | None = None
    together: bool = False


class RatersView(NamedTuple):
    """A target: its table, and what follows from it."""

    name: str
    lines: list[RaterLine]
    sentence: str


def raters_part(metrics: Metrics) -> Part:
    """Raters and model by target; empty without the section `raters`."""
    section: RatersSection | None = metrics.get("raters")
    if not section:
        return Part()
    views = [_view(title, row) for title, row in _titled(section).items()]
    shown: list[Statistic] = []
    for view in views:
        for line in view.lines:
            shown += [each for each in line[1:5] if each is not None]
    body = rendered(
        "raters_part.html.j2",
        targets=views,
        cases=len(section["cases"]),
        methods=methods_text(shown),
        chart=raters_chart(section),
    )
    return Part(body=body, convention=titled("raters", section.get("convention")))


def _titled(section: RatersSection) -> dict[str, RatersTarget]:
    """The targets; what stands for the mean over them is called so."""
    *names, last = section["targets"]
    title = ALL if names and last == mean_row(names) else last
    return dict(zip([*names, title], section["targets"].values(), strict=True))


def _view(name: str, row: RatersTarget) -> RatersView:
    lines = [
        RaterLine(
            rater,
            each["others"].get("dice"),
            each["model"].get("dice"),
            each.get("sensitivity"),
            each.get("specificity"),
        )
        for rater, each in row["raters"].items()
    ]
    among = row["among"].get("dice")
    lines += [
        RaterLine("raters on average", among, row["model"].get("dice"), together=True),
        RaterLine("their majority", None, row["majority"].get("dice"), together=True),
        RaterLine("STAPLE of them", None, row["staple"].get("dice"), together=True),
    ]
    sentence = " ".join(standing(row))
    return RatersView(name, lines, sentence[:1].upper() + sentence[1:])


def raters_chart(section: RatersSection) -> bytes | None:
    """Dice of each rater with the others, and of the model with each rater and with what
    they agree on, over all targets; None where nothing is known.
    """
    name, row = list(_titled(section).items())[-1]
    lines = _view(name, row).lines
    raters = [line for line in lines if not line.together][:MOST_RATERS]
    lines = [*raters, *(line for line in lines if line.together)]
    known = [line for line in lines if _mean(line.raters) or _mean(line.model)]
    if not known:
        return None
    figure = light_figure(1.3 + 0.42 * len(known))
    axes = figure.subplots()
    for place, line in enumerate(known):
        _draw(axes, place - 0.13, line.raters, BLUE, "s")
        _draw(axes, place + 0.13, line.model, ORANGE, "o")
    axes.plot([], [], "s", color=BLUE, label="with the (other) raters")
    axes.plot([], [], "o", color=ORANGE, label="with the model")
    first = sum(not line.together for line in known)
    axes.axhline(first - 0.5, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(known)), [short(line.name, 28) for line in known])
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set_xlabel(f"Dice of {short(name, 40)} (mean, 95 % interval)")
    plain(axes)
    legend_above(axes)
    return png(figure)


def _mean(statistic: Statistic | None) -> float | None:
    return None if statistic is None else statistic["mean"]


def _draw(
    axes: "Axes", place: float, statistic: Statistic | None, colour: str, mark: str
) -> None:
    if statistic is None or statistic["mean"] is None:
        return
    axes.plot(statistic["mean"], place, mark, color=colour, markersize=5.5)
    if statistic["ci95"] is not None:
        low, high = statistic["ci95"]
        axes.hlines(place, low, high, color=colour, linewidth=1.6)
