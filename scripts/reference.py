"""Write docs/reference/commands.md, python.md and recipe.md from the code; a test holds
them current.

    python scripts/reference.py
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.main import get_command

import trivox
from trivox.cli import app
from trivox.config.options import Augmentation, ClassificationOptions, LossOptions
from trivox.config.presets import NETWORK_SETTINGS, PRESETS
from trivox.config.recipe import Recipe
from trivox.config.volumes import ReconstructionLoss, ReconstructionOptions
from trivox.networks.registry import NETWORKS
from trivox.verbs.texts import text

DOCS = Path(__file__).parents[1] / "docs" / "reference"


def commands_page() -> str:
    """Every verb with its arguments and options."""
    root = get_command(app)
    lines = [
        "# Commands",
        "",
        "Every verb exits with 0 on success, 1 with one line that says what, where and "
        "what to do, 2 on wrong usage.",
        "`trivox --debug VERB ...` shows the traceback; `trivox VERB ... --json` prints "
        "one [document](schemas.md) for programs.",
        "",
    ]
    for name, command in _verbs(root.commands):  # type: ignore[attr-defined]
        context = typer.Context(command, info_name=f"trivox {name}")
        annotations = inspect.get_annotations(command.callback)
        lines += [
            f"## trivox {name}",
            "",
            *(command.help or "").strip().splitlines(),
            "",
            "| option | meaning | default |",
            "|---|---|---|",
        ]
        for parameter in command.get_params(context):
            if parameter.name != "help":
                annotation = annotations.get(parameter.name)
                lines.append(_option_row(parameter, annotation))
        lines.append("")
        if name == "info":
            lines += [*_network_rows(), ""]
    return "\n".join(lines)


def choices_in(annotation: Any) -> list[str]:
    """What an option may be, where its type lists that."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return [str(choice) for choice in annotation]
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    choices = []
    for part in get_args(annotation):
        choices += choices_in(part)
    return choices


def _network_rows() -> list[str]:
    rows = ["| network | what it is |", "|---|---|"]
    rows += [f"| `{name}` | {family.says} |" for name, family in NETWORKS.items()]
    return rows


def _option_row(parameter: Any, annotation: Any) -> str:
    shown = parameter.name.upper()
    if parameter.param_type_name == "option":
        shown = ", ".join(parameter.opts + parameter.secondary_opts)
    default = ""
    if parameter.required:
        default = "required"
    elif parameter.default is not None:
        default = f"`{_plain(parameter.default)}`"
    meaning = getattr(parameter, "help", "") or ""
    choices = choices_in(annotation)
    if choices:
        listed = ", ".join(f"`{choice}`" for choice in choices)
        meaning = f"{meaning}: {listed}"
    return f"| `{shown}` | {meaning} | {default} |"


