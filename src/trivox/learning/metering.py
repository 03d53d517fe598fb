"""What work of this process takes: time, memory, and energy by the best way that the
machine has.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from trivox.energy import POWERCAP, Nvml, Rapl, open_nvml, open_rapl, polled
from trivox.learning.runtime import (
    is_first_of_machine,
    process_memory_peak,
    sum_over_ranks,
    widest_type,
    world_size,
)
from trivox.planning.cost import Usage

OF_PACKAGES = "RAPL: processors and memory of the whole machine, whatever ran on it"
OF_GPU = "NVML: the GPU"
NO_GPU = "the energy of the GPU is not known"


def assumed(watts: float) -> str:
    """How energy is known that nothing measured."""
    return f"CPU seconds x {watts:g} W a core, which is assumed"


@dataclass(frozen=True)
class Reading:
    """Where the clocks and counters stood; None: there is no counter."""

    seconds: float
    cpu_seconds: float
    machine: float | None
    gpu: float | None


class Meter:
    """Clocks and counters of the machine that this process computes on."""

    def __init__(
        self,
        device: torch.device,
        *,
        watts_per_core: float,
        powercap: Path = POWERCAP,
    ) -> None:
        self.device = device
        self.watts_per_core = watts_per_core
        self.rapl = open_rapl(powercap)
        self.nvml = _counter_of(device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, counters that start anew are read often enough."""
        with polled(self.rapl):
            yield

    def read(self) -> Reading:
        """Where everything stands now; what a GPU was given to do is done before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        times = os.times()
        spent = times.user + times.system
        spent += times.children_user + times.children_system
        return Reading(
            seconds=time.monotonic(),
            cpu_seconds=spent,
            machine=_joules(self.rapl),
            gpu=_joules(self.nvml),
        )

    def since(self, before: Reading) -> Usage:
        """What this process took since then, ended children included."""
        now = self.read()
        cpu_seconds = now.cpu_seconds - before.cpu_seconds
        ways = [OF_PACKAGES if self.rapl else assumed(self.watts_per_core)]
        joules = cpu_seconds * self.watts_per_core
        if now.machine is not None and before.machine is not None:
            joules = now.machine - before.machine
            if not is_first_of_machine():  # which counts for all of its processes
                joules = 0.0
        if now.gpu is not None and before.gpu is not None:
            joules += now.gpu - before.gpu
        if self.device.type != "cpu":
            ways.append(OF_GPU if self.nvml else NO_GPU)
        return Usage(
            seconds=now.seconds - before.seconds,
            cpu_seconds=cpu_seconds,
            joules=joules,
            memory_bytes=process_memory_peak(),
            gpu_memory_bytes=self._gpu_memory(),
            energy_by=tuple(sorted(ways)),
        )

    def of_all_ranks(self, usage: Usage) -> Usage:
        """What all ranks took together, by the clock of this one; each has to ask."""
        if world_size() == 1:
            return usage
        amounts = [
            usage.cpu_seconds,
            usage.joules,
            usage.memory_bytes,
            usage.gpu_memory_bytes,
        ]
        kind = widest_type(self.device)
        values = torch.tensor(amounts, dtype=kind, device=self.device)
        cpu_seconds, joules, memory, gpu_memory = sum_over_ranks(values).tolist()
        changes = {
            "cpu_seconds": cpu_seconds,
            "joules": joules,
            "memory_bytes": round(memory),
            "gpu_memory_bytes": round(gpu_memory),
        }
        return usage.model_copy(update=changes)

    def _gpu_memory(self) -> int:
        if self.device.type != "cuda":
            return 0
        return torch.cuda.max_memory_allocated(self.device)


def _counter_of(device: torch.device) -> Nvml | None:
    if device.type != "cuda":
        return None
    # older versions of torch do not tell it
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else open_nvml(str(uuid))


def _joules(counter: Rapl | Nvml | None) -> float | None:
    return None if counter is None else counter.joules()
