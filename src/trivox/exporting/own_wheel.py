"""The installed trivox as a wheel, and the versions around it: what an image needs to
install the very same.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from trivox import version as version_module
from trivox.errors import ResourceError

NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"""extra == ["']([^"']*)""")
VENDORED = "_vendor"
"""Folder of what setuptools carries for itself, and shows to all once it is imported."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""One date for all files: the same source gives the same bytes."""
WHEEL = b"""\
Wheel-Version: 1.0
Generator: trivox
Root-Is-Purelib: true
Tag: py3-none-any
"""


def write_wheel(folder: Path) -> Path:
    """Write `trivox-VERSION-py3-none-any.whl` into `folder` from the imported package,
    editable or not; needs no git.

    Raises `ResourceError` where trivox runs without being installed, since nothing then
    says what it depends on.
    """
    package = _installed()
    content = _content(package)
    metadata = _metadata_folder(package)
    rows = [
        f"{name},sha256={_digest(data)},{len(data)}" for name, data in content.items()
    ]
    rows.append(f"{metadata}/RECORD,,")
    content[f"{metadata}/RECORD"] = ("\n".join(rows) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"trivox-{package.version}-py3-none-any.whl"
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for name, data in content.items():
            entry = ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def _metadata_folder(package: Distribution) -> str:
    return f"trivox-{package.version}.dist-info"


def _content(package: Distribution) -> dict[str, bytes]:
    """File name in the wheel -> what it holds, all but the list of files."""
    source = Path(version_module.__file__).parent
    content = {
        f"trivox/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in _files(source)
    }
    metadata = _metadata_folder(package)
    for name in ("METADATA", "entry_points.txt"):
        content[f"{metadata}/{name}"] = (package.read_text(name) or "").encode()
    content[f"{metadata}/WHEEL"] = WHEEL
    return content


def installed_versions(extra: str = "") -> dict[str, str]:
    """Name -> version of everything installed that trivox needs, directly or not; build
    labels (`+cpu`) left out.

    extra: one of trivox's, whose packages are needed too.
    """
    versions: dict[str, str] = {}
    package = _installed()
    names = [*_needs(package), *_needs(package, extra)]
    while names:
        name = names.pop()
        needed = _distribution(name)
        if needed is None:  # for another platform or Python
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key not in versions:
            versions[key] = needed.version.partition("+")[0]
            names += _needs(needed)
    return dict(sorted(versions.items()))


def _distribution(name: str) -> Distribution | None:
    """What is installed under a name, without what setuptools carries."""
    for package in Distribution.discover(name=name):
        folder = Path(str(package.locate_file("")))
        if folder.name != VENDORED:
            return package
    return None


def _installed() -> Distribution:
    try:
        return distribution("trivox")
    except PackageNotFoundError as error:
        raise ResourceError(
            "trivox is not installed, it only runs from its source; "
            "install it (pip install .) and package again"
        ) from error


def _needs(package: Distribution, extra: str = "") -> Iterator[str]:
    """Names of requirements: those of no extra, or those of one."""
    for requirement in package.requires or []:
        name, _, marker = requirement.partition(";")
        match = NAME.match(name)
        asked = EXTRA.search(marker)
        if match and (asked[1] if asked else "") == extra:
            yield match[0]


def _files(source: Path) -> list[Path]:
    """All files but hidden and compiled ones."""
    files = []
    for path in sorted(source.rglob("*")):
        hidden = path.name.startswith(".") or "__pycache__" in path.parts
        if path.is_file() and not hidden:
            files.append(path)
    return files


def _digest(data: bytes) -> str:
    digest = hashlib.sha256(data).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
