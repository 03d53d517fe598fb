"""Answers about archives: pacs echo, find, fetch, send."""

from typing import Annotated

from pydantic import AliasPath, Field

from trivox.verbs.answers.base import Answer, Count, Part, Place, reasons_of


class EchoAnswer(Answer):
    """What `trivox pacs echo` heard."""

    says: str
    """Which archive answers."""


class FindAnswer(Answer):
    """What `trivox pacs find` found: everything that the archive says of each study, or
    of each series.
    """

    matches: tuple[dict[str, str], ...] = Field(validation_alias=AliasPath("rows"))
    """Values by DICOM keyword."""


class FetchedSeries(Part):
    """What came of a series."""

    folder: Place
    """Of its objects."""
    series: str
    """Its UID."""
    here: Count
    """Objects that are here."""
    expected: Count
    """Objects that the archive says there are."""
    is_whole: bool
    problem: str
    """What went wrong, blank if nothing did."""


class FetchAnswer(Answer):
    """What `trivox pacs fetch` brought here. It fails where a series is not whole."""

    folder: Place
    series: tuple[FetchedSeries, ...] = Field(validation_alias=AliasPath("receipts"))


class RefusedFile(Part):
    """A file that is not in the archive."""

    file: Place
    reason: str


class SendAnswer(Answer):
    """What `trivox pacs send` sent. It fails where an object is not in the archive."""

    archive: str
    """Name of its profile."""
    stored: Count
    """Objects that are new there."""
    present: Count
    """Objects that were there before."""
    refused: Annotated[tuple[RefusedFile, ...], reasons_of("file")]
