"""The training loop, readable from top to bottom.

It knows no task: an `Objective` gives loss and score.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trivox.config.recipe import Recipe
from trivox.errors import (
    BundleError,
    DivergedTrainingError,
    InterruptedTrainingError,
)
from trivox.learning.checkpoints import (
    Checkpoint,
    RunState,
    forget_best,
    keep_best,
    load_checkpoint,
    save_checkpoint,
)
from trivox.learning.divergence import MAX_SKIPPED, PATIENCE, diverged, far_off
from trivox.learning.interruption import stop_signals
from trivox.learning.objective import Objective
from trivox.learning.progress import Clock, Progress, ShowSteps, duration, unshown
from trivox.learning.readings import Readings
from trivox.learning.runtime import (
    Runtime,
    rank,
    reading_threads,
    sum_over_ranks,
    world_size,
)
from trivox.learning.steps.learner import Learner
from trivox.learning.tracking import EpochSteps, RunLog, epoch_line
from trivox.learning.validation import validate
from trivox.memory import memory_ran_out, no_memory
from trivox.preparation.batches import Source
from trivox.preparation.stream import stream
from trivox.volumes.header import one_line


@dataclass
class Trainer:
    """Trains `network` in `folder`.

    Each step is a function of its number: a resumed run repeats nothing, skips nothing.
    """

    network: nn.Module
    objective: Objective
    training: Source
    validation: Source | None
    recipe: Recipe
    folder: Path
    runtime: Runtime
    log: RunLog
    progress: Progress = field(default_factory=Progress)
    show_steps: ShowSteps = unshown
    after_epoch: Callable[[], None] = lambda: None
    """What is to be done besides, by all ranks."""

    def __post_init__(self) -> None:
        self.learner = Learner(self.network, self.objective, self.recipe, self.runtime)
        self.clock = Clock.starting(self.progress)
        self.asked_to_stop = False
        self.stopping = False
        """Whether a rank was asked to stop, so that all of them do."""
        self.readings = Readings.on(self.runtime.device)
        self.skipped = 0
        """Steps in a row whose loss or gradients were not finite."""
        self.lost = 0
        """Epochs in a row after which the model was lost."""

    # -- state -------------------------------------------------------------------------
    def resume(self) -> bool:
        """Load `checkpoints/latest`; returns whether there was one."""
        checkpoint = load_checkpoint(self.folder / "checkpoints" / "latest")
        if checkpoint is None:
            # an attempt that died before its first checkpoint starts over
            self.log.forget_after(0)
            if rank() == 0:
                forget_best(self.folder / "checkpoints")
            return False
        self._require_same_parts(checkpoint)
        try:
            self.learner.resume(checkpoint)
            self.progress = Progress.restored(checkpoint.state["progress"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if memory_ran_out(error):
                raise no_memory(error) from error
            raise BundleError(
                f"{self.folder}: checkpoints/latest does not fit this run "
                f"({one_line(error)}); delete the run to start again"
            ) from error
        self.log.forget_after(self.progress.step)
        return True

    def _require_same_parts(self, checkpoint: Checkpoint) -> None:
        """Raises `BundleError` if the recipe asks for other parts than were saved."""
        averaged = self.learner.average is not None
        learns = self.objective.module is not None
        if averaged != (checkpoint.raw is not None):
            other = "raw"
        elif learns != (checkpoint.objective is not None):
            other = "objective"
        else:
            return
        raise BundleError(
            f"{self.folder}: checkpoints/latest and the recipe disagree about {other} "
            "weights"
        )

    def save(self) -> None:
        """Write `checkpoints/latest`: the model, and all that resuming needs.

        Raises `DivergedTrainingError` instead if any of it is no number.
        """
        self._require_finite()
        self.clock.saved()
        if rank() != 0:
            return
        save_checkpoint(
            self.folder / "checkpoints" / "latest",
            self.learner.model,
            self._state(),
            self.learner.resume_state(),
            raw=self.network if self.learner.average else None,
            objective=self.objective.module,
        )

    def _save_model(self, folder: Path) -> None:
        save_checkpoint(folder, self.learner.model, self._state())

    def _state(self) -> RunState:
        return {"progress": self.progress.to_json()}

    # -- the loop ----------------------------------------------------------------------
    def fit(self) -> Progress:
        """Train until the epochs or minutes are spent, or early stopping; returns the
        final progress.

        Raises `InterruptedTrainingError` after Ctrl-C or SIGTERM, once all is saved,
        and `DivergedTrainingError` where the model is lost.
        """
        if self.progress.finished and self.progress.over(self.recipe):
            self.log.line(
                "training had already finished; --resume with more --epochs (or "
                "--minutes) trains longer"
            )
            return self.progress
        self.progress.finished = False
        self.clock = Clock.starting(self.progress)
        with stop_signals(self._ask_to_stop):
            while not self._spent():
                self._epoch()
                if self.stopping:
                    if not self.lost:
                        self.save()
                    raise InterruptedTrainingError(
                        f"{self.folder}: interrupted after {self.progress.step} steps; "
                        "continue with --resume"
                    )
        self.progress.finished = True
        self.save()
        return self.progress

    def _ask_to_stop(self) -> None:
        self.asked_to_stop = True

    def _spent(self) -> bool:
        """Whether training is over."""
        if self.progress.out_of_patience(self.recipe):
            self.log.line(
                "early stopping: no better smoothed score for "
                f"{self.recipe.early_stopping} epochs"
            )
        return self.progress.over(self.recipe)

    def _epoch(self) -> None:
        began = self.clock.seconds()
        steps = self._train()
        # a whole epoch is validated: resuming begins the next one
        whole = self.progress.step % self.recipe.iterations_per_epoch == 0
        if self.stopping and not whole:
            return
        trained = self.clock.seconds() - began
        figures = self.objective.figures()
        if self.validation is not None:
            figures |= validate(
                self.learner.model,
                self.objective,
                self.validation,
                self.recipe,
                self.runtime,
                show_steps=self.show_steps,
            )
        self.progress.epoch += 1
        self._agree()
        self._note(steps, trained, figures)
        self._look_for_loss(figures.get("validation_loss", steps.late_loss))
        if not self.lost:
            self._keep(figures)
        self._foretell(self.clock.seconds() - began, len(steps.losses))
        self.after_epoch()

    def _train(self) -> EpochSteps:
        """The steps up to the end of the epoch, or of the minutes."""
        per_epoch = self.recipe.iterations_per_epoch
        first = self.progress.step
        numbers = range(first, (first // per_epoch + 1) * per_epoch)
        workers = reading_threads(self.recipe.workers, self.runtime.device)
        batches = stream(
            self.training, numbers, device=self.runtime.device, workers=workers
        )
        steps = EpochSteps()
        what = f"epoch {self.progress.epoch + 1}"
        shown = self.show_steps(numbers, what, steps.note)
        for _, (images, targets) in zip(shown, batches, strict=False):
            self._step(images, targets)
            due = self.readings.due
            if due:
                self._read(steps)
            # ranks wait for each other where they wait for the device anyway
            if due or world_size() == 1:
                self._agree()
            if self.stopping or self.progress.minutes_over(self.recipe):
                break
        batches.close()  # type: ignore[attr-defined]
        self._read(steps)
        return steps

    def _step(self, images: Any, targets: Any) -> None:
        """One optimizer step."""
        taken = self.learner.step(images, targets, self.progress, say=self.log.line)
        self.readings.add(*taken)
        self.progress.step += 1

    def _read(self, steps: EpochSteps) -> None:
        """Take note of the steps that were taken since the last reading."""
        for loss, norm in self.readings.read():
            steps.add(loss, norm)
            usable = math.isfinite(loss) and math.isfinite(norm)
            self.skipped = 0 if usable else self.skipped + 1
            if usable and self.progress.first_loss is None:
                self.progress.first_loss = loss
            if self.skipped > MAX_SKIPPED:
                raise self._diverged(
                    f"loss or gradients were not finite for {MAX_SKIPPED} steps"
                )

    def _agree(self) -> None:
        """Read the clock; ranks share its mean, and stop together if one was asked to.

        Otherwise their learning rates would drift apart, and one would wait for
        gradients that never come.
        """
        self.progress.seconds = self.clock.seconds()
        self.stopping = self.asked_to_stop
        if world_size() > 1:
            values = [self.progress.seconds, float(self.stopping)]
            state = torch.tensor(values, device=self.runtime.device)
            seconds, stops = sum_over_ranks(state).tolist()
            self.progress.seconds = seconds / world_size()
            self.stopping = stops > 0

    # -- divergence --------------------------------------------------------------------
    def _look_for_loss(self, loss: float) -> None:
        """Note whether the model is lost after an epoch with this loss; ranks agree.

        Raises `DivergedTrainingError` once it stays so.
        """
        first = self.progress.first_loss
        far = torch.tensor(float(far_off(loss, first)))
        if world_size() > 1:
            far = sum_over_ranks(far.to(self.runtime.device))
        self.lost = self.lost + 1 if far > 0 else 0
        if not self.lost:
            return
        before = "" if first is None else f", {first:.3g} at the start"
        lost_by = f"loss {loss:.3g}{before}"
        if self.lost >= PATIENCE or self.progress.over(self.recipe):
            raise self._diverged(lost_by)
        self.log.line(
            f"warning: {lost_by}; training stops if it stays so, and nothing is "
            "saved meanwhile"
        )

    def _require_finite(self) -> None:
        if not self.learner.is_finite():
            raise self._diverged("weights are not finite")

    def _diverged(self, what: str) -> DivergedTrainingError:
        return diverged(
            self.folder,
            self.recipe,
            step=self.progress.step,
            what=what,
            precision=self.runtime.precision,
        )

    # -- after an epoch ----------------------------------------------------------------
    def _note(
        self, steps: EpochSteps, trained: float, figures: dict[str, float]
    ) -> None:
        """Record the epoch and say how it went; trained: seconds of its steps."""
        record: dict[str, object] = {
            "kind": "epoch",
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "train_loss": steps.loss,
            "lr": float(self.learner.optimizer.param_groups[0]["lr"]),
            "gradient_norm": steps.norm,
            "seconds": self.progress.seconds,
            "seconds_per_step": trained / max(1, len(steps.losses)),
            "memory_bytes": self.runtime.memory_peak(),
            **figures,
        }
        headline = self.objective.headline(figures)
        if headline is not None:
            record[f"{headline}_ema"] = self.progress.smoothed_with(
                figures[headline], self.recipe.validation_smoothing
            )
        self.log.record(record)
        validated = self.validation is not None
        summary = self.objective.summary(figures) if validated else ""
        self.log.line(epoch_line(record, summary))
        if steps.skipped:
            self.log.line(
                f"warning: {steps.skipped} of {len(steps.norms)} steps had gradients "
                "that are not finite and were skipped; a few are harmless under fp16, "
                "otherwise set precision=fp32"
            )
        for remark in self.objective.remarks(figures):
            self.log.line(f"warning: {remark}")

    def _keep(self, figures: dict[str, float]) -> None:
        """Save the best and, from time to time, the latest."""
        headline = self.objective.headline(figures)
        score = math.nan if headline is None else figures[headline]
        if math.isfinite(score):
            self._require_finite()
            smoothed = self.progress.follow(score, self.recipe.validation_smoothing)
            if rank() == 0:
                keep_best(
                    self.folder / "checkpoints",
                    self._save_model,
                    score=smoothed,
                    epoch=self.progress.epoch,
                    count=self.recipe.keep_best,
                )
        if self.clock.since_save() > 60 * self.recipe.checkpoint_minutes:
            self.save()

    def _foretell(self, seconds: float, steps: int) -> None:
        """After the first epoch of a session: how long the epochs that are left will
        take.
        """
        all_steps = self.recipe.epochs * self.recipe.iterations_per_epoch
        left = all_steps - self.progress.step
        first = self.progress.epoch == self.clock.first_epoch + 1
        if first and steps and left > 0 and self.recipe.minutes is None:
            time_left = duration(seconds / steps * left)
            self.log.line(f"about {time_left} left at this speed")
