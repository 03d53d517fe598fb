"""Programs and texts of an export that are for machines without trivox."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trivox.files import write_text
from trivox.version import NOTICE

STANDALONE = Path(__file__).parent / "standalone"
TRIVOX = Path(__file__).parents[1]
PROGRAM = ("run.py", "grids.py", "runtimes.py")
CLASS_PROGRAM = ("classes.py", "classifier.py", "components.py", "volume.py")
"""What a program of a model with classes has as well."""
MEASURES = (
    "datasets/boxes.py",
    "inference/classes/features.py",
    "inference/classes/lesion_masks.py",
    "inference/classes/lesion_shape.py",
    "inference/classes/lesion_texture.py",
    "learning/case_classifier/network.py",
)
"""Modules of trivox that it has as they are: they import numpy, scipy and each other."""
ROOM = re.compile(r"^from trivox\.[\w.]*?(\w+) import", re.MULTILINE)


def write_program(folder: Path, *, classes: bool) -> None:
    """Write the program that makes a label map of a scan, beside `export.json`; classes:
    and tells the class of the case.
    """
    names = (*PROGRAM, *CLASS_PROGRAM) if classes else PROGRAM
    for name in names:
        shutil.copyfile(STANDALONE / name, folder / name)
    for module in MEASURES if classes else ():
        content = (TRIVOX / module).read_text(encoding="utf-8")
        side_by_side = ROOM.sub(r"from \1 import", content)
        write_text(folder / Path(module).name, side_by_side)


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
