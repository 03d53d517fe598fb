"""What a folder asks of a model that predicts its cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from trivox.datasets.dataset import Case
from trivox.inference.writing import Record


class Result(Protocol):
    """The prediction of a case."""

    def write(self, case: Case, out: Path) -> Record:
        """Write its files into `out`; returns what its record says: `output`,
        `warnings` and whatever else there is to say, ready for JSON.
        """

    def record(self) -> Record:
        """What its record says beside the names of its files."""


R = TypeVar("R", bound=Result)
Made = TypeVar("Made", bound=Result, covariant=True)


class CasePredictor(Protocol[Made]):
    """A model made ready, with all options of what it is to give.

    A case is begun, computed and completed, each in whatever thread; `compute` alone
    uses the device, one case at a time.
    """

    @property
    def identity(self) -> str:
        """Names the weights."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def about(self) -> Mapping[str, Any]:
        """What besides the weights decides a prediction, as `predictions.json` has
        it.
        """

    def files(self, case: Case) -> Sequence[str]:
        """Names of the files that the prediction of a case leaves."""

    def tables(self) -> Sequence[str]:
        """Names of the files that are written about all cases together."""

    def forecast(self, case: Case) -> float:
        """Bytes of memory that a case takes on its way, from what its headers say."""

    def begin(self, case: Case) -> Any:
        """Read a case and prepare it; errors name the case."""

    def compute(self, begun: Any) -> Any:
        """What the networks make of it."""

    def complete(self, case: Case, computed: Any) -> Made:
        """The prediction of a case."""

    def finish(self, records: Mapping[str, Record], out: Path) -> None:
        """Write what is written about all cases together."""
