"""DICOM objects in files: who they are, and where they lie here."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from trivox.errors import DataError, FormatError, ResourceError
from trivox.files import remove_leftovers, temporary_name
from trivox.service.pseudonyms import Pseudonyms
from trivox.volumes.dicom.files import load
from trivox.volumes.header import reading

SUFFIX = ".dcm"
LONGEST_UID = 64


@dataclass(frozen=True)
class DicomObject:
    """A file with an object, and the UIDs of its study, its series and its own; kind:
    UID of its class; syntax: UID of its transfer syntax.
    """

    path: Path
    study: str = field(repr=False)
    series: str = field(repr=False)
    instance: str = field(repr=False)
    kind: str
    syntax: str
    size: int


def read_header(path: Path) -> Any:
    """The pydicom dataset of a file without its pixels; raises `FormatError` naming it."""
    with reading(path):
        return load(path, pixels=False)


def object_of(path: Path, dataset: Any) -> DicomObject:
    """Who an object is; raises `FormatError` if it does not say."""
    with reading(path):
        meta = dataset.file_meta
        names = (
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "SOPInstanceUID",
            "SOPClassUID",
        )
        values = [_uid(path, dataset, name) for name in names]
        syntax = str(meta.get("TransferSyntaxUID") or "")
        if not syntax:
            raise FormatError(f"{path}: its header names no transfer syntax")
        study, series, instance, kind = values
        size = path.stat().st_size
    return DicomObject(path, study, series, instance, kind, syntax, size)


def read_object(path: Path) -> DicomObject:
    """Who the object in a file is; raises `FormatError` naming the file."""
    return object_of(path, read_header(path))


def _uid(path: Path, dataset: Any, keyword: str) -> str:
    value = str(dataset.get(keyword) or "").strip()
    numbers = value.split(".")
    if not value or len(value) > LONGEST_UID or not all(map(_is_number, numbers)):
        raise FormatError(
            f"{path}: its {keyword} is missing or no UID; repair the file"
        )
    return value


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def looked_up(dataset: Any, keyword: str) -> str:
    """A value as text for rules, several joined by a backslash; blank where the object
    has none.
    """
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue":
        return "\\".join(str(each) for each in value)
    return str(value)


@dataclass(frozen=True)
class Shelf:
    """Received objects by study and series, under names that say nothing."""

    folder: Path
    names: Pseudonyms

    def series_folder(self, study: str, series: str) -> Path:
        """Where the objects of a series lie."""
        return self.folder / self.names.of(study) / self.names.of(series)

    def file_of(self, each: DicomObject) -> Path:
        """Where an object lies."""
        folder = self.series_folder(each.study, each.series)
        return folder / f"{self.names.of(each.instance)}{SUFFIX}"

    def missing(self, study: str, series: str, instances: Iterable[str]) -> set[str]:
        """UIDs of a series that are not here."""
        here = {file.stem for file in objects_in(self.series_folder(study, series))}
        return {each for each in instances if self.names.of(each) not in here}

    def put(self, each: DicomObject) -> bool:
        """Keep a file of this folder's disk under its name; False if the object was here
        already, which stays as it is.
        """
        target = self.file_of(each)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with each.path.open("r+b") as written:
                os.fsync(written.fileno())
            return _moved(each.path, target)
        except OSError as error:
            raise ResourceError(
                f"{self.folder}: an object cannot be written "
                f"({error.strerror or type(error).__name__}); check the disk"
            ) from error
        finally:
            each.path.unlink(missing_ok=True)


def _moved(file: Path, target: Path) -> bool:
    """Give a file its name; False if there is one of that name, which stays."""
    try:
        target.hardlink_to(file)
    except FileExistsError:
        return False
    except OSError:  # a disk that knows no links
        if target.exists():
            return False
        file.replace(target)
    return True


def objects_in(folder: Path) -> list[Path]:
    """The objects of a series' folder."""
    files = folder.glob(f"*{SUFFIX}")
    return sorted(file for file in files if not file.name.startswith("."))


@dataclass
class SeriesPlace:
    """Where fetched objects of one series go; see `archive.Place`.

    coming: folder of what is not whole yet.
    """

    shelf: Shelf
    study: str = field(repr=False)
    series: str = field(repr=False)
    coming: Path
    numbers: Iterator[int] = field(default_factory=count, repr=False)

    def new_part(self) -> Path:
        """The name of a file to write an object to."""
        return self.coming / f"part-{next(self.numbers)}"

    def take(self, part: Path) -> None:
        """Keep an object; raises `DataError` if it is of another series."""
        each = read_object(part)
        if (each.study, each.series) != (self.study, self.series):
            raise DataError("the archive sent an object of another series")
        self.shelf.put(each)


@contextmanager
def series_place(shelf: Shelf, study: str, series: str) -> Iterator[SeriesPlace]:
    """A place for the objects of a series; what is not whole in the end is removed."""
    folder = shelf.series_folder(study, series)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    coming = temporary_name(folder.with_name(f"{folder.name}-coming"))
    coming.mkdir(exist_ok=True)
    try:
        yield SeriesPlace(shelf, study, series, coming)
    finally:
        shutil.rmtree(coming, ignore_errors=True)
