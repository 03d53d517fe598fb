"""Profiles of archives in one TOML file: where they are, how they are spoken to, and
where their secrets lie. A secret itself never stands in a profile.
"""

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from trivox.errors import FormatError, UsageError, few
from trivox.schema import Frozen, validated

ADVICE = (
    "correct the file; docs/how-to/connect-to-a-pacs.md lists what profiles may say"
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _title(text: str) -> str:
    """An application entity's title (DICOM PS3.5 section 6.2, AE)."""
    plain = text.strip()
    if not 1 <= len(plain) <= 16 or not plain.isascii() or not plain.isprintable():
        raise ValueError("a title has 1 to 16 plain letters")
    if "\\" in plain:
        raise ValueError("a title holds no backslash")
    return plain


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError("give the name of an environment variable, never the secret")
    return name


Title = Annotated[str, AfterValidator(_title)]
Variable = Annotated[str, AfterValidator(_variable)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Connection(Frozen):
    """What all profiles say.

    timeout: seconds without an answer; retries: after a first try that failed; pause:
    seconds before the first of them, doubled for each other; ca_file: certificates
    that vouch for the server; cert_file, key_file: by which it knows this program;
    verify: whether its certificate must be good; largest_gb: of one object.
    """

    timeout: Seconds = 30.0
    retries: int = Field(3, ge=0, le=20)
    pause: float = Field(0.5, ge=0, le=60)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True
    largest_gb: float = Field(4.0, gt=0, le=1000)

    @property
    def largest(self) -> int:
        """Bytes that one object may have."""
        return int(self.largest_gb * 1e9)


class DicomWeb(Connection):
    """An archive that speaks DICOMweb (DICOM PS3.18).

    url: of the service, before `/studies`; user: with a password, or token: a bearer
    token; plain: whether a secret may travel without TLS to another machine.
    """

    kind: Literal["dicomweb"] = "dicomweb"
    url: str
    user: str | None = None
    password_file: Path | None = None
    password_env: Variable | None = None
    token_file: Path | None = None
    token_env: Variable | None = None
    plain: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        host = _require_address(self.url)
        password = _at_most_one("password", self.password_file, self.password_env)
        token = _at_most_one("token", self.token_file, self.token_env)
        if password != (self.user is not None):
            raise ValueError("a user needs password_file or password_env, and they one")
        if password and token:
            raise ValueError("give a user with a password or a token, not both")
        hidden = self.url.startswith("https:") or is_this_machine(host)
        if (password or token) and not hidden and not self.plain:
            raise ValueError(
                "a secret would travel in clear text; use https, or say plain = true"
            )
        return self


class Dimse(Connection):
    """An archive that speaks DIMSE (DICOM PS3.7).

    aet: its title; calling_aet: that of this program; retrieve: by C-GET or C-MOVE;
    receive_host, receive_port: where this program listens for what C-MOVE and storage
    commitment send; commitment: whether it is asked to vouch for what it was sent.
    """

    kind: Literal["dimse"] = "dimse"
    host: str = Field(min_length=1, max_length=255)
    port: Port = 104
    aet: Title
    calling_aet: Title = "TRIVOX"
    retrieve: Literal["get", "move"] = "get"
    receive_host: str = "127.0.0.1"
    receive_port: Port | None = None
    commitment: bool = False
    tls: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.retrieve == "move" and self.receive_port is None:
            raise ValueError('retrieve = "move" needs a receive_port')
        if self.cert_file is not None and not self.tls:
            raise ValueError("cert_file needs tls = true")
        return self


Profile = Annotated[DicomWeb | Dimse, Field(discriminator="kind")]


class _Profiles(Frozen):
    profiles: Mapping[str, Profile]


def is_this_machine(host: str) -> bool:
    """Whether an address leads to this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _require_address(url: str) -> str:
    """The host of an address; raises `ValueError` for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url: give http:// or https:// and a host")
    if parts.username or parts.password:
        raise ValueError(
            "url: names no user and no password; use user and password_file"
        )
    if parts.query or parts.fragment:
        raise ValueError("url: ends before ? and #")
    if parts.port == 0:
        raise ValueError("url: has port 0")
    return parts.hostname


def _at_most_one(what: str, file: Path | None, variable: str | None) -> bool:
    """Whether one is given; raises `ValueError` for both."""
    if file is not None and variable is not None:
        raise ValueError(f"give {what}_file or {what}_env, not both")
    return file is not None or variable is not None


def users_profiles() -> Path:
    """Where profiles lie unless another file is named."""
    return Path.home() / ".config" / "trivox" / "pacs.toml"


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file; raises `FormatError` in one line, without it."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise FormatError(f"{file}: file not found; write {what} there") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or _place(error)
        raise FormatError(
            f"{file}: not readable as TOML ({reason}); correct the file"
        ) from error


def _place(error: Exception) -> str:
    """Where TOML is wrong; the text there may be a secret that somebody put there."""
    place = re.search(r"\(at [^()]*\)$", str(error))
    return place[0].strip("()") if place else type(error).__name__


def read_profiles(file: Path | None = None) -> dict[str, DicomWeb | Dimse]:
    """All profiles of a file by name; raises `FormatError` in one line.

    Paths in it are relative to its folder.
    """
    place = users_profiles() if file is None else Path(file)
    content = read_toml(place, "the profiles of your archives")
    for name, profile in content.items():
        if not NAME.fullmatch(name):
            raise FormatError(
                f"{place}: {name[:40]!r} is no name of a profile; {ADVICE}"
            )
        if isinstance(profile, dict):
            _root_paths(profile, place.parent)
    checked = validated(
        _Profiles,
        {"profiles": content},
        where=place,
        error=FormatError,
        advice=ADVICE,
    )
    return dict(checked.profiles)


def _root_paths(profile: dict[str, Any], folder: Path) -> None:
    """Paths of a profile from its file's folder on; the kind that it is of."""
    profile.setdefault("kind", "dicomweb" if "url" in profile else "dimse")
    for name, value in profile.items():
        if name.endswith("_file") and isinstance(value, str):
            profile[name] = folder / Path(value).expanduser()


def chosen_profile(
    profiles: Mapping[str, DicomWeb | Dimse], name: str | None
) -> tuple[str, DicomWeb | Dimse]:
    """The profile of a name, or the only one; raises `UsageError`."""
    names = few(sorted(profiles))
    if name is None and len(profiles) == 1:
        (only,) = profiles.items()
        return only
    if name is None:
        raise UsageError(f"say which archive: --pacs with one of {names or 'none'}")
    if name not in profiles:
        raise UsageError(f"--pacs {name}: there is no such profile; there are: {names}")
    return name, profiles[name]
