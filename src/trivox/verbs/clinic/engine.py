"""The models of a service: each job is one call of `trivox.predict`.

Where a model computes on the CPU it is loaded before jobs come, by a process that has no
thread and uses none to load it; children get it with all their memory, which costs
nothing. Elsewhere (CUDA does not survive a fork) each child loads its model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from trivox.config.choices import UncertaintyKind
from trivox.datasets.dataset import Case
from trivox.errors import DataError
from trivox.inference.bundle import model_paths, read_any_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.inference.many.ready import READY
from trivox.results.formats import MAP, WRITERS
from trivox.service.serve.jobs.states import Failure, Stage
from trivox.service.serve.settings import WorkSettings
from trivox.service.serve.work.engine import JobError, Order, Report
from trivox.tasks.choice import task_of
from trivox.tasks.options import PredictOptions
from trivox.verbs.predict import key_of, predict

NEEDED = (
    "trivox.volumes.nifti",
    "trivox.volumes.itk",
    "trivox.volumes.dicom.reading",
    "highdicom",
)
"""What loads slowly, and is needed for many cases."""
OUT_OF_MEMORY = "out of memory"
"""How the record of such a case begins."""
DOUBTS: tuple[UncertaintyKind, ...] = ("entropy",)
"""Maps of doubt that may be asked for like formats."""
WITH_DOUBT = ("labels",)
"""What models give that have such maps."""


class Staged:
    """A predictor that says which stage begins."""

    def __init__(self, predictor: Any, report: Report) -> None:
        self._predictor = predictor
        self._report = report

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def begin(self, case: Case) -> Any:
        """Read and prepare."""
        self._report(Stage.PREPARING)
        return self._predictor.begin(case)

    def compute(self, begun: Any) -> Any:
        """Run the networks."""
        self._report(Stage.COMPUTING)
        return self._predictor.compute(begun)

    def complete(self, case: Case, computed: Any) -> Any:
        """Bring the answer to the grid of the source."""
        self._report(Stage.WRITING)
        return self._predictor.complete(case, computed)


@dataclass
class PredictEngine:
    """Jobs are predicted with models that `trivox predict` knows."""

    settings: WorkSettings
    _predictors: dict[str, Any] = field(default_factory=dict)

    def path(self, model: str) -> Path:
        """Where a model lies; raises `JobError` for one that is not served."""
        served = self.settings.model(model)
        if served is None:
            raise JobError(Failure.MODEL, "the model is not served any more")
        return served.path

    @cached_property
    def forks_warm(self) -> bool:
        """Whether models compute on the CPU."""
        if self.settings.device == "auto":
            return torch.version.cuda is None and not torch.backends.mps.is_built()
        return self.settings.device == "cpu"

    def options(self, doubts: Sequence[UncertaintyKind] = ()) -> PredictOptions:
        """What `trivox.predict` asks a predictor for by itself, and maps of doubt."""
        return PredictOptions(device=self.settings.device, uncertainty=tuple(doubts))

    def warm(self, model: str) -> None:
        """Load a model with a single thread."""
        if not self.forks_warm:
            return
        torch.set_num_threads(1)
        for needed in filter(find_spec, NEEDED):
            import_module(needed)
        self._predictors[model] = self._loaded(model)

    def _loaded(self, model: str) -> Any:
        paths = model_paths(self.path(model))
        return task_of(paths[0]).predictor(paths, self.options())

    def begin(self) -> None:
        """Use the cores that a job may keep busy."""
        torch.set_num_threads(self.settings.cores)

    def channels(self, model: str) -> tuple[str, ...]:
        """Of a model that reads volumes; none of X-rays."""
        description = read_any_bundle(self.path(model)).description
        if isinstance(description, LabelDescription):
            return tuple(description.plan.channels)
        return ()

    def words(self, model: str) -> Iterable[str]:
        """Names of channels, labels and classes."""
        description = read_any_bundle(self.path(model)).description
        if not isinstance(description, LabelDescription):
            return ()
        answers = description.classification
        classes = () if answers is None else answers.classes
        return (*description.plan.channels, *description.plan.labels.targets, *classes)

    def predict(self, order: Order, report: Report) -> None:
        """As `trivox predict MODEL SOURCE --out OUT` does."""
        path = self.path(order.model)
        predictor = self._predictors.get(order.model)
        if predictor is None:
            predictor = self._loaded(order.model)
        formats, doubts = parted(order.format)
        if doubts:
            extras = predictor.extras.also(probabilities=False, uncertainty=doubts)
            predictor = replace(predictor, extras=extras)
        paths = model_paths(path)
        key = key_of(task_of(paths[0]), paths, self.options(doubts))
        READY[key] = Staged(predictor, report)
        predictions = predict(
            path,
            order.source,
            order.out,
            uncertainty=doubts,
            device=self.settings.device,
            format=",".join(formats) or None,
            series=order.series,
        )
        for record in predictions.records.values():
            _require_done(record)
        if len(predictions.records) != 1:
            raise DataError("the input holds several cases; send one case a job")


def _require_done(record: Any) -> None:
    """Raise `JobError` for a case that was set aside."""
    error = record.get("error")
    if error is None:
        return
    reason = str(error)
    no_memory = reason.startswith(OUT_OF_MEMORY)
    code = Failure.MEMORY if no_memory else Failure.UNUSABLE_INPUT
    raise JobError(code, reason)


def formats_of(path: Path) -> tuple[str, ...]:
    """The formats that results of a model may be asked for in."""
    gives = task_of(path).gives
    others = [name for name, writer in WRITERS.items() if gives in writer.of]
    doubts = DOUBTS if gives in WITH_DOUBT else ()
    return (MAP, *others, *doubts)


def parted(format: str | None) -> tuple[list[str], list[UncertaintyKind]]:
    """The formats that are asked for, and the maps of doubt among them."""
    asked = [] if format is None else format.split(",")
    doubts = [each for each in DOUBTS if each in asked]
    return [each for each in asked if each not in DOUBTS], doubts
