"""Sending objects to an archive, and seeing that they arrived."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivox.errors import DataError, FormatError, TrivoxError, few
from trivox.service.objects import DicomObject, read_object
from trivox.service.peers.archive import Archive, RefusedError, Retry
from trivox.volumes.dicom.signature import is_dicom

LATE = "accepted, but not to be found afterwards"


@dataclass(frozen=True)
class Sent:
    """What became of objects.

    stored: newly; present: there before; refused: why, by file.
    """

    archive: str
    stored: int
    present: int
    refused: dict[Path, str]

    @property
    def summary(self) -> str:
        """In words."""
        parts = [f"{self.archive}: {self.stored} stored"]
        if self.present:
            parts.append(f"{self.present} were there")
        if self.refused:
            parts.append(f"{len(self.refused)} refused")
        return ", ".join(parts)

    def require_all(self) -> None:
        """Raise `RefusedError` if one is not there."""
        if self.refused:
            file, reason = next(iter(self.refused.items()))
            raise RefusedError(
                f"{self.archive}: {len(self.refused)} objects are not stored: "
                f"{file.name}: {reason}"
            ).with_result(self)


def objects_below(
    paths: Iterable[Path],
) -> tuple[list[DicomObject], dict[Path, str]]:
    """All objects in files and folders, each once, and why, by file, where one cannot be
    sent; raises `DataError` where there are none at all.
    """
    files: dict[Path, None] = {}
    for path in paths:
        files |= dict.fromkeys(_files_of(path))
    by_uid: dict[str, DicomObject] = {}
    unusable: dict[Path, str] = {}
    for file in files:
        try:
            each = read_object(file)
        except TrivoxError as error:
            unusable[file] = str(error).removeprefix(f"{file}: ")
            continue
        first = by_uid.setdefault(each.instance, each)
        if first is not each and first.path.read_bytes() != file.read_bytes():
            unusable[file] = f"has the UID of another object, {first.path}"
    if not by_uid and not unusable:
        listed = few(str(path) for path in paths)
        raise DataError(f"{listed}: there is no DICOM object; check the path")
    return list(by_uid.values()), unusable


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FormatError(f"{path}: file not found; check the path")
    inside = sorted(path.rglob("*"))
    named = (file for file in inside if not file.name.startswith("."))
    return [file for file in named if file.is_file() and is_dicom(file)]


def send_objects(
    archive: Archive, objects: Sequence[DicomObject], retry: Retry
) -> Sent:
    """Send what is not there yet, and look for it afterwards, several times where the
    archive is slow to show it.
    """
    before = _present(archive, objects)
    new = [each for each in objects if each.instance not in before]
    reasons = archive.send(new) if new else {}
    waiting = [each for each in new if each.instance not in reasons]
    for number in range(retry.retries + 1):
        waiting = _unseen(archive, waiting)
        if not waiting or number == retry.retries:
            break
        retry.sleep(retry.pause * 2**number)
    reasons |= {each.instance: LATE for each in waiting}
    refused = {
        each.path: reasons[each.instance] for each in new if each.instance in reasons
    }
    return Sent(archive.name, len(new) - len(refused), len(before), refused)


def _unseen(archive: Archive, objects: Sequence[DicomObject]) -> list[DicomObject]:
    """Objects that the archive does not show; none where it has no search and need not."""
    try:
        present = _seen(archive, objects)
    except RefusedError:
        if archive.must_show:
            raise
        return []
    return [each for each in objects if each.instance not in present]


def _present(archive: Archive, objects: Sequence[DicomObject]) -> set[str]:
    """UIDs of objects that are there before they are sent."""
    try:
        return _seen(archive, objects)
    except RefusedError:
        if archive.must_show:
            raise
        return set()


def _seen(archive: Archive, objects: Sequence[DicomObject]) -> set[str]:
    wanted = {each.instance for each in objects}
    series = dict.fromkeys((each.study, each.series) for each in objects)
    shown: set[str] = set()
    for study, uid in series:
        shown |= archive.instances(study, uid)
    return shown & wanted
