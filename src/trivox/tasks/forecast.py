"""What training will need, said before it begins; and the micro-batch that fits, if the
recipe leaves it open.
"""

from trivox.config.recipe import Recipe
from trivox.errors import ResourceError
from trivox.learning.microbatch import available_memory, choose_micro_batch
from trivox.learning.runtime import Runtime, least_over_ranks
from trivox.learning.tracking import RunLog
from trivox.memory import gigabytes
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import ImagePlan

FAR_TOO_MUCH = 1.5
"""Share of the available memory that is refused; forecasts are right to about 15 %, and
what else runs may end.
"""


def step_memory(plan: ImagePlan, recipe: Recipe, runtime: Runtime, micro: int) -> int:
    """Forecast of the bytes that one training step needs with `micro` samples at a
    time.
    """
    forecast = forecast_memory(
        plan.topology,
        plan.patch_size,
        batch=micro,
        channels=len(plan.inputs),
        outputs=plan.outputs,
        optimizer=recipe.optimizer,
        deep_supervision=recipe.deep_supervision,
        activation_bytes=runtime.activation_bytes,
        gpu=runtime.on_gpu,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )
    return forecast.total + (forecast.weights if recipe.weights_ema else 0)


def forecast_training(
    plan: ImagePlan, recipe: Recipe, runtime: Runtime, *, batch: int, log: RunLog
) -> int | None:
    """Log the forecast against the memory there is; returns the micro-batch if the
    recipe says "auto".

    batch: samples a step of one rank. Raises `ResourceError` for a step that would end
    in the process being killed: far more than there is, even sample by sample on a GPU,
    where the micro-batch is lowered by itself.
    """
    available = available_memory(runtime.device)
    micro = recipe.micro_batch or batch
    if recipe.micro_batch == "auto":
        fitting = choose_micro_batch(
            batch, available, lambda part: step_memory(plan, recipe, runtime, part)
        )
        micro = least_over_ranks(fitting, runtime.device)
    assert isinstance(micro, int)
    needed = step_memory(plan, recipe, runtime, min(micro, batch))
    parts = f"; micro-batches of {micro} of {batch} samples" if micro < batch else ""
    log.line(
        f"memory: a step needs about {needed / 1e9:.2f} GB, "
        f"{available / 1e9:.1f} GB are available{parts}"
    )
    if needed > available:
        advice = "--set gradient_checkpointing=true or a smaller --patch-size"
        advice = advice if micro == 1 else f"--set micro_batch=auto, {advice}"
        least = min(micro, batch)
        if runtime.device.type == "cuda":
            least = 1
        if step_memory(plan, recipe, runtime, least) > FAR_TOO_MUCH * available:
            raise ResourceError(
                f"a step needs about {gigabytes(needed)}, {gigabytes(available)} are "
                f"available; use {advice}"
            )
        log.line(f"warning: that does not fit; use {advice}")
    return micro if recipe.micro_batch == "auto" else None
