"""What learns, and how it takes a step: the network, its optimizer, and what changes on
the way through training.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.errors import RecipeError
from trivox.learning.checkpoints import Checkpoint, ResumeState
from trivox.learning.divergence import all_finite
from trivox.learning.microbatch import lowered
from trivox.learning.objective import Objective
from trivox.learning.progress import Progress
from trivox.learning.ranks.gradients import with_shared_gradients
from trivox.learning.runtime import (
    Runtime,
    free_cached_memory,
    seed_step,
    world_size,
)
from trivox.learning.steps.averaging import MovingAverage
from trivox.learning.steps.compiling import compiled, explained
from trivox.learning.steps.freezing import Freezing
from trivox.learning.steps.graphs import StepGraph
from trivox.learning.steps.growing import Growing
from trivox.learning.steps.schedules import (
    load_optimizer,
    make_optimizer,
    rate_factor,
    set_rate,
    take_step,
)
from trivox.memory import make_room, memory_ran_out


class Learner:
    """A network under an objective, moved to the device of `runtime`.

    Raises `RecipeError` where the recipe asks the network for what it cannot do.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, recipe: Recipe, runtime: Runtime
    ) -> None:
        self.network = network
        self.objective = objective
        self.recipe = recipe
        self.runtime = runtime
        for module in self.modules():
            module.to(runtime.device)
        if recipe.gradient_checkpointing:
            _recompute_activations(network, recipe.network)
        self.optimizer = make_optimizer(network, recipe, objective.module)
        self.scaler = runtime.scaler()
        self.freezing = Freezing(network, recipe)
        self.average: MovingAverage | None = None
        networks = [network]
        if recipe.weights_ema:
            self.average = MovingAverage(network, recipe.weights_ema)
            networks.append(self.average.network)
        self.growing = Growing(networks, recipe)
        self.graph = StepGraph() if self._records() else None
        self._wrap()

    def modules(self) -> list[nn.Module]:
        """What has parameters that are learnt."""
        learnt = self.objective.module
        return [self.network] if learnt is None else [self.network, learnt]

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is learnt, of the network and of the objective."""
        for module in self.modules():
            yield from module.parameters()

    @property
    def model(self) -> nn.Module:
        """What is validated and saved as the model: the network, or the moving average
        of its weights.
        """
        return self.network if self.average is None else self.average.network

    def _records(self) -> bool:
        """Whether steps become a CUDA graph: one process on a GPU whose steps repeat."""
        alone = self.runtime.device.type == "cuda" and world_size() == 1
        return self.recipe.cuda_graph and alone and self.objective.repeats

    def _wrap(self) -> None:
        """Put the compiler and DDP around the network; anew when frozen parameters
        change, which DDP must know.
        """
        device = self.runtime.device
        wrapped = self.network
        # first, so that its graph is not cut where ranks exchange gradients
        if self.recipe.compile:
            wrapped = compiled(wrapped, device)
        self.distributed: nn.parallel.DistributedDataParallel | None = None
        if world_size() > 1:
            self.distributed = with_shared_gradients(
                wrapped,
                device,
                parts_left_out=bool(self.growing.sizes)
                or self.objective.leaves_parts_out,
            )
        wrapped = self.distributed or wrapped
        self.forward: Callable[..., Any] = wrapped
        if self.recipe.compile:
            self.forward = explained(wrapped)

    # -- state -------------------------------------------------------------------------
    def resume_state(self) -> ResumeState:
        """What resuming needs beside the weights of network, average and objective."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "objective": self.objective.state(),
        }

    def is_finite(self) -> bool:
        """Whether weights, averages and the optimizer's memory are all numbers."""
        weights = [module.state_dict() for module in self.modules()]
        return all_finite([*weights, self.model.state_dict(), self.resume_state()])

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        self.network.load_state_dict(checkpoint.raw or checkpoint.weights)
        if self.average is not None:
            self.average.network.load_state_dict(checkpoint.weights)
        if self.objective.module is not None and checkpoint.objective is not None:
            self.objective.module.load_state_dict(checkpoint.objective)
        if checkpoint.optimizer is not None:
            load_optimizer(self.optimizer, checkpoint.optimizer["optimizer"])
            self.scaler.load_state_dict(checkpoint.optimizer["scaler"])
            self.objective.restore(checkpoint.optimizer.get("objective", {}))

    # -- a step ------------------------------------------------------------------------
    def step(
        self,
        images: Any,
        targets: Any,
        progress: Progress,
        *,
        say: Callable[[str], None],
    ) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns the loss and the norm of the gradients before
        they were clipped, both still on the device. A step whose gradients are not
        finite changes nothing.

        Out of memory halves the micro-batch and repeats the step with the same
        effective batch. Raises `ResourceError` where a single sample does not fit.
        """
        self._get_ready(progress, say)
        loss = self._gradients(images, targets, progress, say)
        self.scaler.unscale_(self.optimizer)
        clip = self.recipe.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.parameters(), clip)
        if self.scaler.is_enabled():
            # which skips a bad step by itself and lowers its scale
            self.scaler.step(self.optimizer)
        else:
            take_step(self.optimizer, norm)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, progress.step)
        return loss, norm

    def _get_ready(self, progress: Progress, say: Callable[[str], None]) -> None:
        """Bring what changes on the way to where training stands."""
        spent = progress.share_spent(self.recipe)
        set_rate(self.optimizer, rate_factor(spent, self.recipe))
        self.objective.begin(spent, progress.epoch)
        if self.freezing.apply(spent):
            stages = len(self.freezing.stages)
            say(f"encoder: {self.freezing.frozen} of {stages} stages are frozen")
            self._wrap()
            self._forget_graph()
        if self.growing.apply(spent):
            say(f"grid: {self.growing.size or 'full size'}")
            self._forget_graph()

    def _forget_graph(self) -> None:
        if self.graph is not None:
            self.graph.forget()

    def _gradients(
        self,
        images: Any,
        targets: Any,
        progress: Progress,
        say: Callable[[str], None],
    ) -> Tensor:
        """Compute the gradients of the batch, in parts that fit into memory; returns
        the loss.
        """
        asked = self.recipe.micro_batch
        while True:
            micro = asked if isinstance(asked, int) else len(images)
            micro = min(progress.micro_batch or micro, len(images))
            seed_step(self.recipe.seed, progress.step)
            try:
                return self._computed(images, targets, micro, say)
            except RuntimeError as error:
                smaller = self._less(error, micro, say)
            # after the handler, whose traceback holds the maps
            self._forget_graph()
            self.optimizer.zero_grad(set_to_none=True)
            free_cached_memory(self.runtime.device)
            if smaller < micro:
                progress.micro_batch = smaller

    def _less(self, error: RuntimeError, micro: int, say: Callable[[str], None]) -> int:
        """The micro-batch after `error`: as it was if a cache gave way, else smaller.

        Ranks do not repeat a step by themselves: others wait for its gradients.
        """
        if memory_ran_out(error) and world_size() == 1 and make_room():
            say("out of memory: cases on the GPU take half of the room from now on")
            return micro
        smaller = lowered(error, micro)
        say(
            f"out of memory: micro-batch lowered from {micro} to {smaller}, same "
            "effective batch"
        )
        return smaller

    def _computed(
        self, images: Any, targets: Any, micro: int, say: Callable[[str], None]
    ) -> Tensor:
        """The loss of a batch; its gradients are computed by its graph or one by one."""
        if self.graph is None:
            return self._accumulate(images, targets, micro)

        def work(images: Any, targets: Any) -> Tensor:
            return self._accumulate(images, targets, micro)

        return self.graph(work, images, targets, say=say)

    def _accumulate(self, images: Any, targets: Any, micro: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        starts = range(0, len(images), micro)
        for start in starts:
            part = images[start : start + micro]
            target = targets[start : start + micro]
            with self._gradients_synchronised(start == starts[-1]):
                with self.runtime.autocast():
                    target = self.objective.targets(part, target)
                    outputs = self.forward(*self.objective.inputs(part, target))
                loss = self.objective.loss(outputs, target)
                if len(starts) > 1:
                    loss = loss * (len(part) / len(images))
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return sum(losses[1:], start=losses[0])

    def _gradients_synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients only with the last micro-batch."""
        if self.distributed is None or last:
            return nullcontext()
        return self.distributed.no_sync()


def _recompute_activations(network: nn.Module, name: str) -> None:
    """Ask a network to keep fewer activations; it must know how."""
    if not hasattr(network, "gradient_checkpointing"):
        raise RecipeError(
            f"network '{name}' cannot recompute activations; leave "
            "gradient_checkpointing off"
        )
    network.gradient_checkpointing = True  # type: ignore[assignment]
