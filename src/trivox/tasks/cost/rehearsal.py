"""A rehearsal: every part of a training, on a few of its cases and for a few seconds, in
a folder that is removed. What the parts take is what a forecast is made of.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Generic

from trivox.config.recipe import Recipe
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import save_dataset
from trivox.datasets.splits import Split
from trivox.errors import DataError, TrivoxError
from trivox.files import write_json
from trivox.learning.checkpoints import save_checkpoint
from trivox.learning.metering import Meter
from trivox.learning.progress import Clock, Progress
from trivox.learning.runtime import Runtime, reading_threads, seed_everything
from trivox.learning.steps.learner import Learner
from trivox.learning.tracking import RunLog
from trivox.learning.validation import validate
from trivox.planning.cost import NOTHING, Rates, Stage, Usage
from trivox.preparation.renewal import release
from trivox.preparation.stream import stream
from trivox.schema import stamped
from trivox.scratch import scratch_folder
from trivox.tasks.checking import reasons_of, without_cases
from trivox.tasks.console import Console, Quiet, working
from trivox.tasks.cost.sample import mean_size, spread
from trivox.tasks.origin import write_content
from trivox.tasks.residence import at_hand
from trivox.tasks.task import PlanT, Prepared, RunRequest, StoreT, Task

SECONDS = 6.0
"""That each part is tried for, about."""
OF_STEPS = 12.0
"""Likewise; steps differ by their augmentation."""
PORTION = 8
"""Cases that are prepared together."""
WARM_UP = 3
"""Steps that do not count: the first ones are slow."""
MOST_STEPS = 200
BATCHES = 4
"""Of validation, tried together."""
MOST_BATCHES = 5 * BATCHES
MOST_HELD_OUT = 8
FOLD = 0
TOO_LITTLE = (TrivoxError, ValueError, RuntimeError)
"""How validating a model of a few cases and steps may end that has learnt nothing."""


@dataclass(frozen=True, eq=False)
class Rehearsed:
    """What the parts took, on how many cases; missing: stages of which nothing is known,
    and why.
    """

    rates: Rates
    cases: int
    missing: dict[Stage, str] = field(default_factory=dict)


@dataclass(eq=False)
class Rehearsal(Generic[PlanT, StoreT]):
    """A training of a few cases in `folder`, part by part.

    missing: parts that could not be tried; sound: cases that were tried, without those
    that a training would set aside.
    """

    task: Task[PlanT, StoreT]
    dataset: Dataset
    plan: PlanT
    recipe: Recipe
    runtime: Runtime
    meter: Meter
    folder: Path
    missing: dict[Stage, str] = field(default_factory=dict)
    sound: list[Case] = field(default_factory=list)

    def rates(self) -> Rehearsed:
        """What the parts take."""
        cases = self.dataset.training_cases
        sample = spread(cases)
        larger = mean_size(cases) / max(1.0, mean_size(sample))
        preparing = self.prepare(sample)
        with self.prepared(self.sound) as prepared:
            training = self.train(prepared)
            afterwards = self.finish(prepared)
        rates = Rates(
            preparing=preparing.times(larger),
            step=training.step,
            batch=training.batch,
            saving=training.saving,
            learning=afterwards.learning.times(larger),
            predicting=afterwards.predicting.times(larger),
            ending=afterwards.ending,
            report=afterwards.report,
            held_out_bytes=afterwards.held_out_bytes,
        )
        return Rehearsed(rates, len(self.sound), self.missing)

    # -- preparation ------------------------------------------------------------------
    def prepare(self, sample: Sequence[Case]) -> Usage:
        """Of a case, from as many as there is time for. The first one loads what is
        loaded once, and counts only if it is alone. Raises `DataError` where no case
        can be used.
        """
        others = list(sample)
        alone = NOTHING
        while others and not self.sound:
            begun = self.meter.read()
            self._prepare([others.pop(0)])
            alone = self.meter.since(begun)
        if not self.sound:
            raise DataError(
                f"{self.dataset.root}: none of {len(sample)} cases can be prepared; run "
                f"'trivox check {self.dataset.root}'"
            )
        starts = range(0, len(others), PORTION)
        portions = (others[start : start + PORTION] for start in starts)
        spent, number = self.tried(portions, self._prepare)
        return spent.times(1 / number) if number else alone

    def _prepare(self, cases: Sequence[Case]) -> int:
        """Check, record, measure and prepare cases, as the stages of a run do; returns
        how many were not set aside.
        """
        part = self._part(cases)
        report = check_dataset(part, progress=lambda items, total: items)
        sound = without_cases(part, reasons_of(report)).training_cases
        if not sound:
            return 0
        part = self._part(sound)
        workers = self.recipe.cases_at_a_time
        write_content(part, self.folder, workers=workers, console=Quiet())
        self._measure(part)
        release(self._store(part))
        self.sound += sound
        return len(sound)

    def _measure(self, part: Dataset) -> None:
        fingerprint = self.folder / "fingerprint.json"
        fingerprint.unlink(missing_ok=True)
        try:
            self.task.plan(
                part,
                self.recipe,
                runtime=self.runtime,
                fingerprint=fingerprint,
                console=Quiet(),
            )
        except TrivoxError:  # of so few cases no plan can be made
            return

    def _part(self, cases: Sequence[Case]) -> Dataset:
        return self.dataset.model_copy(update={"cases": tuple(cases), "folds": ()})

    def _store(self, part: Dataset) -> StoreT:
        return self.task.store(
            part,
            self.plan,
            self.folder / "prepared",
            workers=self.recipe.cases_at_a_time,
            replace=True,
            console=Quiet(),
        )

    @contextmanager
    def prepared(self, cases: Sequence[Case]) -> Iterator[Prepared[PlanT, StoreT]]:
        """The cases that were tried, ready to train on all of them."""
        part = self._part(cases)
        names = tuple(sorted(case.name for case in cases))
        store = self._store(part)
        try:
            yield Prepared(part, self.plan, (Split(names, names),), store)
        finally:
            release(store)

    # -- training ---------------------------------------------------------------------
    def train(self, prepared: Prepared[PlanT, StoreT]) -> "TrainingParts":
        """Of a step, of a batch of validation, and of a checkpoint."""
        seed_everything(self.recipe.seed)
        names = prepared.splits[FOLD].train
        log = RunLog(self.folder, active=False)
        micro = self.task.micro_batch(prepared, self.recipe, self.runtime, log)
        changes = {
            "micro_batch": micro or self.recipe.micro_batch,
            "minutes": OF_STEPS / 60,  # a whole schedule, so that something is learnt
        }
        recipe = self.recipe.model_copy(update=changes)
        near = at_hand(prepared, recipe, self.runtime, prepared.splits[FOLD], log)
        network = self.task.network(near, recipe, names)
        objective = self.task.objective(near, recipe, names)
        learner = Learner(network, objective, recipe, self.runtime)
        progress = Progress(micro_batch=micro)

        clock = Clock.starting(progress)

        def step(batch: tuple[Any, Any]) -> int:
            progress.seconds = clock.seconds()
            learner.step(*batch, progress, say=log.line)
            progress.step += 1
            return 1

        training = self.task.source(near, recipe, names, training=True)
        workers = reading_threads(recipe.workers, self.runtime.device)
        numbers = range(MOST_STEPS)
        device = self.runtime.device
        batches = stream(training, numbers, device=device, workers=workers)
        with closing(batches):  # type: ignore[type-var]
            for batch in islice(batches, WARM_UP):
                step(batch)
            stepping, steps = self.tried(batches, step, seconds=OF_STEPS)
        validation = self.task.source(near, recipe, names, training=False)

        def validating(number: int) -> int:
            few = recipe.model_copy(update={"validation_iterations": number})
            validate(learner.model, objective, validation, few, self.runtime)
            return number

        validating(1)
        portions = repeat(BATCHES, MOST_BATCHES // BATCHES)
        measuring, measured = self.tried(portions, validating)
        return TrainingParts(
            step=stepping.times(1 / max(1, steps)),
            batch=measuring.times(1 / max(1, measured)),
            saving=self._save(learner, progress),
        )

    def _save(self, learner: Learner, progress: Progress) -> Usage:
        begun = self.meter.read()
        save_checkpoint(
            self.folder / "checkpoints" / "latest",
            learner.model,
            {"progress": progress.to_json()},
            learner.resume_state(),
        )
        return self.meter.since(begun)

    # -- after training ---------------------------------------------------------------
    def finish(self, prepared: Prepared[PlanT, StoreT]) -> "FinishingParts":
        """What is done once, for each case, and for each held-out case; and the page."""
        parts = FinishingParts()
        try:
            parts = self._validation(prepared)
        except TOO_LITTLE as error:
            self.missing["validation"] = _reason(error)
            self.missing["report"] = "it shows the validation"
            return parts
        try:
            return replace(parts, report=self._report(prepared))
        except TOO_LITTLE as error:
            self.missing["report"] = _reason(error)
            return parts

    def _validation(self, prepared: Prepared[PlanT, StoreT]) -> "FinishingParts":
        """Three sizes tell the parts apart; the first attempt loads what is loaded
        once.
        """
        names = prepared.splits[FOLD].train
        first = self._validated(prepared, names[:1], names[:1])
        if first.seconds > SECONDS or len(names) == 1:
            return FinishingParts(predicting=first)
        number = min(len(names), MOST_HELD_OUT)
        one = self._validated(prepared, names[:1], names[:1])
        more_known = self._validated(prepared, names[:number], names[:1])
        more_held_out = self._validated(prepared, names[:number], names[:number])
        learning = more_known.without(one).times(1 / (number - 1))
        predicting = more_held_out.without(more_known).times(1 / (number - 1))
        growth = more_held_out.memory_bytes - more_known.memory_bytes
        return FinishingParts(
            held_out_bytes=max(0, growth) // (number - 1),
            learning=learning,
            predicting=predicting,
            ending=one.without(learning + predicting),
        )

    def _validated(
        self,
        prepared: Prepared[PlanT, StoreT],
        known: Sequence[str],
        held_out: Sequence[str],
    ) -> Usage:
        """Of validating a model of the cases `known` on some of them."""
        cases = [case for case in prepared.dataset.cases if case.name in known]
        split = Split(tuple(known), tuple(held_out))
        part = replace(prepared, dataset=self._part(cases), splits=(split,))
        folders = {FOLD: self.folder}
        begun = self.meter.read()
        self.task.finish(self._request, self.recipe, part, folders, Quiet())
        return self.meter.since(begun)

    def _report(self, prepared: Prepared[PlanT, StoreT]) -> Usage:
        save_dataset(prepared.dataset, self.folder / "dataset.json")
        write_json(self.folder / "plan.json", self.plan.model_dump(mode="json"))
        recipe = stamped(self.recipe.model_dump(mode="json"), self.task.name)
        write_json(self.folder / "recipe.json", recipe)
        begun = self.meter.read()
        self.task.report(self.folder, {FOLD: self.folder}, Quiet())
        return self.meter.since(begun)

    @property
    def _request(self) -> RunRequest:
        device = str(self.runtime.device)
        name = self.task.name
        return RunRequest(self.dataset.root, self.folder, task=name, device=device)

    # -- how long ---------------------------------------------------------------------
    def tried(
        self,
        items: Iterator[Any],
        work: Callable[[Any], int],
        *,
        seconds: float = SECONDS,
    ) -> tuple[Usage, int]:
        """What working on items took until the time was over, and what it was worth."""
        begun = self.meter.read()
        worth = 0
        for item in items:
            worth += work(item)
            if self.meter.read().seconds - begun.seconds > seconds:
                break
        return self.meter.since(begun), worth


@dataclass(frozen=True)
class TrainingParts:
    """Of a step, a batch of validation, a checkpoint."""

    step: Usage
    batch: Usage
    saving: Usage


@dataclass(frozen=True)
class FinishingParts:
    """Of a case known, a held-out case, all else in validation, and the page; and bytes
    that stay in memory of a held-out case.
    """

    held_out_bytes: int = 0
    learning: Usage = NOTHING
    predicting: Usage = NOTHING
    ending: Usage = NOTHING
    report: Usage = NOTHING


def rehearse(
    task: Task[PlanT, StoreT],
    dataset: Dataset,
    plan: PlanT,
    recipe: Recipe,
    runtime: Runtime,
    meter: Meter,
    console: Console,
) -> Rehearsed:
    """Prepare, train, validate and report a few cases of a dataset."""
    with scratch_folder() as folder, working(console, "rehearsing"), meter.running():
        return Rehearsal(task, dataset, plan, recipe, runtime, meter, folder).rates()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
