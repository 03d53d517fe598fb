"""All networks at equal input: parameters, operations, time of a forward pass and of a
training step, peak memory.

Prints one Markdown table, the one in docs/explanation/networks.md. One sample, deep
supervision in training, precision as trivox chooses it for the device (`--precision`
for another); GFLOP = 2 x multiply-accumulates by torch's own counter. Seconds are
wall-clock, the smallest of `--rounds` rounds in turns. Memory on a GPU: torch's peak of
the step; on a CPU: the peak of torch's allocations during the step, weights and
gradients included. MONAI's are left out where it is missing.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trivox.errors import ResourceError
from trivox.learning.runtime import Runtime, make_runtime
from trivox.networks.counting import count_operations
from trivox.networks.registry import PATCH_NETWORKS, build_network, patch_family


@dataclass
class Entry:
    """A network and what was measured of it."""

    name: str
    network: nn.Module
    image: Tensor
    facts: dict
    forward: float = float("inf")
    step: float = float("inf")
    memory: int = 0


def prepare(
    name: str, shape: tuple[int, int, int, int], runtime: Runtime, options: dict
) -> Entry:
    """Build a network for an input of `(c, z, y, x)`; sizes are padded to what it
    needs.
    """
    topology, padded = patch_family(name).shape(shape[1:], (1.0, 1.0, 1.0))
    facts = count_operations(name, topology, shape[0], 3, padded, options)
    torch.manual_seed(0)
    network = build_network(
        name, topology, channels=shape[0], outputs=3, options=options
    ).to(runtime.device)
    return Entry(
        name, network, torch.randn(1, shape[0], *padded, device=runtime.device), facts
    )


def forward(entry: Entry, runtime: Runtime) -> None:
    """One prediction."""
    entry.network.eval()
    with torch.inference_mode(), runtime.autocast():
        entry.network(entry.image)


def step(entry: Entry, runtime: Runtime) -> None:
    """Forward and backward pass of a training step, without the optimizer."""
    entry.network.train()
    entry.network.zero_grad(set_to_none=True)
    with runtime.autocast():
        outputs = entry.network(entry.image)
    sum(out.float().square().mean() for out in outputs).backward()


def seconds(call: Callable[[], None], runtime: Runtime) -> float:
    """Wall-clock seconds of a call."""
    synchronise(runtime)
    began = time.perf_counter()
    call()
    synchronise(runtime)
    return time.perf_counter() - began


def synchronise(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()


def peak(entry: Entry, runtime: Runtime) -> int:
    """Bytes of the fullest moment of a step, weights included."""
    weights = sum(p.nbytes for p in entry.network.parameters())
    if runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        others = torch.cuda.memory_allocated() - weights
        step(entry, runtime)
        return torch.cuda.max_memory_allocated() - others
    from torch.profiler import ProfilerActivity, profile

    entry.network.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step(entry, runtime)
    running = highest = 0
    events = [
        e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"
    ]
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        highest = max(highest, running)
    return highest + weights


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", default=list(PATCH_NETWORKS), metavar="NAME"
    )
    parser.add_argument(
        "--input",
        nargs=4,
        type=int,
        default=(4, 64, 64, 64),
        metavar=("C", "Z", "Y", "X"),
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; default: all cores")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    runtime = make_runtime(given.device, given.precision)
    entries = []
    for name in given.networks:
        variants = [{}, {"attention": "none"}] if name.startswith("hybrid") else [{}]
        for options in variants:
            try:
                entry = prepare(name, tuple(given.input), runtime, options)
            except ResourceError as error:
                print(f"{name} left out: {error}")
                continue
            entry.name += " without attention" if options else ""
            entries.append(entry)
    for _ in range(given.rounds + 1):  # the first round warms up
        for entry in entries:
            entry.forward = min(
                entry.forward, seconds(lambda e=entry: forward(e, runtime), runtime)
            )
            entry.step = min(
                entry.step, seconds(lambda e=entry: step(e, runtime), runtime)
            )
    for entry in entries:
        entry.memory = peak(entry, runtime)
        entry.network.zero_grad(set_to_none=True)
    where = (
        torch.cuda.get_device_name()
        if runtime.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"input {'x'.join(map(str, given.input))}, {runtime.precision}, {where}, "
        f"torch {torch.__version__}\n"
    )
    print(
        "| network | parameters (M) | GFLOP | forward (s) | forward + backward (s) "
        "| peak memory (GB) |"
    )
    print("|---|---|---|---|---|---|")
    for e in entries:
        print(
            f"| {e.name} | {e.facts['parameters'] / 1e6:.1f} "
            f"| {e.facts['gflop']:.1f} | {e.forward:.3f} | {e.step:.3f} "
            f"| {e.memory / 1e9:.2f} |"
        )


if __name__ == "__main__":
    main()
