"""What is read off a GPU while it works: time, memory, waits, and how busy it is."""

import gc
import statistics
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
"""Kinds of events of torch's profiler that keep a GPU busy."""
SAID = "called a synchronizing CUDA operation"
"""By torch's sync debug mode."""
INTERVAL = 0.05
"""Seconds between two samples of the utilisation."""


def pretends() -> bool:
    """Whether the device is the pretended one."""
    return "pretended_gpu.device" in sys.modules


def place() -> str:
    """The innermost line of trivox that is being run in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/trivox/" in file:
            return f"{file.rpartition('/trivox/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside of trivox"


class Waits(AbstractContextManager):
    """Counts what waits for the GPU, by place: torch's warnings on a real one."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()
        self.contexts = ExitStack()

    def __enter__(self) -> "Waits":
        if pretends():
            from pretended_gpu.device import counting

            self.counts = self.contexts.enter_context(counting())
            return self
        self.contexts.enter_context(warnings.catch_warnings())
        torch.cuda.set_sync_debug_mode("warn")
        warnings.simplefilter("always")
        warnings.showwarning = self._note
        return self

    def __exit__(self, *error: object) -> None:
        if pretends():
            for (_, where), count in self.counts.waits.items():
                self.places[where] += count
        else:
            torch.cuda.set_sync_debug_mode("default")
        self.contexts.close()

    def _note(self, message: Warning | str, *_: object, **__: object) -> None:
        if SAID in str(message):
            self.places[place()] += 1


class Timing(AbstractContextManager):
    """Seconds of what runs inside, the peak of memory, and how busy the GPU says it is."""

    def __enter__(self) -> "Timing":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.sampler = Utilisation()
        self.sampler.__enter__()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.began
        self.sampler.__exit__()

    def row(self, steps: int, batch: int) -> dict[str, Any]:
        """Means over `steps` of `batch` samples."""
        return {
            "step_seconds": self.seconds / steps,
            "patches_per_second": batch * steps / self.seconds,
            "allocated_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
            "utilisation": self.sampler.mean(),
        }


class Utilisation(AbstractContextManager):
    """The driver's own figure, sampled; None without pynvml (nvidia-ml-py)."""

    def __enter__(self) -> "Utilisation":
        self.samples: list[int] = []
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None
        try:
            import pynvml

            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:
            # missing, or a driver that does not answer
            return self
        self.thread = threading.Thread(target=self._sample, args=(pynvml, device))
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        if self.thread is not None:
            self.thread.join()

    def _sample(self, nvml: Any, device: Any) -> None:
        while not self.ended.wait(INTERVAL):
            self.samples.append(nvml.nvmlDeviceGetUtilizationRates(device).gpu)

    def mean(self) -> float | None:
        """Percent of the time that any kernel ran."""
        return statistics.fmean(self.samples) if self.samples else None


class Profile(AbstractContextManager):
    """Share of the time that the GPU is busy, and how much it is given to do."""

    def __init__(self) -> None:
        self.profiler: Any = nullcontext()
        if not pretends():
            from torch.profiler import ProfilerActivity, profile

            both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
            self.profiler = profile(activities=both)

    def __enter__(self) -> "Profile":
        torch.cuda.synchronize()
        self.profiler.__enter__()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.began
        self.profiler.__exit__(None, None, None)

    def row(self, steps: int) -> dict[str, Any]:
        """busy: share of the time; operations: kernels and copies a step."""
        if pretends():
            return {}
        all_events = self.profiler.profiler.kineto_results.events()
        events = [each for each in all_events if each.activity_type() in ON_DEVICE]
        spans = [(each.start_ns(), each.end_ns()) for each in events]
        return {
            "busy": covered(spans) / (1e9 * self.seconds),
            "operations": len(events) / steps,
        }


def covered(spans: list[tuple[int, int]]) -> int:
    """Length of what several spans of time cover together."""
    total = 0
    reached = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def kernel_seconds(
    work: Callable[[], object], *, warm: int = 20, most: int = 50, limit: float = 0.7
) -> float:
    """Median seconds of a call between CUDA events; fewer calls where they take long."""
    if pretends():
        work()
        return float("nan")
    began = time.perf_counter()
    for _ in range(warm):
        work()
        torch.cuda.synchronize()
        if time.perf_counter() - began > limit:
            break
    pairs = []
    began = time.perf_counter()
    while len(pairs) < most and (not pairs or time.perf_counter() - began < limit):
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        pairs.append((start, end))
    return statistics.median(start.elapsed_time(end) for start, end in pairs) / 1000
