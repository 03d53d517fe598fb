"""The secret that turns identifiers into pseudonyms: the same key gives the same ones, in
every folder and at any time; nobody without it can go back or forth.
"""

import hashlib
import hmac
import os
import re
from base64 import b32encode
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_hex

from trivox.errors import DataError, FormatError, ResourceError

BYTES = 32
SHORTEST = 16
"""Bytes of a key that cannot be guessed."""
ADVICE = "name a key file that 'trivox deidentify' made, or a new one"
FARTHEST_DAYS = 3650
"""Dates are moved into the past by at most this."""


@dataclass(frozen=True)
class Key:
    """A secret, and what is derived of it (HMAC-SHA256)."""

    secret: bytes

    def uid(self, uid: str) -> str:
        """A UID in place of another one, `2.25.` and 128 bits (PS3.5 B.2)."""
        number = int.from_bytes(self._digest("uid", uid)[:16], "big")
        return f"2.25.{number}"

    def name(self, kind: str, text: str, *, length: int = 10) -> str:
        """Letters and digits in place of a text; of another kind they are others."""
        return b32encode(self._digest(kind, text)).decode()[:length]

    def days(self, patient: str) -> int:
        """By how many days the dates of a patient are moved into the past, 1 or more."""
        number = int.from_bytes(self._digest("days", patient)[:8], "big")
        return 1 + number % FARTHEST_DAYS

    @cached_property
    def fingerprint(self) -> str:
        """What tells two keys apart and says nothing of them."""
        return self.name("fingerprint", "", length=16)

    def _digest(self, kind: str, text: str) -> bytes:
        content = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret, content, hashlib.sha256)


def read_key(file: Path) -> Key:
    """The key of a file of hexadecimal digits; raises `FormatError` for anything else."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise FormatError(f"{file}: no key can be read ({reason}); {ADVICE}") from error
    if not re.fullmatch(r"([0-9a-fA-F]{2})+", text):
        raise FormatError(f"{file}: holds no hexadecimal digits; {ADVICE}")
    secret = bytes.fromhex(text)
    if len(secret) < SHORTEST:
        raise FormatError(
            f"{file}: a key of {len(secret)} bytes can be guessed, {SHORTEST} are the "
            f"least; {ADVICE}"
        )
    return Key(secret)


def made_key(file: Path) -> Key:
    """A new key in a file that only its owner may read; if another process made it
    meanwhile, that one.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return read_key(file)
    except OSError as error:
        raise ResourceError(
            f"{file}: the key cannot be written ({error.strerror}); {ADVICE}"
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(token_hex(BYTES) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return read_key(file)


def require_outside(file: Path, out: Path) -> None:
    """Raise `DataError` for a key in the folder that is going to be handed on."""
    if out.resolve() in (file.resolve(), *file.resolve().parents):
        raise DataError(
            f"{file}: the key lies in {out}, which is going to be handed on; keep it "
            "elsewhere"
        )
