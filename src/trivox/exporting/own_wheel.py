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

import trivox
from trivox.errors import ResourceError

NAME = re.compile(r"[A-Za-z0-9._-]+")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""One date for all files: the same source gives the same bytes."""


def write_wheel(folder: Path) -> Path:
    """Write `trivox-VERSION-py3-none-any.whl` into `folder` from the imported package,
    editable or not; needs no git.

    Raises `ResourceError` where trivox runs without being installed, since nothing then
    says what it depends on.
    """
    own = _own()
    source = Path(trivox.__file__).parent
    about = f"trivox-{own.version}.dist-info"
    content = {
        f"trivox/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in _files(source)
    }
    content[f"{about}/METADATA"] = (own.read_text("METADATA") or "").encode()
    content[f"{about}/entry_points.txt"] = (
        own.read_text("entry_points.txt") or ""
    ).encode()
    content[f"{about}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: trivox\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    rows = [
        f"{name},sha256={_digest(data)},{len(data)}" for name, data in content.items()
    ]
    content[f"{about}/RECORD"] = (
        "\n".join([*rows, f"{about}/RECORD,,"]) + "\n"
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"trivox-{own.version}-py3-none-any.whl"
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for name, data in content.items():
            entry = ZipInfo(name, EPOCH)
            entry.external_attr, entry.compress_type = 0o644 << 16, ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def installed_versions() -> dict[str, str]:
    """Name -> version of everything installed that trivox needs, directly or not; build
    labels (`+cpu`) left out.
    """
    versions: dict[str, str] = {}
    pending = [_own()]
    while pending:
        for name in _needs(pending.pop()):
            try:
                found = distribution(name)
            except PackageNotFoundError:  # for another platform or Python
                continue
            key = re.sub(r"[-_.]+", "-", name).lower()
            if key not in versions:
                versions[key] = found.version.partition("+")[0]
                pending.append(found)
    return dict(sorted(versions.items()))


def _own() -> Distribution:
    try:
        return distribution("trivox")
    except PackageNotFoundError as error:
        raise ResourceError(
            "trivox is not installed, it only runs from its source; install it (pip install .) and package again"
        ) from error


def _needs(package: Distribution) -> Iterator[str]:
    """Names of requirements, those of extras left out."""
    for requirement in package.requires or []:
        name, _, marker = requirement.partition(";")
        match = NAME.match(name)
        if match and "extra ==" not in marker:
            yield match[0]


def _files(source: Path) -> list[Path]:
    every = (path for path in sorted(source.rglob("*")) if path.is_file())
    return [
        path
        for path in every
        if "__pycache__" not in path.parts and not path.name.startswith(".")
    ]


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
