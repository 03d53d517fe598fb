"""What `trivox train` was asked to do, and what it needs to know about a task to do it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from trivox.config.recipe import Recipe
from trivox.datasets.splits import Split
from trivox.evaluation.metrics.content import MetricsFile
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime
from trivox.learning.tracking import RunLog
from trivox.preparation.batches import Source
from trivox.tasks.console import Console

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers."""


@dataclass(frozen=True)
class RunRequest:
    """What `trivox train` was asked to do. `fold` is a number, or "all" for every fold.

    preset: None: by the machine; named: a recipe for a kind of data; classes: a table
    with the class of each case.
    """

    dataset: Path
    out: Path
    preset: str | None = None
    overrides: Mapping[str, Any] | None = None
    fold: str = "0"
    task: str = "segmentation"
    device: str = "auto"
    resume: bool = False
    plan: Path | None = None
    prepared: Path | None = None
    named: str | None = None
    classes: Path | None = None


class PreparedData(Protocol):
    """A dataset ready to train on, whatever the task keeps beside its folds."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The folds."""


P = TypeVar("P", bound=PreparedData)


class Task(ABC, Generic[P]):
    """One way to learn from a dataset. Every method but `finish` runs on all ranks."""

    recipe: str | None = None
    """Name of the recipe that is taken where none is named."""

    @abstractmethod
    def prepare(
        self, request: RunRequest, recipe: Recipe, runtime: Runtime, console: Console
    ) -> P:
        """Everything before training; finished stages in `request.out` are reused."""

    @abstractmethod
    def network(self, prepared: P, recipe: Recipe, names: Sequence[str]) -> nn.Module:
        """A new network to train on the cases `names`."""

    @abstractmethod
    def objective(self, prepared: P, recipe: Recipe, names: Sequence[str]) -> Objective:
        """Loss and score for training on the cases `names`; nothing is counted on other
        cases.
        """

    @abstractmethod
    def source(
        self, prepared: P, recipe: Recipe, names: Sequence[str], *, training: bool
    ) -> Source:
        """Batches of the cases `names`, to train or to validate on."""

    def micro_batch(
        self, prepared: P, recipe: Recipe, runtime: Runtime, log: RunLog
    ) -> int | None:
        """Samples that go through the network at a time, if the recipe leaves it open
        and a forecast says.
        """
        return None

    def channels(self, prepared: P) -> int:
        """Input channels of the network, which pretrained weights are fitted to."""
        return 1

    @abstractmethod
    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: P,
        folders: Mapping[int, Path],
        console: Console,
    ) -> MetricsFile:
        """Bundle, validation and report of the trained folds; returns the content of
        `validation/metrics.json`.
        """
