"""Scans that lie in an archive: a reference stands in the place of what is sent, and the
series is fetched when its job runs.
"""

import re
from pathlib import Path
from secrets import token_bytes

from pydantic import Field

from trivox.errors import DataError, UsageError
from trivox.files import read_json, write_json
from trivox.schema import Frozen, validated
from trivox.service.fetching import Receipt, fetch_series
from trivox.service.objects import Shelf, objects_in
from trivox.service.peers.archive import Retry, UnreachableError
from trivox.service.peers.choice import opened
from trivox.service.profiles import NAME, chosen_profile, read_profiles
from trivox.service.pseudonyms import SALT_BYTES, Pseudonyms
from trivox.service.serve.jobs.folders import sync_folder
from trivox.service.serve.jobs.states import Failure
from trivox.service.serve.work.engine import JobError

FILE = "reference.json"
"""What it is called among the parts of a job."""
UID = r"[0-9]+(\.[0-9]+){1,31}"
REFERENCE = rf"{NAME.pattern}/studies/{UID}/series/{UID}"
"""The name of an archive, then what DICOMweb calls a series (DICOM PS3.18 section
10.3).
"""


class Reference(Frozen):
    """A series of an archive that the server has a profile of."""

    archive: str = Field(pattern=rf"^{NAME.pattern}$")
    study: str = Field(pattern=rf"^{UID}$")
    series: str = Field(pattern=rf"^{UID}$")

    @property
    def text(self) -> str:
        """As clients write it."""
        return f"{self.archive}/studies/{self.study}/series/{self.series}"


def parsed_reference(text: str) -> Reference:
    """A reference as clients write it; raises `UsageError` for what is none."""
    if not re.fullmatch(REFERENCE, text):
        raise UsageError(
            "a reference is ARCHIVE/studies/UID/series/UID; search the archive for it"
        )
    archive, _, study, _, series = text.split("/")
    return Reference(archive=archive, study=study, series=series)


def write_reference(folder: Path, reference: Reference) -> Path:
    """Keep a reference as the one part of a job."""
    file = folder / FILE
    write_json(file, reference.model_dump())
    return file


def fetched(parts: list[Path], profiles: Path | None, scratch: Path) -> list[Path]:
    """The parts of a job, with the series in the place of a reference; raises
    `JobError`.

    profiles: of the server's archives; scratch: folder that is not there yet. What is
    fetched stays with the job, as if it had been sent.
    """
    references = [part for part in parts if part.name == FILE]
    if not references:
        return parts
    (file,) = references
    for half in parts:  # of a try that was cut off
        if half != file:
            half.unlink()
    reference = validated(
        Reference,
        read_json(file),
        where=file,
        error=DataError,
        advice="send the scan again",
    )
    objects = _objects(reference, profiles, scratch)
    result = []
    for number, each in enumerate(objects):
        part = file.with_name(f"{number:05d}.dcm")
        each.rename(part)
        result.append(part)
    sync_folder(file.parent)
    file.unlink()
    sync_folder(file.parent)
    return result


def _objects(reference: Reference, profiles: Path | None, scratch: Path) -> list[Path]:
    try:
        receipt = _receipt(reference, profiles, scratch)
    except UnreachableError as error:
        raise JobError(Failure.ARCHIVE, str(error)) from error
    except (DataError, UsageError) as error:
        raise JobError(Failure.NOT_IN_ARCHIVE, str(error)) from error
    if not receipt.is_whole:
        reason = receipt.problem or receipt.lack
        raise JobError(Failure.NOT_IN_ARCHIVE, f"{reference.archive}: {reason}")
    return objects_in(receipt.folder)


def _receipt(reference: Reference, profiles: Path | None, scratch: Path) -> Receipt:
    """Fetch the series below a folder."""
    name, profile = chosen_profile(read_profiles(profiles), reference.archive)
    shelf = Shelf(scratch, Pseudonyms(token_bytes(SALT_BYTES)))
    retry = Retry(profile.retries, profile.pause)

    def fetch() -> Receipt:
        return fetch_series(archive, shelf, reference.study, reference.series, None)

    with opened(name, profile) as archive:
        return retry.of(fetch)
