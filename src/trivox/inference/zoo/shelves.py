"""Where models that are ready to use lie, and how a name becomes a folder.

A shelf is a folder with one bundle a name. There are two: what was fetched, in the
user's cache, and `models/` of a checkout that trivox is installed from (`pip install
-e`). What was fetched goes first.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trivox.caches import cache_folder
from trivox.errors import BundleError
from trivox.files import surviving_folder

NAME = r"[a-z0-9]+(?:-[a-z0-9]+)*"
"""How models may be called."""
ON_DISK = rf"({NAME})|\.({NAME})\.old"
"""The name of a model's folder, and what it is called while it is replaced."""
RELEASED = ("brain-phantom", "hippocampus", "xray-phantom")
"""Models of this version's release, here or not yet."""
DESCRIPTION = "bundle.json"
CHECKOUT = Path(__file__).parents[4]


def users_shelf() -> Path | None:
    """Where fetched models are put; None for a user without a home."""
    return cache_folder("models")


def checkouts_shelf() -> Path | None:
    """`models/` of the checkout that trivox runs from; None where it is installed."""
    shelf = CHECKOUT / "models"
    is_ours = (CHECKOUT / "src" / "trivox").is_dir() and shelf.is_dir()
    return shelf if is_ours else None


def ready_models() -> dict[str, Path]:
    """The models that are here: name -> folder of the bundle, sorted by name."""
    models: dict[str, Path] = {}
    for shelf in (checkouts_shelf(), users_shelf()):
        if shelf is not None:
            models.update(_on(shelf))
    return dict(sorted(models.items()))


def known_names() -> list[str]:
    """Names of the models that are here or in this version's release."""
    return sorted({*ready_models(), *RELEASED})


def model_folder(model: Path) -> Path:
    """What a user calls a model, as a path: one that exists, else the folder of the
    ready model of that name.

    Raises `BundleError` for what is neither, which lists the names that are known.
    """
    if os.path.lexists(model):
        return model
    name = str(model)
    models = ready_models()
    if name in models:
        return models[name]
    if name in RELEASED:
        raise BundleError(
            f"{name}: this ready model is not here yet; get it with 'trivox models "
            f"fetch {name}'"
        )
    raise BundleError(
        f"{model}: no model there; give a run or a bundle folder, or {_choice()}"
    )


def same_name_hint(model: Path) -> str:
    """What to add where something at a path is no model but has the name of one."""
    folder = ready_models().get(str(model))
    return "" if folder is None else f" (the ready model of that name is {folder})"


def _choice() -> str:
    return f"the name of a ready model: {', '.join(known_names())}"


def _on(shelf: Path) -> Mapping[str, Path]:
    """The models on a shelf, those included that a killed process left under their
    hidden name while it replaced them; none where nothing can be listed.
    """
    names = set(RELEASED)
    with suppress(OSError):
        for entry in shelf.iterdir():
            match = re.fullmatch(ON_DISK, entry.name)
            names.update(() if match is None else (match[1] or match[2],))
    places = {name: surviving_folder(shelf / name) for name in names}
    return {
        name: folder
        for name, folder in places.items()
        if folder is not None and (folder / DESCRIPTION).is_file()
    }
