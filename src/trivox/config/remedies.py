"""Remedies against imbalance that a recipe takes at once; together they overshoot."""

from collections.abc import Iterator

from trivox.config.recipe import Recipe

USUAL_SHARE = Recipe.model_fields["foreground_fraction"].default


def doubled_remedies(recipe: Recipe, *, classes: bool) -> Iterator[str]:
    """A line for each imbalance that several settings work against.

    classes: whether cases have classes that are learnt.
    """
    weighted = recipe.loss_options.class_weights
    voxels = {
        f"loss_options.class_weights={weighted}": weighted != "none",
        "loss_options.target_weights": bool(recipe.loss_options.target_weights),
        f"foreground_fraction={recipe.foreground_fraction:g}": (
            recipe.foreground_fraction > USUAL_SHARE
        ),
    }
    yield from _line("small labels", voxels)
    if classes:
        chosen = recipe.classification
        cases = {
            f"classification.imbalance={chosen.imbalance}": chosen.imbalance != "none",
            f"classification.class_weights={chosen.class_weights}": (
                chosen.class_weights != "none"
            ),
        }
        yield from _line("rare classes", cases)


def _line(what: str, taken: dict[str, bool]) -> Iterator[str]:
    names = [name for name, is_taken in taken.items() if is_taken]
    if len(names) > 1:
        yield (
            f"warning: {' and '.join(names)} all favour {what}; together they overshoot, "
            "keep one of them"
        )
