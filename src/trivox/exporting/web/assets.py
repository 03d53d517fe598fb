"""What the page needs of others: pinned by version, address and checksum in
`assets.json`, fetched once and kept in the user's cache.
"""

import gzip
import hashlib
import io
import tarfile
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from trivox.caches import cache_folder
from trivox.errors import FormatError, ResourceError
from trivox.files import read_json, write_bytes
from trivox.schema import Frozen, validated

PINS = Path(__file__).with_name("assets.json")
SECONDS = 60
"""Without an answer, after which a download has failed."""
MOST_BYTES = 2**28
"""Of an archive, or of a file in it."""
PACKED = ".gz"


class Asset(Frozen):
    """A file of an archive.

    source: its name there; target: its name in the page's `vendor` folder, which is
    compressed there if that ends in `.gz`; sha256: of the file as it is in the archive.
    """

    source: str
    target: str
    sha256: str


class Package(Frozen):
    """A release on npm of which some files are taken."""

    name: str
    version: str
    url: str
    archive: str
    sha256: str
    license: str
    files: tuple[Asset, ...]


class Pins(Frozen):
    """The content of `assets.json`."""

    format_version: Literal[1]
    packages: tuple[Package, ...]


def pinned() -> Sequence[Package]:
    """The packages that the page takes files of."""
    content = read_json(PINS)
    pins = validated(
        Pins, content, where=PINS, error=FormatError, advice="install trivox again"
    )
    return pins.packages


@dataclass(frozen=True)
class Archives:
    """Where archives come from: a folder of them; without one the cache, which is
    filled from the network.
    """

    folder: Path | None = None
    cache: Path | None = field(default_factory=partial(cache_folder, "web"))
    packages: Sequence[Package] = field(default_factory=pinned)

    def require(self) -> None:
        """Have all of them; raises as `bytes_of`."""
        for package in self.packages:
            self.bytes_of(package)

    def bytes_of(self, package: Package) -> bytes:
        """A verified archive; raises `ResourceError` in one line if it cannot be had,
        and `FormatError` if it is not the one that is pinned.
        """
        if self.folder is not None:
            return self._of_folder(package, self.folder)
        if self.cache is None:
            return _fetched(package)
        file = self.cache / package.archive
        content = _content(file)
        if content is None or _digest(content) != package.sha256:
            content = _fetched(package)
            with suppress(OSError):  # it is fetched again next time
                write_bytes(file, content)
        return content

    def _of_folder(self, package: Package, folder: Path) -> bytes:
        file = folder / package.archive
        content = _content(file)
        if content is None:
            raise ResourceError(
                f"{file}: not there; download {package.url} into the folder of --assets"
            )
        _require(content, package.sha256, str(file))
        return content


def write_assets(folder: Path, archives: Archives) -> None:
    """Write the files of others into `folder`; raises as `Archives.bytes_of`."""
    for package in archives.packages:
        content = archives.bytes_of(package)
        for asset, data in files_of(package, content):
            if asset.target.endswith(PACKED):
                data = gzip.compress(data, mtime=0)
            write_bytes(folder / asset.target, data)


def files_of(package: Package, content: bytes) -> Sequence[tuple[Asset, bytes]]:
    """The files that are taken of an archive, verified; raises `FormatError`."""
    taken: list[tuple[Asset, bytes]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for asset in package.files:
                member = archive.extractfile(asset.source)
                data = b"" if member is None else member.read(MOST_BYTES)
                _require(data, asset.sha256, f"{package.archive}: {asset.source}")
                taken.append((asset, data))
    except (tarfile.TarError, KeyError, OSError) as error:
        raise FormatError(
            f"{package.archive}: {error} in the archive; it is not the one that is pinned"
        ) from error
    return taken


def _content(file: Path) -> bytes | None:
    """The bytes of a file; None if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _fetched(package: Package) -> bytes:
    content = _downloaded(package)
    _require(content, package.sha256, package.url)
    return content


def _downloaded(package: Package) -> bytes:
    try:
        # only https addresses are pinned
        with urllib.request.urlopen(package.url, timeout=SECONDS) as response:
            content: bytes = response.read(MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"{package.url}: cannot be downloaded ({reason}); try again, or give a "
            f"folder that holds {package.archive} by --assets"
        ) from error
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require(content: bytes, sha256: str, where: str) -> None:
    """Raise `FormatError` unless the content has its checksum."""
    if _digest(content) != sha256:
        raise FormatError(
            f"{where}: its checksum is not the one that is pinned; it is cut off or "
            "altered, download it again"
        )
