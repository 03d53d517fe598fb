"""What stands in the place of a file that was never fetched."""

from pathlib import Path

from trivox.errors import FormatError

BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS; run 'git lfs pull'"),
    (b"/annex/objects/", "a pointer of git-annex; run 'git annex get' on it"),
    (b"<!doctype html", "a web page in place of the file; download it again"),
    (b"<html", "a web page in place of the file; download it again"),
)
"""How such files begin, in lower case, and what they are."""


def require_fetched(path: Path) -> None:
    """Raise `FormatError` for a link to nothing, an empty file, a pointer of Git LFS or
    git-annex, and a web page; what else is missing or damaged is for the readers.
    """
    if path.is_symlink() and not path.exists():
        raise FormatError(
            f"{path}: is a link to {path.readlink()}, which is not there; fetch it, or "
            "mend the link"
        )
    if not path.is_file():
        return
    with path.open("rb") as file:
        beginning = file.read(64)
    if not beginning:
        raise FormatError(f"{path}: is empty; copy or download it again")
    text = beginning.lstrip().lower()
    for start, what in BEGINNINGS:
        if text.startswith(start):
            raise FormatError(f"{path}: is {what}")
