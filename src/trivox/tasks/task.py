"""What a task is: it alone knows targets, outputs, loss, metrics and results, and it
answers every verb.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel
from torch import nn

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.splits import Split
from trivox.evaluation.metrics.content import MetricsFile
from trivox.evaluation.report.page import CasePictures
from trivox.evaluation.report.pages import Part
from trivox.evaluation.report.viewer import SurfaceScene
from trivox.inference.many.predictors import CasePredictor
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime
from trivox.learning.tracking import RunLog
from trivox.planning.cost import NO_PRICES, CostSettings
from trivox.preparation.batches import Source
from trivox.results.case import CaseResult
from trivox.results.formats import Gives
from trivox.results.options import ResultOptions
from trivox.tasks.console import Console
from trivox.tasks.options import EvaluateOptions, PredictOptions
from trivox.volumes.choice import NO_CHOICE, SeriesChoice

TRAINING = 0
VALIDATION = 1
"""Streams of random numbers."""

PlanDecision = tuple[str, str, str]
"""What was decided, what it is, and why."""
PlanT = TypeVar("PlanT", bound=BaseModel)
StoreT = TypeVar("StoreT")


@dataclass(frozen=True)
class RunRequest:
    """What `trivox train` was asked to do.

    preset: None: by the machine; fold: a number, or "all" for every fold; named: a
    recipe for a kind of data; classes: a table of them; choice: how DICOM is read;
    cost: what energy and time cost.
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
    choice: SeriesChoice = NO_CHOICE
    cost: CostSettings = NO_PRICES


@dataclass(frozen=True, eq=False)
class Prepared(Generic[PlanT, StoreT]):
    """A dataset ready to train on: its folds, and where its prepared cases lie."""

    dataset: Dataset
    plan: PlanT
    splits: tuple[Split, ...]
    store: StoreT


@dataclass(eq=False)
class Pictures:
    """Pictures of validation cases, best, median and worst.

    surfaces: caption and scene of the case that the report itself shows in 3-D.
    """

    cases: list[CasePictures] = field(default_factory=list)
    surfaces: tuple[str, SurfaceScene] | None = None


def _nothing_more(case: Case, prediction: Any) -> dict[str, object]:
    return {}