def _verbs(commands: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and commands; a group's as `import nnunet`."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{before}{name}", command
            yield from _verbs(command.commands, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


NOUNS = ("Predictor", "Reconstructor", "Recipe", "Dataset", "Case", "Volume")
FUNCTIONS = (
    "load_dataset",
    "make_recipe",
    "read_volume",
    "read_labels",
    "write_volume",
)


def python_page() -> str:
    """The verbs with their options and results, and the nouns."""
    lines = [
        "# Python",
        "",
        *inspect.cleandoc(trivox.__doc__ or "").splitlines()[2:],
        "",
        "```python",
        "import trivox",
        "",
        'run = trivox.train("scans", "runs/first", minutes=12)',
        'predictions = trivox.predict(run.folder, "new_scans", "predictions")',
        'evaluation = trivox.evaluate("predictions", "references", "metrics.json")',
        "print(run.headline, evaluation.headline)",
        "```",
        "",
        "Paths may be `pathlib.Path` or text. Every error derives from "
        "`trivox.TrivoxError` and says what, where and what to do.",
        "",
        "## Verbs",
        "",
    ]
    for verb in trivox.VERBS:
        lines += _verb_lines(verb)
    lines += ["## Nouns", ""]
    for noun in NOUNS:
        lines += _class_lines(getattr(trivox, noun), f"trivox.{noun}")
    lines += ["## Reading and writing", ""]
    for name in FUNCTIONS:
        lines += _function_lines(getattr(trivox, name), f"trivox.{name}")
    return "\n".join(lines).rstrip() + "\n"


def _verb_lines(verb: str) -> list[str]:
    function = getattr(trivox, verb)
    signature = inspect.signature(function)
    meaning = inspect.cleandoc(function.__doc__ or "").partition("\n\nOptions:")[0]
    lines = [
        f"### trivox.{verb}",
        "",
        *meaning.splitlines(),
        "",
        "| option | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, parameter in signature.parameters.items():
        default = "required"
        if parameter.default is not inspect.Parameter.empty:
            default = f"`{_plain(parameter.default)}`"
        kind = _type_name(parameter.annotation)
        lines.append(f"| `{name}` | {kind} | {default} | {text(verb, name)} |")
    lines += ["", f"Returns {_type_name(signature.return_annotation)}.", ""]
    result = signature.return_annotation
    if is_dataclass(result):
        lines += [*_members(result), ""]
    return lines


def _class_lines(kind: type, title: str) -> list[str]:
    lines = [f"### {title}", "", *inspect.cleandoc(kind.__doc__ or "").splitlines(), ""]
    return [*lines, *_members(kind), ""]


def _function_lines(function: Any, title: str) -> list[str]:
    signature = str(inspect.signature(function)).replace("pathlib._local.", "pathlib.")
    name = title.rpartition(".")[2]
    meaning = inspect.cleandoc(function.__doc__ or "").splitlines()
    return [f"### {title}", "", f"`{name}{signature}`", "", *meaning, ""]


def _members(kind: type) -> list[str]:
    """Fields, properties and methods that a class defines itself."""
    rows = ["| name | what it is |", "|---|---|"]
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    for name in names:
        annotation = kind.__annotations__.get(name, "")
        rows.append(f"| `{name}` | {_type_name(annotation)} |")
    for name, member in vars(kind).items():
        if name.startswith("_") or name in names:
            continue
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not inspect.isfunction(function):
            continue
        shown = name if isinstance(member, property) else f"{name}()"
        first = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        rows.append(f"| `{shown}` | {' '.join(first.split())} |")
    return rows if len(rows) > 2 else []


def _type_name(annotation: Any) -> str:
    """A type as it is written, in a cell of a table."""
    shown = (
        annotation
        if isinstance(annotation, str)
        else inspect.formatannotation(annotation)
    )
    for module in (
        "pydantic.main.",
        "pathlib._local.",
        "pathlib.",
        "collections.abc.",
        "typing.",
    ):
        shown = shown.replace(module, "")
    shown = re.sub(r"trivox\.[a-z_.]+\.", "", shown)
    return f"`{shown}`".replace("|", "\\|")


NESTED = {"augmentation", "loss_options", "classification"}
"""Settings that have a table of their own."""
PAGES = {
    "Settings": Recipe,
    "Augmentation": Augmentation,
    "Loss options": LossOptions,
    "Classification": ClassificationOptions,
    "Reconstruction": ReconstructionOptions,
    "Reconstruction loss": ReconstructionLoss,
}


def recipe_page() -> str:
    """Every setting with its type, default and meaning, and what each preset changes."""
    lines = [
        "# Recipe",
        "",
        "`trivox train --set key=value`; nested settings with a dot: "
        "`--set augmentation.rotation=0.5`.",
        "",
    ]
    for title, model in PAGES.items():
        lines += [
            f"## {title}",
            "",
            inspect.cleandoc(model.__doc__ or ""),
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for name, field in model.model_fields.items():
            default = "see below" if name in NESTED else f"`{field.default}`"
            lines.append(f"| `{name}` | {default} | {field.description or ''} |")
        lines.append("")
    return "\n".join([*lines, *_preset_lines()]) + "\n"


def _preset_lines() -> list[str]:
    lines = ["## Presets", "", "| preset | changes |", "|---|---|"]
    for name, changes in PRESETS.items():
        lines.append(f"| `{name}` | {_listed(changes) or 'the defaults'} |")
    lines += [
        "",
        "Some networks change more, unless the setting is given:",
        "",
        "| network | preset | changes |",
        "|---|---|---|",
    ]
    for family, presets in NETWORK_SETTINGS.items():
        for preset, changes in presets.items():
            lines.append(f"| `{family}-*` | `{preset}` | {_listed(changes)} |")
    return lines


def _listed(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in changes.items())


def _plain(value: object) -> str:
    return value.as_posix() if isinstance(value, Path) else str(value)


if __name__ == "__main__":
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "commands.md").write_text(commands_page(), encoding="utf-8")
    (DOCS / "python.md").write_text(python_page(), encoding="utf-8")
    (DOCS / "recipe.md").write_text(recipe_page(), encoding="utf-8")
