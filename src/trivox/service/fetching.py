"""Bringing series of an archive here, with a count of what came."""

from dataclasses import dataclass, field
from pathlib import Path

from trivox.errors import DataError
from trivox.service.objects import Shelf, series_place
from trivox.service.peers.archive import Archive


@dataclass(frozen=True)
class Receipt:
    """What came of a series.

    folder: of its objects; here: how many of them are here; expected: how many the
    archive says there are; problem: what went wrong, blank if nothing did.
    """

    folder: Path
    here: int
    expected: int
    study: str = field(repr=False)
    series: str = field(repr=False)
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all are here."""
        return self.here == self.expected and self.here > 0

    @property
    def lack(self) -> str:
        """What is missing, in words."""
        return lack_of(self.here, self.expected)


def lack_of(here: int, expected: int) -> str:
    """That not as many objects are here as there should be."""
    if not expected:
        return "the archive has no objects of it"
    return f"{here} of {expected} objects are here; waits for the rest"


def fetch_series(
    archive: Archive, shelf: Shelf, study: str, series: str, count: int | None
) -> Receipt:
    """Fetch what is not here yet; count: of the series' objects as the archive gave it
    elsewhere, which must be right as well. What the archive refuses is the receipt's
    problem.
    """
    problem = ""
    listed = archive.instances(study, series)
    with series_place(shelf, study, series) as place:
        wanted = shelf.missing(study, series, listed)
        try:
            archive.fetch(study, series, wanted, place)
        except DataError as error:
            problem = str(error)
    here = len(listed) - len(shelf.missing(study, series, listed))
    expected = max(len(listed), count or 0)
    folder = shelf.series_folder(study, series)
    return Receipt(folder, here, expected, study, series, problem)
