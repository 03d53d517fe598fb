"""Settings that a caller gives a verb: a recipe by file or name, single settings, and
options that have a name of their own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trivox.config.presets import NAMED_RECIPES
from trivox.config.recipe import merged, parse_settings
from trivox.errors import RecipeError, UsageError
from trivox.files import read_json
from trivox.planning.cost import CostSettings
from trivox.schema import unstamped
from trivox.volumes.choice import SeriesChoice

Settings = Mapping[str, Any] | Sequence[str] | None
"""`{"augmentation.rotation": 0.5}`, or `["augmentation.rotation=0.5"]` as the command
line has it.
"""


def series_choice(series: str | None, slice_tolerance: float | None) -> SeriesChoice:
    """How DICOM is read; raises `UsageError` for a tolerance that is no distance."""
    if slice_tolerance is not None and not 0 <= slice_tolerance < float("inf"):
        raise UsageError(
            f"--slice-tolerance {slice_tolerance}: give mm, 0 or more, for example 0.1"
        )
    return SeriesChoice(series=series, slice_tolerance=slice_tolerance)


def cost_settings(
    watts_per_core: float | None,
    price_per_hour: float | None,
    price_per_kwh: float | None,
) -> CostSettings:
    """What energy and time cost, of options that were given (not None); raises
    `UsageError` for one that can be neither power nor price.
    """
    options = {
        "watts_per_core": watts_per_core,
        "price_per_hour": price_per_hour,
        "price_per_kwh": price_per_kwh,
    }
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return CostSettings(**given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        option = name.replace("_", "-")
        least = "a number above 0" if name == "watts_per_core" else "0 or more"
        raise UsageError(
            f"--{option} {given[name]}: give {least}, for example 0.3"
        ) from error


def recipe_name(recipe: Path | str | None) -> str | None:
    """What was given as a recipe, if it is the name of one and not a file."""
    name = None if recipe is None else str(recipe)
    return name if name in NAMED_RECIPES else None


def overrides(
    recipe: Path | str | None, settings: Settings, **options: Any
) -> dict[str, Any]:
    """Settings of a recipe: those of its file, then single ones, then options that were
    given (not None).
    """
    given = {name: value for name, value in options.items() if value is not None}
    return {**_from_file(recipe), **parsed(settings), **given}


def _from_file(recipe: Path | str | None) -> dict[str, Any]:
    if recipe is None or recipe_name(recipe) is not None:
        return {}
    file = Path(recipe)
    if not file.exists():
        known = ", ".join(NAMED_RECIPES)
        raise RecipeError(
            f"recipe '{recipe}' does not exist; give a recipe.json or one of {known}"
        )
    content = read_json(file)
    if not isinstance(content, dict):
        raise RecipeError(
            f"{file}: is no recipe; give the recipe.json of a run, or an object of "
            "settings"
        )
    try:
        settings = unstamped(content)
    except ValueError as error:
        raise RecipeError(f"{file}: {error}") from error
    return {name: value for name, value in settings.items() if name != "preset"}


def parsed(settings: Settings) -> dict[str, Any]:
    """Settings as a tree: `{"a.b": 1}` and `["a.b=1"]` both become `{"a": {"b": 1}}`."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        return parse_settings(list(settings))
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        tree = merged(tree, value)
    return tree
