"""A release of models: a folder, or the same behind a URL, with an index that says
which files belong to which model.

    index.json                          names, files, sha256, bytes
    hippocampus/bundle.json             and so on, one folder a model
    hippocampus/weights-fold0.safetensors

What is fetched is compared with the index and gets its name only as a whole.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote
from urllib.request import urlopen

from pydantic import Field, model_validator

from trivox.errors import BundleError, ResourceError
from trivox.files import parse_json, whole_folder, write_json
from trivox.inference.zoo.shelves import DESCRIPTION, NAME, checkouts_shelf
from trivox.locks import Say, claimed
from trivox.outputs import is_there
from trivox.schema import Frozen, read_stamped, stamped, validated
from trivox.version import __version__

INDEX = "index.json"
INDEX_BYTES = 1 << 20
"""Larger ones are none."""
ADDRESS = "https://raw.githubusercontent.com/trivox/trivox/main/models"
"""The release, where there is no checkout."""
WEB = ("http://", "https://")
SECONDS = 30
"""Longest wait for an answer."""
RECORD = "fetched.json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=1, lt=2**31)]


class ReleasedFile(Frozen):
    """A file of a model."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: Digest
    size: Bytes

    @classmethod
    def of(cls, path: Path) -> "ReleasedFile":
        """What a file is."""
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return cls(file=path.name, sha256=digest, size=len(data))

    def is_at(self, folder: Path) -> bool:
        """Whether a folder holds this file as it was released."""
        path = folder / self.file
        return path.is_file() and ReleasedFile.of(path) == self


class ReleasedModel(Frozen):
    """A model and its files."""

    name: str = Field(pattern=f"^{NAME}$", max_length=100)
    files: tuple[ReleasedFile, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [each.file for each in self.files]
        if DESCRIPTION not in names or len({*names}) < len(names):
            raise ValueError(f"files {names} are no bundle")
        return self

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(each.size for each in self.files)


class FetchedFile(ReleasedModel):
    """What fetched.json says beside its version: a model, the release that it is from,
    and the version of trivox that fetched it.
    """

    source: str
    trivox_version: str


class Index(Frozen):
    """What a release holds."""

    task: None = None
    format_version: Literal[1]
    models: tuple[ReleasedModel, ...]


@dataclass(frozen=True)
class Release:
    """Where a release is: a folder or a URL, and its index."""

    place: str
    index: Index

    @classmethod
    def at(cls, source: Path | str | None) -> "Release":
        """Read the index of a release; None: that of the checkout, else the public one.

        Raises `ResourceError` where it cannot be read and `BundleError` where it is
        damaged.
        """
        place = str(source or checkouts_shelf() or ADDRESS).rstrip("/") or "/"
        where = f"{place}/{INDEX}"
        data = _read(place, INDEX, INDEX_BYTES)
        try:
            content = parse_json(data.decode("utf-8-sig"))
        except (ValueError, MemoryError) as error:
            raise BundleError(
                f"{where}: not readable as JSON ({error}); {ADVICE}"
            ) from error
        index = validated(Index, content, where=where, error=BundleError, advice=ADVICE)
        return cls(place, index)

    def model(self, name: str) -> ReleasedModel:
        """A model by name; raises `BundleError` listing what there is."""
        for each in self.index.models:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.index.models) or "nothing"
        raise BundleError(f"{self.place}: has no model '{name}'; it has {known}")

    def read(self, model: ReleasedModel, file: ReleasedFile) -> bytes:
        """A file as it was released; raises `BundleError` for one that differs from the
        index.
        """
        name = f"{model.name}/{file.file}"
        data = _read(self.place, name, file.size)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise BundleError(
                f"{self.place}/{name}: is not what {INDEX} lists (checksum; "
                f"{len(data)} of {file.size} bytes); {ADVICE}"
            )
        return data


ADVICE = "it is damaged, fetch it again or name another --source"


def fetch_model(
    release: Release,
    name: str,
    shelf: Path,
    *,
    require: Callable[[Path], object],
    say: Say,
) -> Path:
    """Bring a model from a release onto a shelf, all at once; returns its folder.

    One that is there as it was released is left alone. Two processes take turns.
    require: raises for a folder that holds no usable model, before it gets its name.
    """
    model = release.model(name)
    final = shelf / name
    with claimed(shelf, "models fetch", [name], wait=True, say=say):
        if all(file.is_at(final) for file in model.files):
            say(f"{name}: is here already, in {final}")
            return final
        _require_fetched(final)
        try:
            with whole_folder(final) as folder:
                _fill(folder, release, model)
                require(folder)
        except OSError as error:
            raise ResourceError(
                f"{final}: cannot be written ({error.strerror or error}); make room "
                f"there, or name the model by its path in a copy of {release.place}"
            ) from error
    say(f"{name}: fetched from {release.place} to {final}")
    return final


def _fill(folder: Path, release: Release, model: ReleasedModel) -> None:
    """Write a model's files, and where they are from."""
    for file in model.files:
        (folder / file.file).write_bytes(release.read(model, file))
    record = FetchedFile(
        **model.model_dump(), source=release.place, trivox_version=__version__
    )
    write_json(folder / RECORD, stamped(record.model_dump(mode="json"), None))


def index_of(shelf: Path) -> Index:
    """The index of the models that lie on a shelf."""
    models = []
    for folder in sorted(path for path in shelf.iterdir() if path.is_dir()):
        files = tuple(map(ReleasedFile.of, sorted(folder.iterdir())))
        models.append(ReleasedModel(name=folder.name, files=files))
    return Index(format_version=1, models=tuple(models))


def _require_fetched(final: Path) -> None:
    """Raise `BundleError` if something lies there that was not fetched, or whose record
    is damaged.
    """
    advice = "move it away, or use it by its path"
    if not is_there(final):
        return
    if not (final / RECORD).is_file():
        raise BundleError(f"{final}: is there, and was not fetched; {advice}")
    read_stamped(FetchedFile, final / RECORD, error=BundleError, advice=advice)


def _read(place: str, name: str, most: int) -> bytes:
    """A file of a release, of at most so many bytes and one more."""
    if place.startswith(WEB):
        return _download(f"{place}/{quote(name)}", most)
    if re.match(r"[a-z]+://", place):
        raise ResourceError(
            f"{place}: is neither a folder nor an http or https address; name another "
            "--source"
        )
    path = Path(place) / name
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{path}: cannot be read ({reason}); name a --source that holds {INDEX}"
        ) from error


def _download(address: str, most: int) -> bytes:
    try:
        with urlopen(address, timeout=SECONDS) as answer:
            data: bytes = answer.read(most + 1)
            return data
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"{address}: cannot be fetched ({reason}); check the network, or give a "
            "folder that holds the release: --source PATH"
        ) from error
