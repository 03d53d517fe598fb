"""What stands for a patient, a study or an object in lines, file names and records: a
short hash with a salt that never leaves its folder.
"""

import hmac
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from secrets import token_bytes
from typing import Any

from trivox.errors import ResourceError
from trivox.files import temporary_name

SALT = ".trivox-salt"
SALT_BYTES = 32
LETTERS = 16
"""Of a pseudonym: 64 bits tell all objects of a hospital apart."""
UID = re.compile(r"\b[0-2](?:\.\d+){4,}\b")
"""What reads as a UID (DICOM PS3.5 section 9)."""
REMOVED = "[removed]"
PATIENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "AccessionNumber",
    "ReferringPhysicianName",
    "InstitutionName",
    "StudyID",
)
"""Keywords of what tells who somebody is."""
SHORTEST = 3
"""Letters from which on a value can be told from other text."""


@dataclass(frozen=True)
class Pseudonyms:
    """Names that say nothing, the same for the same thing in one folder."""

    salt: bytes = field(repr=False)

    def of(self, value: str) -> str:
        """16 hexadecimal letters for a value."""
        digest = hmac.digest(self.salt, value.strip().encode(), "sha256")
        return digest.hex()[:LETTERS]


def pseudonyms_of(folder: Path) -> Pseudonyms:
    """Those of a folder, which keeps their salt in a file that its owner alone reads;
    raises `ResourceError` where it cannot be kept.
    """
    file = folder / SALT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _write_once(file, token_bytes(SALT_BYTES))
        salt = file.read_bytes()
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be written ({error.strerror or error}); check the disk "
            "and its rights"
        ) from error
    if len(salt) != SALT_BYTES:
        raise ResourceError(f"{file}: is damaged; remove it where no work is open")
    return Pseudonyms(salt)


def _write_once(file: Path, content: bytes) -> None:
    """Of several processes that write at once, the first one wins."""
    temporary = temporary_name(file)
    try:
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)
        with suppress(FileExistsError):
            file.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def identifying(dataset: Any) -> list[str]:
    """Values of a pydicom dataset that tell who somebody is, longest first."""
    values = [str(dataset.get(keyword) or "").strip() for keyword in PATIENT]
    parts = chain.from_iterable(_parts(value) for value in values)
    return sorted({part for part in parts if len(part) >= SHORTEST}, key=len)[::-1]


def _parts(value: str) -> list[str]:
    """A value and the words of it: names are written in several ways."""
    return [value, *re.split(r"[\^=\\ ]+", value)]


def scrubbed(text: str, values: Iterable[str] = ()) -> str:
    """Text in one line, without UIDs and without these values."""
    clean = UID.sub(REMOVED, " ".join(text.split()))
    for value in values:
        clean = re.sub(re.escape(value), REMOVED, clean, flags=re.IGNORECASE)
    return clean
