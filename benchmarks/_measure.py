"""Shared by all benchmarks: interleaved timing, peak extra memory, one line a measure,
and synthetic anatomy.

CPU seconds are `time.process_time`: all threads of this process, no waiting. The
smallest of N rounds counts, and ours and theirs take turns, so that a busy machine
slows both alike.
"""

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cost:
    """Seconds of one call."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:8.3f} s cpu ({self.wall:.3f} wall)"


@dataclass(frozen=True, eq=False)
class Race:
    """The cheapest round of both sides, and what each returned last."""

    ours: Cost
    theirs: Cost
    our_result: Any
    their_result: Any

    def show(self, name: str, agreement: str) -> None:
        """Print the line of this measure; the ratio is that of CPU seconds."""
        line(
            name,
            str(self.ours),
            str(self.theirs),
            self.theirs.cpu / self.ours.cpu,
            agreement,
        )


def arguments(description: str | None) -> argparse.Namespace:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, under 20 s; the ratios are only indicative",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch on both sides"
    )
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    header()
    return given


def header() -> None:
    """Print what the columns mean."""
    print("name | ours | theirs | ratio (theirs / ours) | agreement", flush=True)


def line(name: str, ours: str, theirs: str, ratio: float, agreement: str) -> None:
    """Print one measure."""
    print(
        f"{name} | {ours.strip()} | {theirs.strip()} | {ratio:.1f}x | {agreement}",
        flush=True,
    )


def timed(call: Callable[[], Any]) -> tuple[Cost, Any]:
    """Cost and result of one call."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall), result


def race(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int = 3
) -> Race:
    """Run both in turns; the first of the rounds is the warm-up of caches, the minimum
    leaves it out.
    """
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    results: list[Any] = [None, None]
    for _ in range(rounds):
        for side, call in enumerate((ours, theirs)):
            cost, results[side] = timed(call)
            costs[side].append(cost)
    best = [min(side, key=lambda cost: cost.cpu) for side in costs]
    return Race(best[0], best[1], results[0], results[1])


def extra_memory(call: Callable[[], Any]) -> int:
    """Peak bytes that a call adds to the resident memory of this process (Linux), its
    result included.

    Freed heap pages are given back first, and the high-water mark is reset by writing 5
    to /proc/self/clear_refs.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM")
    del result
    return max(peak - before, 0)


def _status(key: str) -> int:
    for row in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if row.startswith(key):
            return int(row.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def equal_share(ours: Any, theirs: Any) -> float:
    """Share of equal voxels."""
    return float(np.mean(np.asarray(ours) == np.asarray(theirs)))


def cells(shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> np.ndarray:
    """A body (ellipsoid) that falls into `classes - 1` organs with curved borders,
    background 0; `(z, y, x)` int16.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    grid = np.stack(
        np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), axis=-1
    ).astype(np.float32)
    inside = (grid**2).sum(-1) < 0.9
    bent = grid.copy()
    for axis in range(3):
        field = gaussian_filter(
            rng.normal(size=shape).astype(np.float32), min(shape) / 16
        )
        bent[..., axis] += 0.06 * field / field.std()
    centres = rng.uniform(-0.8, 0.8, (4 * classes, 3))
    centres = centres[np.argsort((centres**2).sum(1))][: classes - 1]
    labels = np.zeros(shape, np.int16)
    labels[inside] = cKDTree(centres).query(bent[inside])[1] + 1
    return labels
