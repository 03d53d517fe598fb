"""Energy as counters of the machine tell it: of the processor's packages and memory
(RAPL, which Linux shows under /sys/class/powercap), and of a GPU (NVML, NVIDIA's own
library). Where a counter cannot be read there is none, and an estimate has to do.
"""

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trivox.optional import optional_library
from trivox.repeating import repeating

POWERCAP = Path("/sys/class/powercap")
ZONES = "intel-rapl:*"
"""Also what AMD's processors are called there."""
LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")
WATTS_PER_CORE = 12.0
"""Assumed of a core that computes where nothing measures it: what Green Algorithms takes
for a processor that is not known (Lannelongue, Grealey and Inouye 2021,
doi 10.1002/advs.202100707).
"""
POLLING = 60.0
"""Seconds between two readings; the counter of a package that takes 300 W starts anew
after about a quarter of an hour.
"""


class Counter(Protocol):
    """What counts energy."""

    def joules(self) -> float:
        """Since it was opened."""


@dataclass
class Zone:
    """A counter of RAPL: microjoules that start anew beyond `most`.

    last: as it was read; total: since the first reading.
    """

    file: Path
    most: int
    last: int
    total: int = 0

    def microjoules(self) -> int:
        """Since the first reading; a counter that fell has started anew once."""
        now = _number(self.file)
        if now is None:
            return self.total
        passed = now - self.last
        self.total += passed if passed >= 0 else passed + self.most
        self.last = now
        return self.total


class Rapl:
    """The zones of a machine together: everything that runs on it counts."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.zones = zones
        self.lock = threading.Lock()

    def joules(self) -> float:
        """Since the first reading."""
        with self.lock:
            return sum(zone.microjoules() for zone in self.zones) / 1e6


def open_rapl(folder: Path = POWERCAP) -> Rapl | None:
    """The packages and their memory; None where a package is not shown, or not to this
    user: a part of the machine would pass for the whole.
    """
    zones: list[Zone] = []
    for place in sorted(folder.glob(ZONES)):
        name = _text(place / "name")
        if not name.startswith("package") and name != "dram":
            continue  # parts of a package, or the platform, which holds the packages
        now = _number(place / "energy_uj")
        most = _number(place / "max_energy_range_uj")
        if now is None or most is None:
            return None
        zones.append(Zone(place / "energy_uj", most, now))
    return Rapl(zones) if zones else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdecimal() else None


class Nvml:
    """The counter of a GPU, in millijoules since its driver was loaded."""

    def __init__(self, library: Any, device: ctypes.c_void_p, first: int) -> None:
        self.library = library
        self.device = device
        self.first = first

    def joules(self) -> float:
        """Since it was opened; what is no longer answered counts as nothing."""
        now = _millijoules(self.library, self.device)
        return 0.0 if now is None else (now - self.first) / 1e3


def open_nvml(uuid: str, library: Any = None) -> Nvml | None:
    """The counter of the GPU with this UUID; None without NVIDIA's library, and for a
    GPU that has none (before Volta, or a part of one).
    """
    library = library or optional_library(LIBRARIES)
    device = ctypes.c_void_p()
    if library is None or library.nvmlInit_v2() != 0:
        return None
    name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
    if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(device)) != 0:
        return None
    now = _millijoules(library, device)
    return None if now is None else Nvml(library, device, now)


def _millijoules(library: Any, device: ctypes.c_void_p) -> int | None:
    value = ctypes.c_ulonglong(0)
    try:
        failed = library.nvmlDeviceGetTotalEnergyConsumption(
            device, ctypes.byref(value)
        )
    except AttributeError:  # an older library
        return None
    return None if failed else value.value


@contextmanager
def polled(counter: Counter | None, *, every: float = POLLING) -> Iterator[None]:
    """Within, a counter is read so often that it cannot start anew unseen."""
    if counter is None:
        yield
        return
    with repeating(counter.joules, every=every, thread_name="trivox-energy"):
        yield
