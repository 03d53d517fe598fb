"""What computes jobs, as the rest of the service sees it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trivox.service.serve.jobs.states import Failure, Stage

Report = Callable[[Stage], None]
"""Is called when a stage begins."""


class JobError(Exception):
    """A job cannot be done; `detail` says why, in words that may come from the input."""

    def __init__(self, code: Failure, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Order:
    """What is to be computed. source: image, folder of a DICOM series or of an exam, or
    folder with a file for each channel; out: folder of the results, which is there;
    series: which one of a DICOM folder.
    """

    model: str
    source: Path
    out: Path
    format: str | None = None
    series: str | None = None


class Engine(Protocol):
    """Models by name, and what they do with a scan."""

    def warm(self, model: str) -> None:
        """Make a model ready before a job needs it, without starting a thread: the
        process forks afterwards. Does nothing where that is not possible.
        """

    def begin(self) -> None:
        """Is called once in each child before its job."""

    def channels(self, model: str) -> tuple[str, ...]:
        """Names of the images that a model reads."""

    def words(self, model: str) -> Iterable[str]:
        """Names of labels and channels, which error texts may hold."""

    def predict(self, order: Order, report: Report) -> None:
        """Write the results of one case; raises `JobError` or `TrivoxError`."""
