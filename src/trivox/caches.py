"""Where things lie that can be made or fetched again, outside of any run."""

import os
import sys
from pathlib import Path

NAME = "trivox"


def cache_folder(what: str) -> Path | None:
    """The user's folder for one kind of such things, as the system has it (XDG on
    Linux); it may not exist yet. None for a user without a home.
    """
    try:
        return _base() / NAME / what
    except RuntimeError:  # of `Path.home`
        return None


def _base() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    if given and Path(given).is_absolute():
        return Path(given)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    return home / ".cache"
