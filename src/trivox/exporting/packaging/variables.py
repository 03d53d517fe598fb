"""Variables of the environment, by which platforms tell a container where things lie."""

import os


def said(name: str, usual: str = "") -> str:
    """What a variable says; `usual` where it is not set, or blank."""
    return os.environ.get(name) or usual
