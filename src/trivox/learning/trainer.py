"""The training loop, readable from top to bottom. It knows no task: an `Objective` gives loss and score."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trivox.config import Recipe
from trivox.errors import InterruptedTrainingError, ResourceError, TrivoxError
from trivox.learning.checkpoints import load_checkpoint, save_checkpoint
from trivox.learning.runtime import Runtime, rank, sum_over_ranks, world_size
from trivox.learning.schedules import make_optimizer, rate_factor, set_rate
from trivox.learning.tracking import RunLog
from trivox.preparation.batches import BatchSource, stream

MAX_SKIPPED = 20
"""Steps in a row whose gradients are not finite before training is given up."""


class Objective(Protocol):
    """What a task adds to the loop."""

    def loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """A scalar that is the mean over the samples given."""

    def count(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Numbers that add up over batches and ranks, from which `score` is computed."""

    def score(self, counts: Tensor) -> dict[str, float]:
        """Validation figures; `validation_dice` is the one that checkpoints are chosen by."""


@dataclass
class Progress:
    """Where training stands; saved with each checkpoint."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    smoothed: float | None = None
    best: float = -math.inf
    best_epoch: int = 0
    micro_batch: int | None = None
    finished: bool = False


@dataclass
class Trainer:
    """Trains `network` in `folder`. Batches are functions of the step: a resumed run repeats nothing and skips nothing."""

    network: nn.Module
    objective: Objective
    training: BatchSource
    validation: BatchSource | None
    recipe: Recipe
    folder: Path
    runtime: Runtime
    log: RunLog
    progress: Progress = field(default_factory=Progress)
    show_steps: Callable[[Sequence[int], str], Iterator[int]] | None = None

    def __post_init__(self) -> None:
        self.network.to(self.runtime.device)
        self.optimizer = make_optimizer(self.network, self.recipe)
        self.scaler = self.runtime.scaler()
        self.forward: nn.Module = self.network
        if world_size() > 1:
            ids = [self.runtime.device.index] if self.runtime.device.type == "cuda" else None
            self.forward = nn.parallel.DistributedDataParallel(self.network, device_ids=ids)
        self._asked = self._stop = False
        self._skipped = 0

    # -- state ---------------------------------------------------------------------------------------------------------
    def resume(self) -> bool:
        """Load `checkpoints/latest`; returns whether there was one."""
        found = load_checkpoint(self.folder / "checkpoints" / "latest")
        if found is None:
            self.log.forget_after(0)  # an attempt that died before its first checkpoint starts over
            return False
        weights, state, optimizer = found
        self.network.load_state_dict(weights)
        self.progress = Progress(**state["progress"])
        if optimizer is not None:
            self.optimizer.load_state_dict(optimizer["optimizer"])
            self.scaler.load_state_dict(optimizer["scaler"])
        self.log.forget_after(self.progress.step)
        return True

    def save(self, name: str) -> None:
        """Write `checkpoints/<name>`; only `latest` carries the optimizer."""
        if rank() == 0:
            state = {"progress": {**asdict(self.progress), "best": _finite(self.progress.best)}}
            optimizer = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
            folder = self.folder / "checkpoints" / name
            save_checkpoint(folder, self.network, state, optimizer if name == "latest" else None)

    # -- the loop ------------------------------------------------------------------------------------------------------
    def fit(self) -> Progress:
        """Train until the epochs or minutes are spent, or early stopping; returns the final progress."""
        if self.progress.finished:
            self.log.line("training had already finished")
            return self.progress
        self.progress.best = self.progress.best if self.progress.best is not None else -math.inf
        self._started = time.monotonic() - self.progress.seconds
        self._last_save = time.monotonic()
        with self._signals():
            while not self._spent():
                self._epoch()
                if self._stop:
                    self.save("latest")
                    raise InterruptedTrainingError(
                        f"{self.folder}: interrupted after {self.progress.step} steps; continue with --resume"
                    )
        self.progress.finished = True
        self.save("latest")
        return self.progress

    def _epoch(self) -> None:
        per_epoch = self.recipe.iterations_per_epoch
        first = self.progress.step
        steps = range(first, (first // per_epoch + 1) * per_epoch)
        began, losses, norms = time.monotonic(), [], []
        batches = stream(self.training, steps, device=self.runtime.device, workers=self.recipe.workers)
        shown = self.show_steps(steps, f"epoch {self.progress.epoch + 1}") if self.show_steps else iter(steps)
        for _, (images, labels) in zip(shown, batches, strict=False):
            loss, norm = self._step(images, labels)
            losses.append(loss)
            norms.append(norm)
            self.progress.step += 1
            self._agree()
            if self._stop or self._minutes_over():
                break
        batches.close()  # type: ignore[attr-defined]
        if self._stop and self.progress.step % per_epoch:  # a whole epoch is validated: resuming begins the next one
            return
        trained = time.monotonic() - began
        figures = self._validate()
        self.progress.epoch += 1
        self._agree()
        self._note(losses, norms, trained, figures)
        self._keep_best(figures)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """One optimizer step; out of memory halves the micro-batch and repeats the step with the same effective batch."""
        set_rate(self.optimizer, rate_factor(self._share_spent(), self.recipe))
        while True:
            wanted = self.recipe.micro_batch if isinstance(self.recipe.micro_batch, int) else None
            micro = self.progress.micro_batch or wanted or len(images)
            try:
                loss = self._accumulate(images, labels, micro)
                break
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._shrink_micro_batch(error, min(micro, len(images)))
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_clip))
        self._check_finite(loss, norm)
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # fp16: skips by itself and lowers its scale
        self.scaler.update()
        return loss, norm

    def _accumulate(self, images: Tensor, labels: Tensor, micro: int) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        starts = range(0, len(images), micro)
        for start in starts:
            part, target = images[start : start + micro], labels[start : start + micro]
            share = len(part) / len(images)
            with self._gradients_synchronised(start == starts[-1]):
                with self.runtime.autocast():
                    outputs = self.forward(part)
                loss = self.objective.loss(outputs, target) * share
                self.scaler.scale(loss).backward()
            total += float(loss.detach())
        return total

    @contextmanager
    def _gradients_synchronised(self, last: bool) -> Iterator[None]:
        """Ranks exchange gradients only with the last micro-batch."""
        if isinstance(self.forward, nn.parallel.DistributedDataParallel) and not last:
            with self.forward.no_sync():
                yield
        else:
            yield

    def _shrink_micro_batch(self, error: Exception, micro: int) -> None:
        memory = isinstance(error, torch.OutOfMemoryError) or "alloc" in str(error).lower()
        if not memory:
            raise error
        if micro <= 1 or world_size() > 1:
            raise ResourceError(
                "a single patch does not fit into memory; use a smaller --patch-size or --network, or fewer other programs"
                if micro <= 1
                else "out of memory on one of several ranks; set micro_batch to a smaller number"
            ) from error
        self.optimizer.zero_grad(set_to_none=True)
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        self.progress.micro_batch = math.ceil(micro / 2)
        self.log.line(
            f"out of memory: micro-batch lowered from {micro} to {self.progress.micro_batch}, same effective batch"
        )

    def _check_finite(self, loss: float, norm: float) -> None:
        self._skipped = 0 if math.isfinite(loss) and math.isfinite(norm) else self._skipped + 1
        if self._skipped > MAX_SKIPPED:
            raise TrivoxError(
                f"loss or gradients were not finite for {MAX_SKIPPED} steps up to step {self.progress.step}; lower the "
                "learning rate, or set precision=fp32"
            )

    # -- validation ----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss and scores on the same random patches of the validation cases every epoch, by the objective's counts."""
        if self.validation is None:
            return {}
        self.network.eval()
        counts: Tensor | None = None
        losses = torch.zeros(2, dtype=torch.float64)
        steps = range(self.recipe.validation_iterations)
        for images, labels in stream(self.validation, steps, device=self.runtime.device, workers=self.recipe.workers):
            with self.runtime.autocast():
                logits = self.network(images)
            losses += torch.tensor([float(self.objective.loss(logits, labels)), 1.0])
            found = self.objective.count(logits, labels)
            counts = found if counts is None else counts + found
        self.network.train()
        assert counts is not None
        losses = sum_over_ranks(losses.to(self.runtime.device, torch.float32))
        return {"validation_loss": float(losses[0] / losses[1]), **self.objective.score(sum_over_ranks(counts))}

    def _keep_best(self, figures: dict[str, float]) -> None:
        p, dice = self.progress, figures.get("validation_dice")
        if dice is not None and math.isfinite(dice):
            old = self.recipe.validation_smoothing
            p.smoothed = dice if p.smoothed is None else old * p.smoothed + (1 - old) * dice
            if p.smoothed > p.best:
                p.best, p.best_epoch = p.smoothed, p.epoch
                self.save("best")
        if time.monotonic() - self._last_save > 60 * self.recipe.checkpoint_minutes:
            self.save("latest")
            self._last_save = time.monotonic()

    # -- bookkeeping ---------------------------------------------------------------------------------------------------
    def _note(self, losses: list[float], norms: list[float], trained: float, figures: dict[str, float]) -> None:
        p, count = self.progress, max(1, len(losses))
        record: dict[str, Any] = {
            "kind": "epoch", "epoch": p.epoch, "step": p.step, "train_loss": sum(losses) / count,
            "lr": float(self.optimizer.param_groups[0]["lr"]), "gradient_norm": sum(norms) / count,
            "seconds": p.seconds, "seconds_per_step": trained / count, "memory_bytes": self.runtime.memory_peak(), **figures,
        }  # fmt: skip
        old = self.recipe.validation_smoothing
        if "validation_dice" in figures:
            dice = figures["validation_dice"]
            record["validation_dice_ema"] = dice if p.smoothed is None else old * p.smoothed + (1 - old) * dice
        self.log.record({key: _finite(value) if isinstance(value, float) else value for key, value in record.items()})
        dice_text = f" dice {figures['validation_dice']:.3f}" if "validation_dice" in figures else ""
        self.log.line(
            f"epoch {p.epoch:4d}  step {p.step:6d}  loss {record['train_loss']:.3f}"
            f"  validation{dice_text} loss {figures.get('validation_loss', math.nan):.3f}"
            f"  lr {record['lr']:.2e}  {record['seconds_per_step']:.2f} s/step  {p.seconds / 60:.1f} min"
        )

    def _share_spent(self) -> float:
        if self.recipe.minutes is not None:
            return self.progress.seconds / (60 * self.recipe.minutes)
        return self.progress.step / (self.recipe.epochs * self.recipe.iterations_per_epoch)

    def _agree(self) -> None:
        """Read the clock; ranks share its mean, and stop together if one was asked to.

        Otherwise their learning rates would drift apart, and one would wait for gradients that never come.
        """
        self.progress.seconds, self._stop = time.monotonic() - self._started, self._asked
        if world_size() > 1:
            state = torch.tensor([self.progress.seconds, float(self._asked)], device=self.runtime.device)
            seconds, stops = sum_over_ranks(state).tolist()
            self.progress.seconds, self._stop = seconds / world_size(), stops > 0

    def _minutes_over(self) -> bool:
        return self.recipe.minutes is not None and self.progress.seconds >= 60 * self.recipe.minutes

    def _spent(self) -> bool:
        patience = self.recipe.early_stopping
        if patience is not None and self.progress.epoch - self.progress.best_epoch >= patience:
            self.log.line(f"early stopping: no better smoothed Dice for {patience} epochs")
            return True
        if self.recipe.minutes is not None:
            return self._minutes_over()
        return self.progress.step >= self.recipe.epochs * self.recipe.iterations_per_epoch

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a stop after the current step, so that the state saved is a whole one."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._asked = True

        try:
            old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: the caller handles its own signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
