"""The pretended device in Python: `torch.cuda` answers for it, and what launches kernels
or waits for them is counted by file and line.

Imported before torch, which asks for CUDA's hooks only once.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pretended_gpu.build import NAME, built

if "torch" in sys.modules:
    raise ImportError("the pretended device has to be there before torch")
sys.path.insert(0, str(built()))
_device = __import__(NAME)

import torch  # noqa: E402

DEVICES = 2
GIGABYTES = 128
H100 = (9, 0)
T4 = (7, 5)


class Properties(NamedTuple):
    """Of a device, as `torch.cuda.get_device_properties` gives them."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int


class Counts:
    """What happened while it was counted.

    waits, launches: by (what, place in trivox).
    """

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches: Counter[tuple[str, str]] = Counter()

    def note(self, kind: str, name: str) -> None:
        """One operator; called by the device."""
        if kind == "wait":
            self.waits[name, _place()] += 1
        else:
            self.launches[name, _place()] += 1

    def table(self, *, steps: int = 1, most: int = 15, what: str = "waits") -> str:
        """Waits or launches of each place, the most first."""
        counted: Counter[tuple[str, str]] = getattr(self, what)
        lines = [f"{sum(counted.values()) / steps:.1f} {what}"]
        for (name, place), count in counted.most_common(most):
            lines.append(f"{count / steps:8.1f}  {name}  {place}")
        return "\n".join(lines)


def _place() -> str:
    """The innermost line of trivox that is being run in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/trivox/" in file:
            return f"{file.rpartition('/trivox/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward, or outside of trivox"


@contextmanager
def counting(*, launches: bool = False) -> Iterator[Counts]:
    """Count what waits, and, if asked for, every launch."""
    counts = Counts()
    _device.set_hook(counts.note, launches)
    try:
        yield counts
    finally:
        _device.set_hook(None, False)


@contextmanager
def memory_of(megabytes: float) -> Iterator[None]:
    """A device with so little memory, beside what is in use now."""
    _limit.total = int(megabytes * 1e6) + max(_device.memory(i)[0] for i in (0, 1))
    _device.limit(_limit.total)
    try:
        yield
    finally:
        _limit.total = GIGABYTES * 2**30
        _device.limit(0)


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that are in use at most while something is done, beyond those before."""
    before = _device.memory(device.index)[0]
    _device.reset_peak(device.index)
    work()
    return int(_device.memory(device.index)[1] - before)


class _Limit:
    total = GIGABYTES * 2**30


_limit = _Limit()


def pretend(capability: tuple[int, int] = H100) -> None:
    """Make `torch.cuda` speak of the pretended devices."""
    answers = _answers(capability)
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    for module in (torch.cuda.memory, torch.cuda.random):
        for name, answer in answers.items():
            if hasattr(module, name):
                setattr(module, name, answer)
    torch.cuda.default_generators = tuple(
        _device.default_generator(index) for index in range(DEVICES)
    )
    if hasattr(torch.accelerator, "empty_host_cache"):
        # its pinned memory is as all other, and torch keeps none of it
        torch.accelerator.empty_host_cache = lambda: None
    for module in (torch.cuda, torch.cuda.random):
        module._lazy_call = lambda call, **_: call()  # type: ignore[attr-defined]


def _answers(capability: tuple[int, int]) -> dict[str, Any]:
    def index(device: Any) -> int:
        if device is None:
            return int(_device.current())
        number = device if isinstance(device, int) else torch.device(device).index
        return number or 0

    def used(device: Any = None) -> int:
        return int(_device.memory(index(device))[0])

    def peak(device: Any = None) -> int:
        return int(_device.memory(index(device))[1])

    def properties(device: Any = None) -> Properties:
        return Properties("Pretended GPU", *capability, _limit.total, 132)

    return {
        "is_available": lambda: True,
        "device_count": lambda: DEVICES,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "current_device": _device.current,
        "set_device": lambda device: _device.set_device(index(device)),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "is_bf16_supported": lambda including_emulation=True: capability >= (8, 0),
        "get_device_name": lambda device=None: "Pretended GPU",
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": properties,
        "mem_get_info": lambda device=None: (_limit.total - used(device), _limit.total),
        "memory_allocated": used,
        "memory_reserved": used,
        "max_memory_allocated": peak,
        "max_memory_reserved": peak,
        "reset_peak_memory_stats": lambda d=None: _device.reset_peak(index(d)),
    }
