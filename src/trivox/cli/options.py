"""Options that several commands share, and how their texts become values."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from trivox.config.choices import PresetName
from trivox.verbs.texts import text


def option(verb: str, name: str, **settings: Any) -> Any:
    """An option of a command; it is called and explained as in Python."""
    flag = "--" + name.replace("_", "-")
    return typer.Option(flag, help=text(verb, name), **settings)


def argument(verb: str, name: str, **settings: Any) -> Any:
    """An argument of a command, likewise."""
    return typer.Argument(help=text(verb, name), **settings)


DatasetPath = Annotated[Path, argument("train", "dataset")]
Classes = Annotated[Path | None, option("train", "classes")]
Out = Annotated[Path, option("predict", "out")]
Device = Annotated[str, option("train", "device")]
Network = Annotated[str | None, option("train", "network")]
MemoryGb = Annotated[float | None, option("train", "memory_gb")]
PatchSize = Annotated[tuple[int, int, int] | None, option("train", "patch_size")]
Settings = Annotated[list[str] | None, option("train", "set")]
RecipeName = Annotated[str | None, option("train", "recipe")]
Preset = Annotated[PresetName | None, option("train", "preset")]
Epochs = Annotated[int | None, option("train", "epochs")]
Minutes = Annotated[float | None, option("train", "minutes")]
Seed = Annotated[int | None, option("train", "seed")]
Resume = Annotated[bool, option("train", "resume")]

TRIPLES = ("--patch-size", "--isocentre", "--point")
"""Options of three numbers, which may come as one: `96,96,96`."""


def split_triples(arguments: Iterable[str]) -> list[str]:
    """`--patch-size 96,96,96` and `--patch-size=96,96,96` as `--patch-size 96 96 96`."""
    result: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in TRIPLES and equals:
            result += [name, *value.split(",")]
        elif result and result[-1] in TRIPLES and "," in argument:
            result += argument.split(",")
        else:
            result.append(argument)
    return result


def numbers(option: str, text: str) -> tuple[float, ...]:
    """`"0.9,1,1.1"` as numbers above 0."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < float("inf") for value in values):
        raise typer.BadParameter(
            f"{option} {text}: give numbers above 0 with commas between, for example "
            "0.9,1,1.1"
        )
    return values


def named_values(option: str, pairs: Iterable[str]) -> dict[str, int]:
    """`["pancreas=1", "lesion=2"]` as values by name."""
    values: dict[str, int] = {}
    for pair in pairs:
        name, _, value = (part.strip() for part in pair.partition("="))
        if not name or not value.isdecimal() or name in values:
            raise typer.BadParameter(
                f"{option} {pair}: give each name once, with its value, for example "
                "pancreas=1"
            )
        values[name] = int(value)
    return values