class Task(ABC, Generic[PlanT, StoreT]):
    """One way to learn from a dataset.

    Every method runs on all ranks.
    """

    name: ClassVar[str]
    """As plans, bundles and metrics carry it."""
    verb: ClassVar[str] = "train"
    """The command that learns it."""
    learns_classes: ClassVar[bool] = False
    """Whether the class of a case is learnt, where it is known."""
    recipe: ClassVar[str | None] = None
    """Name of the recipe that is taken where none is named."""

    def overrides(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The user's settings over those that the task cannot do without."""
        return given

    def require_possible(self, recipe: Recipe) -> None:
        """Raise `RecipeError` for settings that make no sense for the task."""

    # -- the data and what is decided from them ---------------------------------------

    def load(self, path: Path, classes: Path | None = None) -> Dataset:
        """What the task learns from in the dataset at `path`."""
        return self.dataset(load_dataset(path), classes)

    @abstractmethod
    def dataset(self, dataset: Dataset, classes: Path | None = None) -> Dataset:
        """What the task learns from in a dataset, with the classes of a table.

        Raises `DataError` where there is nothing to learn.
        """

    @abstractmethod
    def plan(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        runtime: Runtime,
        fingerprint: Path,
        console: Console,
    ) -> PlanT:
        """Decide how to prepare and learn. fingerprint: file of what was measured, read
        if it is of the same cases.
        """

    @abstractmethod
    def read_plan(self, file: Path) -> PlanT:
        """Read a plan of this task; raises `PlanError` for any other."""

    @abstractmethod
    def require_fitting(self, plan: PlanT, dataset: Dataset, file: Path) -> None:
        """Raise `PlanError` if the plan that `file` holds is of other data."""

    @abstractmethod
    def decisions(self, plan: PlanT) -> list[PlanDecision]:
        """What was decided, for people."""

    @abstractmethod
    def plan_line(self, plan: PlanT) -> str:
        """The plan in one line."""

    def warnings(self, plan: PlanT) -> Sequence[str]:
        """What a reader of the plan has to know."""
        return ()

    @abstractmethod
    def store(
        self,
        dataset: Dataset,
        plan: PlanT,
        folder: Path,
        *,
        workers: int,
        replace: bool,
        console: Console,
    ) -> StoreT:
        """Prepare all training cases in `folder`; those that are there are reused.

        replace: whether cases of another plan may be replaced, or are an error.
        """

    # -- learning ---------------------------------------------------------------------

    @abstractmethod
    def network(
        self, prepared: Prepared[PlanT, StoreT], recipe: Recipe, names: Sequence[str]
    ) -> nn.Module:
        """A new network to train on the cases `names`."""

    @abstractmethod
    def objective(
        self, prepared: Prepared[PlanT, StoreT], recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score for training on the cases `names`; nothing is counted on other
        cases.
        """

    @abstractmethod
    def source(
        self,
        prepared: Prepared[PlanT, StoreT],
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> Source:
        """Batches of the cases `names`, to train or to validate on."""

    def micro_batch(
        self,
        prepared: Prepared[PlanT, StoreT],
        recipe: Recipe,
        runtime: Runtime,
        log: RunLog,
    ) -> int | None:
        """Samples that go through the network at a time, if the recipe leaves it open
        and a forecast says.
        """
        return None

    def channels(self, prepared: Prepared[PlanT, StoreT]) -> int:
        """Input channels of the network, which pretrained weights are fitted to."""
        return 1

    def afterwards(self, held_out: int) -> str:
        """What is done after training and takes long, with so many held-out cases."""
        return ""

    @abstractmethod
    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: Prepared[PlanT, StoreT],
        folders: Mapping[int, Path],
        console: Console,
    ) -> Mapping[str, Any]:
        """What is left to do after training; returns what was measured.

        folders: of the trained folds. Ranks share what takes long; the first writes and
        returns the results, the others nothing.
        """

    def report(self, run: Path, folders: Mapping[int, Path], console: Console) -> None:
        """Write the page of a finished run; of the first rank alone."""


class ModelTask(Task[PlanT, StoreT]):
    """A task whose training gives a model: something that predicts and is measured."""

    results: ClassVar[str] = "cases"
    """What predictions are called."""
    note: ClassVar[str] = ""
    """What has to be said of them."""
    gives: ClassVar[Gives] = "labels"
    """What its models make of a case."""
    measured_before: ClassVar[str] = ""
    """Where validation measures, on another grid than that of what it writes, if so."""
    endings_beside: ClassVar[tuple[str, ...]] = ()
    """Of the files that `written_beside` writes, after the name of the case."""

    def afterwards(self, held_out: int) -> str:
        """Validation and report."""
        return f"predicting and measuring {held_out} held-out cases and the report"

    def knowing(
        self,
        predictors: Sequence[CasePredictor[Any]],
        cases: Sequence[Case],
        options: PredictOptions,
        console: Console,
    ) -> Sequence[CasePredictor[Any]]:
        """The same model on each device, which knows what cases it will be asked
        together, where options want that.
        """
        return predictors

    def suits(self, dataset: Dataset) -> bool:
        """Whether a dataset can be of no other task; those that suit none are
        segmented.
        """
        return False

    def suits_references(self, references: Path) -> bool:
        """Whether what lies there can be references of no other task."""
        return False

    @abstractmethod
    def predictor(
        self, models: Sequence[Path], options: PredictOptions
    ) -> CasePredictor[Any]:
        """Models made ready to predict; several vote.

        Raises `BundleError` for models that do not fit together, `UsageError` for
        options that the models know nothing of.
        """

    @abstractmethod
    def inputs(
        self, source: Path, predictor: CasePredictor[Any], console: Console
    ) -> tuple[Case, ...]:
        """The cases at `source` that the models can predict."""

    def written_beside(
        self, predictor: CasePredictor[Any], out: Path
    ) -> Callable[[Case, Any], Mapping[str, Any]]:
        """What writes more about a prediction than the prediction itself into `out`,
        and returns what joins its record.
        """
        return _nothing_more

    @abstractmethod
    def result(
        self, predictor: Any, case: Case, made: Any, options: ResultOptions
    ) -> CaseResult:
        """What a predictor made of a case, ready to be written in any format."""

    def classes(self, predictor: CasePredictor[Any]) -> tuple[str, ...]:
        """Classes that a case may belong to, where the models answer with one."""
        return ()

    @abstractmethod
    def evaluate(
        self, predictions: Path, references: Path, options: EvaluateOptions
    ) -> MetricsFile:
        """Measure predictions against references; returns what metrics.json holds."""

    @abstractmethod
    def pictures(
        self,
        run: Path,
        plan: PlanT,
        metrics: MetricsFile,
        *,
        report: Path,
        console: Console,
    ) -> Pictures:
        """Pictures of a run's validation cases; pages are written beside the report."""

    def wrote(self, metrics: MetricsFile) -> bool:
        """Whether a metrics.json of 0.1.0, which names no task, is of this one."""
        return False

    @abstractmethod
    def parts(
        self, metrics: MetricsFile, records: Sequence[Mapping[str, Any]]
    ) -> list[Part]:
        """What a report shows of a metrics.json and of the epochs of a training."""

    @abstractmethod
    def headline(self, metrics: MetricsFile) -> str:
        """The most important figures of a metrics.json in one line."""

    @abstractmethod
    def title(self, plan: PlanT) -> str:
        """Heading of the report."""

    @abstractmethod
    def facts(self, model: Path) -> dict[str, object]:
        """What a run or bundle is: data, labels, network, parameters, operations."""
