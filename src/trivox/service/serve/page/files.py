"""The files of the page, held in memory: nothing else can be asked for.

Some are shared with the page that `trivox export --to web` writes; NiiVue is fetched once
or lies in a folder (`--assets`). Without it the page works but for the viewer.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trivox.errors import TrivoxError
from trivox.exporting.web.assets import Archives, files_of, pinned
from trivox.exporting.web.page_folder import ROOM as EXPORTED

LOG = logging.getLogger("trivox.serve")
STATIC = Path(__file__).parent / "static"
START = "index.html"
PREFIX = "/page/"
VENDOR = "vendor/"
VIEWER = "@niivue/niivue"
LICENSE = "licenses/niivue.txt"
PATIENCE = 60.0
"""Seconds that a browser waits for NiiVue while it is fetched."""
SHARED = (
    "style.css",
    "viewer.js",
    "lib/affine.js",
    "lib/bytes.js",
    "lib/colours.js",
    "lib/dom.js",
    "lib/problem.js",
    "lib/nifti/grid.js",
    "lib/nifti/header.js",
    "lib/nifti/read.js",
    "lib/nifti/write.js",
)
"""Modules of the exported page that this one is made of as well."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""What the page may do: load nothing from elsewhere, run no inline script."""


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent. etag: changes with its content."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """For browsers that have it already."""
        return f'"{sha256(self.content).hexdigest()[:32]}"'


def page_file(name: str, content: bytes) -> PageFile:
    """A file whose type follows from its name."""
    return PageFile(content, TYPES[Path(name).suffix])


def static_files() -> dict[str, PageFile]:
    """All files but those of others, by name."""
    return {name: page_file(name, file.read_bytes()) for name, file in _sources()}


def _sources() -> Iterator[tuple[str, Path]]:
    for file in sorted(STATIC.rglob("*")):
        if file.suffix in TYPES:
            yield file.relative_to(STATIC).as_posix(), file
    for name in SHARED:
        yield name, EXPORTED / "page" / name
    yield LICENSE, EXPORTED / LICENSE


class PageFiles:
    """The files of the page by name. archives: where NiiVue comes from, None: nowhere."""

    def __init__(self, archives: Archives | None) -> None:
        self._files = static_files()
        self._vendor: dict[str, PageFile] = {}
        self._archives = archives
        self._thread = threading.Thread(target=self._load, daemon=True)
        self._thread.start()

    def get(self, name: str) -> PageFile | None:
        """A file, None for a name that is none of the page's."""
        if name.startswith(VENDOR):
            self._thread.join(PATIENCE)
            return self._vendor.get(name)
        return self._files.get(name)

    def _load(self) -> None:
        if self._archives is None:
            return
        try:
            self._vendor = dict(vendor_files(self._archives))
        except TrivoxError as error:
            LOG.warning("the page shows no images: %s", error)


def viewer_archives(folder: Path | None) -> Archives:
    """Where NiiVue comes from: a folder, or the cache that is filled from the network."""
    packages = [each for each in pinned() if each.name == VIEWER]
    return Archives(folder, packages=packages)


def vendor_files(archives: Archives) -> Iterator[tuple[str, PageFile]]:
    """The files of others by name; raises `ResourceError` or `FormatError`."""
    for package in archives.packages:
        for asset, data in files_of(package, archives.bytes_of(package)):
            name = f"{VENDOR}{asset.target}"
            yield name, page_file(name, data)
