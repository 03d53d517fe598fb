"""Several raters and a model in words, for the terminal."""

from collections.abc import Iterator

from trivox.evaluation.metrics.content import RatersSection, RatersTarget, Statistics


def rater_lines(section: RatersSection) -> list[str]:
    """What is said of raters on the terminal: Dice over all targets, and in which place
    the model stands.
    """
    target, row = list(section["targets"].items())[-1]
    lines = [
        f"Dice of {target} in {len(section['cases'])} cases of {len(row['raters'])} "
        "raters (mean, 95 % interval):"
    ]
    for name, rater in row["raters"].items():
        lines.append(
            f"  {name}: with the other raters {_shown(rater['others'])}, with the model "
            f"{_shown(rater['model'])}"
        )
    lines.append(f"  raters with one another {_shown(row['among'])}")
    lines.append(
        f"  model with the raters {_shown(row['model'])}, with their majority "
        f"{_shown(row['majority'])}, with STAPLE {_shown(row['staple'])}"
    )
    return [*lines, *(f"  {text}" for text in standing(row))]


def standing(row: RatersTarget) -> Iterator[str]:
    """Whether the model agrees with the raters as they do with one another."""
    means = [rater["others"]["dice"]["mean"] for rater in row["raters"].values()]
    known = [mean for mean in means if mean is not None]
    model = row["model"]["dice"]["mean"]
    if not known or model is None:
        return
    low = min(known)
    high = max(known)
    place = "within"
    if model < low:
        place = "below"
    if model > high:
        place = "above"
    claim = row["difference"].get("dice")
    if claim is None:
        return
    interval = ""
    if claim["ci95"] is not None:
        interval = f" ({claim['ci95'][0]:+.4f} to {claim['ci95'][1]:+.4f})"
    yield (
        f"the model is {place} the range of the raters, {low:.4f} to {high:.4f}; model "
        f"minus raters {claim['mean']:+.4f}{interval}"
    )


def _shown(statistics: Statistics) -> str:
    dice = statistics["dice"]
    if dice["mean"] is None:
        return "-"
    text = f"{dice['mean']:.4f}"
    if dice["ci95"] is None:
        return text
    low, high = dice["ci95"]
    return f"{text} ({low:.4f}-{high:.4f})"
