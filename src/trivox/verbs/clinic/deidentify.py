"""Scans without the person: `trivox.deidentify`."""

from collections.abc import Sequence
from pathlib import Path

from trivox.config.choices import DateRule
from trivox.errors import DataError, UsageError
from trivox.outputs import require_folder_place
from trivox.privacy.folder import (
    Outcome,
    clean,
    lines_of,
    require_same_key,
    table_of,
    write_table,
)
from trivox.privacy.key import made_key, read_key, require_outside
from trivox.tasks.console import Console, Quiet
from trivox.verbs.texts import described


@described
def deidentify(
    dicom: Path | str | Sequence[Path | str],
    out: Path | str,
    key: Path | str,
    *,
    keep_dates: bool = False,
    shift_dates: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Write DICOM objects and scans anew, with nothing that names the person.

    Objects whose pixels may show a name, and kinds of objects that are not known well
    enough, are set aside. Raises `DataError` where a folder was made with another key,
    `FormatError` for what is no key, `UsageError` for both rules for dates at once.
    """
    given = [dicom] if isinstance(dicom, Path | str) else dicom
    sources = [Path(path) for path in given]
    folder = Path(out)
    key_file = Path(key)
    rule = _rule(keep=keep_dates, shift=shift_dates)
    console = console or Quiet()
    require_folder_place(folder)
    require_outside(key_file, folder)
    for source in sources:
        _require_apart(source, folder)
    secret = read_key(key_file) if key_file.exists() else made_key(key_file)
    require_same_key(folder, secret, rule)
    outcome = clean(
        sources,
        folder,
        secret,
        dates=rule,
        progress=lambda files: console.track(files, len(files), "cleaning"),
    )
    write_table(key_file, outcome)
    for line in lines_of(outcome, key_file):
        console.say(line)
    if outcome.damaged:
        raise DataError(
            f"{outcome.damaged} files cannot be read and were set aside; which, stands in "
            f"{table_of(key_file)}"
        ).with_result(outcome)
    return outcome


def _rule(*, keep: bool, shift: bool) -> DateRule:
    if keep and shift:
        raise UsageError("--keep-dates and --shift-dates do not go together")
    if keep:
        return "keep"
    return "shift" if shift else "remove"


def _require_apart(source: Path, out: Path) -> None:
    """Raise `DataError` where the results would lie among the sources."""
    if not source.exists():
        raise DataError(f"{source}: not found; check the path")
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise DataError(f"{out}: lies in {source}, which is read; choose another --out")
