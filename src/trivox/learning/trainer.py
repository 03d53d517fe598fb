"""The training loop, readable from top to bottom.

It knows no task: an `Objective` gives loss and score.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trivox.config.recipe import Recipe
from trivox.errors import (
    BundleError,
    InterruptedTrainingError,
    RecipeError,
    TrivoxError,
)
from trivox.learning.averaging import MovingAverage
from trivox.learning.checkpoints import keep_best, load_checkpoint, save_checkpoint
from trivox.learning.compiling import compiled
from trivox.learning.freezing import Freezing
from trivox.learning.growing import Growing
from trivox.learning.interruption import stop_signals
from trivox.learning.microbatch import lowered
from trivox.learning.objective import Objective
from trivox.learning.progress import Progress, duration, finite
from trivox.learning.runtime import (
    Runtime,
    rank,
    seed_step,
    sum_over_ranks,
    world_size,
)
from trivox.learning.schedules import make_optimizer, rate_factor, set_rate
from trivox.learning.tracking import RunLog, epoch_line
from trivox.learning.validation import validate
from trivox.preparation.batches import Source, stream

MAX_SKIPPED = 20
"""Steps in a row whose gradients are not finite before training is given up."""


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
    show_steps: Callable[[Sequence[int], str], Iterator[int]] | None = None

    def __post_init__(self) -> None:
        recipe = self.recipe
        for module in self._modules():
            module.to(self.runtime.device)
        if recipe.gradient_checkpointing:
            _recompute_activations(self.network, recipe.network)
        self.optimizer = make_optimizer(self.network, recipe, self.objective.module)
        self.scaler = self.runtime.scaler()
        self.freezing = Freezing(self.network, recipe)
        self.average = (
            MovingAverage(self.network, recipe.weights_ema)
            if recipe.weights_ema
            else None
        )
        self.growing = Growing(
            [self.network, *([self.average.network] if self.average else [])], recipe
        )
        self._wrap()
        self._asked = self._stop = False
        self._skipped = 0

    def _modules(self) -> list[nn.Module]:
        """What learns."""
        return (
            [self.network]
            if self.objective.module is None
            else [self.network, self.objective.module]
        )

    def _wrap(self) -> None:
        """Put DDP and the compiler around the network; anew when frozen parameters
        change, which DDP must know.
        """
        self.distributed: nn.parallel.DistributedDataParallel | None = None
        if world_size() > 1:
            ids = (
                [self.runtime.device.index]
                if self.runtime.device.type == "cuda"
                else None
            )
            self.distributed = nn.parallel.DistributedDataParallel(
                self.network,
                device_ids=ids,
                find_unused_parameters=bool(self.growing.sizes),
            )
        wrapped = self.network if self.distributed is None else self.distributed
        compile_it = self.recipe.compile
        self.forward: Callable[..., Any] = (
            compiled(wrapped, self.runtime.device) if compile_it else wrapped
        )

    # -- state -------------------------------------------------------------------------
    def resume(self) -> bool:
        """Load `checkpoints/latest`; returns whether there was one."""
        found = load_checkpoint(self.folder / "checkpoints" / "latest")
        if found is None:
            self.log.forget_after(
                0
            )  # an attempt that died before its first checkpoint starts over
            return False
        for what, needed, there in (
            ("raw", self.average, found.raw),
            ("objective", self.objective.module, found.objective),
        ):
            if (needed is None) != (there is None):
                raise BundleError(
                    f"{self.folder}: checkpoints/latest and the recipe disagree about {what} weights"
                )
        self.network.load_state_dict(found.raw or found.weights)
        if self.average is not None:
            self.average.network.load_state_dict(found.weights)
        if self.objective.module is not None and found.objective is not None:
            self.objective.module.load_state_dict(found.objective)
        self.progress = Progress(**found.state["progress"])
        if found.optimizer is not None:
            self.optimizer.load_state_dict(found.optimizer["optimizer"])
            self.scaler.load_state_dict(found.optimizer["scaler"])
            self.objective.restore(found.optimizer.get("objective", {}))
        self.log.forget_after(self.progress.step)
        return True

    def save(self) -> None:
        """Write `checkpoints/latest`: the model, and all that resuming needs."""
        self._last_save = time.monotonic()
        if rank() == 0:
            optimizer = {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "objective": self.objective.state(),
            }
            save_checkpoint(
                self.folder / "checkpoints" / "latest",
                self.model,
                self._state(),
                optimizer,
                raw=self.network if self.average else None,
                objective=self.objective.module,
            )

    def _state(self) -> dict[str, Any]:
        return {
            "progress": {**asdict(self.progress), "best": finite(self.progress.best)}
        }

    @property
    def model(self) -> nn.Module:
        """What is validated and saved as the model: the network, or the moving average
        of its weights.
        """
        return self.average.network if self.average is not None else self.network

    # -- the loop ----------------------------------------------------------------------
    def fit(self) -> Progress:
        """Train until the epochs or minutes are spent, or early stopping; returns the
        final progress.
        """
        if self.progress.finished:
            self.log.line("training had already finished")
            return self.progress
        self.progress.best = (
            self.progress.best if self.progress.best is not None else -math.inf
        )
        self._started = time.monotonic() - self.progress.seconds
        self._last_save, self._first_epoch = time.monotonic(), self.progress.epoch
        with stop_signals(self._ask):
            while not self._spent():
                self._epoch()
                if self._stop:
                    self.save()
                    raise InterruptedTrainingError(
                        f"{self.folder}: interrupted after {self.progress.step} steps; continue with --resume"
                    )
        self.progress.finished = True
        self.save()
        return self.progress

    def _ask(self) -> None:
        self._asked = True

    def _epoch(self) -> None:
        per_epoch = self.recipe.iterations_per_epoch
        first = self.progress.step
        steps = range(first, (first // per_epoch + 1) * per_epoch)
        began, losses, norms = time.monotonic(), [], []
        batches = stream(
            self.training,
            steps,
            device=self.runtime.device,
            workers=self.recipe.workers,
        )
        shown = (
            self.show_steps(steps, f"epoch {self.progress.epoch + 1}")
            if self.show_steps
            else iter(steps)
        )
        for _, (images, labels) in zip(shown, batches, strict=False):
            loss, norm = self._step(images, labels)
            losses.append(loss)
            norms.append(norm)
            self.progress.step += 1
            self._agree()
            if self._stop or self.progress.minutes_over(self.recipe):
                break
        batches.close()  # type: ignore[attr-defined]
        if (
            self._stop and self.progress.step % per_epoch
        ):  # a whole epoch is validated: resuming begins the next one
            return
        trained = time.monotonic() - began
        figures = self.objective.figures()
        if self.validation is not None:
            figures |= validate(
                self.model, self.objective, self.validation, self.recipe, self.runtime
            )
        self.progress.epoch += 1
        self._agree()
        self._note(losses, norms, trained, figures)
        self._keep(figures)
        self._foretell(time.monotonic() - began, len(losses))

    def _step(self, images: Any, labels: Any) -> tuple[float, float]:
        """One optimizer step; out of memory halves the micro-batch and repeats the step
        with the same effective batch.
        """
        spent = self.progress.share_spent(self.recipe)
        set_rate(self.optimizer, rate_factor(spent, self.recipe))
        self.objective.begin(spent, self.progress.epoch)
        if self.freezing.apply(spent):
            self.log.line(
                f"encoder: {self.freezing.frozen} of {len(self.freezing.stages)} stages are frozen"
            )
            self._wrap()
        if self.growing.apply(spent):
            self.log.line(f"grid: {self.growing.size or 'full size'}")
        while True:
            wanted = (
                self.recipe.micro_batch
                if isinstance(self.recipe.micro_batch, int)
                else None
            )
            micro = min(self.progress.micro_batch or wanted or len(images), len(images))
            try:
                loss = self._accumulate(images, labels, micro)
                break
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self.optimizer.zero_grad(set_to_none=True)
                self.progress.micro_batch = less = lowered(
                    error, micro, self.runtime.device
                )
                self.log.line(
                    f"out of memory: micro-batch lowered from {micro} to {less}, same effective batch"
                )
        self.scaler.unscale_(self.optimizer)
        learnt = [
            parameter for module in self._modules() for parameter in module.parameters()
        ]
        norm = float(nn.utils.clip_grad_norm_(learnt, self.recipe.gradient_clip))
        self._check_finite(loss, norm)
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(
                self.optimizer
            )  # fp16: skips by itself and lowers its scale
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, self.progress.step)
        return loss, norm

    def _accumulate(self, images: Any, labels: Any, micro: int) -> float:
        seed_step(self.recipe.seed, self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        starts = range(0, len(images), micro)
        for start in starts:
            part, target = images[start : start + micro], labels[start : start + micro]
            share = len(part) / len(images)
            with self._gradients_synchronised(start == starts[-1]):
                with self.runtime.autocast():
                    outputs = self.forward(*self.objective.inputs(part, target))
                loss = self.objective.loss(outputs, target) * share
                self.scaler.scale(loss).backward()
            total += float(loss.detach())
        return total

    def _gradients_synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients only with the last micro-batch."""
        return (
            nullcontext()
            if self.distributed is None or last
            else self.distributed.no_sync()
        )

    def _check_finite(self, loss: float, norm: float) -> None:
        self._skipped = (
            0 if math.isfinite(loss) and math.isfinite(norm) else self._skipped + 1
        )
        if self._skipped > MAX_SKIPPED:
            raise TrivoxError(
                f"loss or gradients were not finite for {MAX_SKIPPED} steps up to step {self.progress.step}; lower the "
                "learning rate, or set precision=fp32"
            )

    # -- after an epoch ----------------------------------------------------------------
    def _keep(self, figures: dict[str, float]) -> None:
        """Save the best and, from time to time, the latest."""
        p, score = self.progress, score_of(figures)
        if score is not None and math.isfinite(score):
            p.follow(score, self.recipe.validation_smoothing)
            if p.smoothed is not None and p.smoothed > p.best:
                p.best, p.best_epoch = p.smoothed, p.epoch
            if rank() == 0 and p.smoothed is not None:
                keep_best(
                    self.folder / "checkpoints",
                    lambda folder: save_checkpoint(folder, self.model, self._state()),
                    score=p.smoothed,
                    epoch=p.epoch,
                    count=self.recipe.keep_best,
                )
        if time.monotonic() - self._last_save > 60 * self.recipe.checkpoint_minutes:
            self.save()

    def _note(
        self,
        losses: list[float],
        norms: list[float],
        trained: float,
        figures: dict[str, float],
    ) -> None:
        p, count = self.progress, max(1, len(losses))
        skipped = sum(not math.isfinite(norm) for norm in norms)
        record: dict[str, Any] = {
            "kind": "epoch",
            "epoch": p.epoch,
            "step": p.step,
            "train_loss": sum(losses) / count,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "gradient_norm": sum(norms) / count,
            "seconds": p.seconds,
            "seconds_per_step": trained / count,
            "memory_bytes": self.runtime.memory_peak(),
            **figures,
        }
        score = score_of(figures)
        if score is not None:
            ahead = Progress(smoothed=p.smoothed)
            ahead.follow(score, self.recipe.validation_smoothing)
            name = (
                "validation_score_ema"
                if "validation_score" in figures
                else "validation_dice_ema"
            )
            record[name] = ahead.smoothed
        self.log.record(
            {
                key: finite(value) if isinstance(value, float) else value
                for key, value in record.items()
            }
        )
        self.log.line(epoch_line(record))
        if skipped:
            self.log.line(
                f"warning: {skipped} of {len(norms)} steps had gradients that are not finite and were skipped; a few are "
                "harmless under fp16, otherwise set precision=fp32"
            )
        for remark in self.objective.remarks(figures):
            self.log.line(f"warning: {remark}")

    def _foretell(self, seconds: float, steps: int) -> None:
        """After the first epoch of a session: how long the epochs that are left will
        take.
        """
        left = (
            self.recipe.epochs * self.recipe.iterations_per_epoch - self.progress.step
        )
        if (
            self.progress.epoch == self._first_epoch + 1
            and self.recipe.minutes is None
            and left > 0
            and steps
        ):
            self.log.line(
                f"about {duration(seconds / steps * left)} left at this speed"
            )

    def _agree(self) -> None:
        """Read the clock; ranks share its mean, and stop together if one was asked to.

        Otherwise their learning rates would drift apart, and one would wait for
        gradients that never come.
        """
        self.progress.seconds, self._stop = (
            time.monotonic() - self._started,
            self._asked,
        )
        if world_size() > 1:
            state = torch.tensor(
                [self.progress.seconds, float(self._asked)], device=self.runtime.device
            )
            seconds, stops = sum_over_ranks(state).tolist()
            self.progress.seconds, self._stop = seconds / world_size(), stops > 0

    def _spent(self) -> bool:
        patience = self.recipe.early_stopping
        if (
            patience is not None
            and self.progress.epoch - self.progress.best_epoch >= patience
        ):
            self.log.line(
                f"early stopping: no better smoothed score for {patience} epochs"
            )
            return True
        return self.progress.share_spent(self.recipe) >= 1


def score_of(figures: Mapping[str, float]) -> float | None:
    """What checkpoints are chosen and training is stopped by: the joint score of a task
    that has one, else Dice.
    """
    return figures.get("validation_score", figures.get("validation_dice"))


def _recompute_activations(network: nn.Module, name: str) -> None:
    """Ask a network to keep fewer activations; it must know how."""
    if not hasattr(network, "gradient_checkpointing"):
        raise RecipeError(
            f"network '{name}' cannot recompute activations; leave gradient_checkpointing off"
        )
    network.gradient_checkpointing = True  # type: ignore[assignment]
