"""Training features: what gradient checkpointing saves and costs, and whether
torch.compile pays, on a CPU.

Ours is the feature, theirs the same network without it. No peer is needed.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import nn

from _measure import arguments, extra_memory, line, race
from trivox.networks.registry import PATCH_NETWORKS, build_network
from trivox.planning.memory import forecast_memory

SPACING = (1.0, 1.0, 1.0)


def step_of(network: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of all outputs."""

    def step() -> None:
        sum(logits.square().mean() for logits in network(images)).backward()
        network.zero_grad(set_to_none=True)

    return step


def recomputation(name: str, size: int, *, batch: int, rounds: int) -> None:
    torch.manual_seed(0)
    topology, patch = PATCH_NETWORKS[name].shape((size,) * 3, SPACING)
    network = build_network(name, topology, channels=1, outputs=3).train()
    step = step_of(network, torch.randn(batch, 1, *patch))

    def lean(recompute: bool) -> None:
        network.gradient_checkpointing = recompute
        step()

    forecast = [
        forecast_memory(
            topology,
            patch,
            batch=batch,
            channels=1,
            outputs=3,
            gradient_checkpointing=on,
        ).total
        / 1e6
        for on in (True, False)
    ]
    title = f"{name}, gradient checkpointing, {batch} x {size}^3"
    race(lambda: lean(True), lambda: lean(False), rounds=rounds).show(
        title, "same gradients: see tests"
    )
    memory = [extra_memory(lambda on=on: lean(on)) / 1e6 for on in (True, False)]
    note = f"forecast of the step: {forecast[0]:.0f} and {forecast[1]:.0f} MB with the optimizer"
    line(
        "  extra memory", *(f"{m:.0f} MB" for m in memory), memory[1] / memory[0], note
    )


def compiling(name: str, size: int, *, rounds: int) -> None:
    torch.manual_seed(0)
    topology, patch = PATCH_NETWORKS[name].shape((size,) * 3, SPACING)
    network = build_network(name, topology, channels=1, outputs=3).train()
    images = torch.randn(4, 1, *patch)
    plain, fast = step_of(network, images), step_of(torch.compile(network), images)
    plain()
    began = time.perf_counter()
    fast()
    waited = time.perf_counter() - began
    found = race(fast, plain, rounds=rounds)
    gain = found.theirs.wall - found.ours.wall
    pays = (
        f"pays after {math.ceil(waited / gain)} steps" if gain > 0 else "does not pay"
    )
    found.show(
        f"{name}, torch.compile, 4 x {size}^3", f"first step {waited:.0f} s; {pays}"
    )


def main() -> None:
    quick = arguments(__doc__).quick
    for name in ("unet-small", "resenc-m"):
        recomputation(name, 32 if quick else 64, batch=2, rounds=2 if quick else 4)
    compiling("unet-small", 32 if quick else 48, rounds=3 if quick else 6)


if __name__ == "__main__":
    main()
