"""Secrets of profiles: from a file, or from an environment variable that the profile
names. This is the one place of the service that looks at the environment.
"""

import os
from pathlib import Path

from trivox.errors import UsageError


def read_secret(file: Path | None, variable: str | None, *, where: str) -> str | None:
    """The secret, None where neither is given; raises `UsageError` that never shows it.

    The last line break of a file does not belong to it.
    """
    if file is not None:
        return _from_file(file, where)
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise UsageError(
            f"{where}: the environment variable {variable} is not set; set it, or name "
            "a file"
        )
    return value


def _from_file(file: Path, where: str) -> str:
    try:
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{where}: {file} cannot be read as the secret; check the path and its rights"
        ) from error
    if not text or not text.isprintable():
        raise UsageError(f"{where}: {file} holds no secret in one line")
    return text
