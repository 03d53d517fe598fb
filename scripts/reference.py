"""Write docs/reference/commands.md and recipe.md from the code; a test holds them
current.

    python scripts/reference.py
"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from trivox.cli import app
from trivox.config.options import Augmentation, ClassificationOptions, LossOptions
from trivox.config.presets import NETWORK_SETTINGS, PRESETS
from trivox.config.recipe import Recipe
from trivox.config.volumes import ReconstructionLoss, ReconstructionOptions

DOCS = Path(__file__).parents[1] / "docs" / "reference"


def commands_page() -> str:
    """Every verb with its arguments and options."""
    root = get_command(app)
    lines = [
        "# Commands",
        "",
        "Every verb exits with 0 on success, 1 with one line that says what, where and "
        "what to do, 2 on wrong usage.",
        "`trivox --debug VERB ...` shows the traceback.",
        "",
    ]
    for name, command in _verbs(root.commands):  # type: ignore[attr-defined]
        context = typer.Context(command, info_name=f"trivox {name}")
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
                lines.append(_option_row(parameter))
        lines.append("")
    return "\n".join(lines)


def _option_row(parameter: Any) -> str:
    shown = parameter.name.upper()
    if parameter.param_type_name == "option":
        shown = ", ".join(parameter.opts + parameter.secondary_opts)
    default = ""
    if parameter.required:
        default = "required"
    elif parameter.default is not None:
        default = f"`{_plain(parameter.default)}`"
    meaning = getattr(parameter, "help", "") or ""
    return f"| `{shown}` | {meaning} | {default} |"


def _verbs(commands: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and commands; a group's as `import nnunet`."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command.commands, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


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
    (DOCS / "recipe.md").write_text(recipe_page(), encoding="utf-8")
