"""Packages that an extra of trivox brings."""

import importlib
from typing import Any

from trivox.errors import ResourceError


def optional_package(name: str, *, extra: str) -> Any:
    """A module of a package that may be missing; raises `ResourceError` that names the
    extra which brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.rpartition(".")[2]
        raise ResourceError(
            f"{package} is not installed; run: pip install 'trivox[{extra}]'"
        ) from error
