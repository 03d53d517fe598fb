"""Programs and texts of an export that are for machines without trivox."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trivox.version import NOTICE

STANDALONE = Path(__file__).parent / "standalone"
PROGRAM = ("run.py", "grids.py", "runtimes.py")


def write_program(folder: Path) -> None:
    """Write the program that makes a label map of a scan, beside `export.json`."""
    for name in PROGRAM:
        shutil.copyfile(STANDALONE / name, folder / name)


def rendered(template: str, facts: Mapping[str, Any]) -> str:
    """A text of the folder `standalone` with these facts in it."""
    environment = Environment(
        loader=FileSystemLoader(STANDALONE),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # Markdown and settings
    )
    return environment.get_template(template).render(facts, notice=NOTICE)
