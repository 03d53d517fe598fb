"""How files of pictures are called; needs no package that reads them."""

from pathlib import Path

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
LOSSY = (".jpg", ".jpeg")
"""Formats that change values, so that they hold no label map."""
SPACING = "spacing.json"
"""In a folder of slices: how far apart they are, `{"spacing": [z, y, x]}` in mm."""


def is_picture(path: Path) -> bool:
    """Whether it is called like a picture."""
    return path.name.lower().endswith(SUFFIXES)


def is_picture_stack(path: Path) -> bool:
    """Whether a folder says how far apart the pictures in it are."""
    return (path / SPACING).is_file()
