"""What may be missing: packages that an extra of trivox brings, libraries of the
system.
"""

import ctypes
import importlib
from collections.abc import Sequence
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


def optional_library(names: Sequence[str]) -> Any:
    """The first library of the system under one of these names; None where there is
    none.
    """
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
