"""What the verbs share: options, recipe overrides, and the terminal."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from trivox.errors import DataError, FormatError, RecipeError

T = TypeVar("T")

DatasetPath = Annotated[
    Path,
    typer.Argument(
        help="dataset folder (BraTS, MSD, nnU-Net raw, images/ + labels/, class folders) or manifest file"
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="CSV or JSON with the class of each case, for example columns case,class",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="where the result goes")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N")]
Network = Annotated[
    str | None,
    typer.Option("--network", help="network family; 'trivox info --help' lists them"),
]
MemoryGb = Annotated[
    float | None, typer.Option("--memory-gb", help="memory to plan for")
]
PatchSize = Annotated[
    tuple[int, int, int] | None, typer.Option("--patch-size", help="voxels, z y x")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="any recipe setting as key=value; repeatable"),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="a recipe.json to start from, or the name of a recipe: brats"
    ),
]
DemoPreset = Annotated[
    str, typer.Option("--preset", help="quick_test, production, fine_tuning or large")
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="quick_test, production, fine_tuning or large; default: production, on a CPU quick_test",
    ),
]


class Terminal:
    """Lines and progress for people: a bar with the time left on a terminal, single
    lines when piped.
    """

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Show how far `items` are."""
        if not sys.stderr.isatty() or total == 0:
            yield from items
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            yield from bar.track(items, total=total, description=what)


def recipe_name(recipe: str | None) -> str | None:
    """What was given as --recipe, if it is the name of a recipe and not a file."""
    from trivox.config.presets import NAMED_RECIPES

    return recipe if recipe in NAMED_RECIPES else None


def overrides(settings: list[str] | None, **options: Any) -> dict[str, Any]:
    """Recipe overrides: a recipe file, then --set, then the options that were given."""
    from trivox.config.presets import NAMED_RECIPES
    from trivox.config.recipe import parse_settings
    from trivox.files import read_json

    file = options.pop("recipe", None)
    given = {key: value for key, value in options.items() if value is not None}
    if file is not None and recipe_name(file) is None and not Path(file).exists():
        raise RecipeError(
            f"recipe '{file}' does not exist; give a recipe.json or one of {', '.join(NAMED_RECIPES)}"
        )
    content = (
        read_json(Path(file)) if file is not None and recipe_name(file) is None else {}
    )
    if not isinstance(content, dict):
        raise RecipeError(
            f"{file}: is no recipe; give the recipe.json of a run, or an object of settings"
        )
    base = {key: value for key, value in content.items() if key != "preset"}
    return {**base, **parse_settings(settings or []), **given}


def numbers(text: str) -> list[float]:
    """`"0.9,1,1.1"` as numbers above 0."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise typer.BadParameter(
            f"--scales {text}: give numbers above 0 with commas between, for example 0.9,1,1.1"
        )
    return numbers


def angles(text: str, option: str) -> tuple[float, ...]:
    """`"0,90,-30"` as degrees."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} {text}: give degrees with commas between, for example 0,90"
        ) from error


def named_values(pairs: Iterable[str]) -> dict[str, int]:
    """`["pancreas=1", "lesion=2"]` as values by name."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name.strip() or not value.strip().isdecimal() or name.strip() in found:
            raise typer.BadParameter(
                f"--labels {pair}: give each name once, with its value, for example pancreas=1"
            )
        found[name.strip()] = int(value)
    return found


def named(cases: Iterable[Any], file: Path) -> tuple[Any, ...]:
    """The cases whose names stand in a text file, one a line."""
    if not file.exists():
        raise FormatError(
            f"{file}: file not found; give a text file with one case name a line"
        )
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{file}: is not UTF-8 text; give a text file with one case name a line"
        ) from error
    wanted = {line.strip() for line in lines if line.strip()}
    chosen = tuple(case for case in cases if case.name in wanted)
    missing = wanted - {case.name for case in chosen}
    if missing:
        raise DataError(f"{file}: cases {sorted(missing)[:5]} are not in the input")
    return chosen
