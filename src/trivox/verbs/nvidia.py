"""NVIDIA's GPUs as their driver tells of them, without torch, which takes seconds to
import: the driver's own library answers at once (CUDA Driver API), on Linux, in
containers, under WSL and Windows.
"""

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.optional import optional_library

LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
FILES = Path("/proc/driver/nvidia")
"""What the driver's kernel module shows under Linux."""
NAME_BYTES = 256
MAJOR = 75
MINOR = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that programs can use; capability: of its arithmetic, (9, 0) for an H100."""

    name: str
    memory: int
    capability: tuple[int, int]

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} ({self.memory / 1e9:.0f} GB, capability {major}.{minor})"


@dataclass(frozen=True)
class Driver:
    """What the driver offers.

    answers: whether its library could be asked; cuda: the newest CUDA that it runs;
    gpus: those that this process may use; cards: names of those that are built in, as
    far as they are known; version: what the kernel module says of itself; used: whether
    torch said that it sees them.
    """

    answers: bool = False
    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    cards: tuple[str, ...] = ()
    version: str = ""
    used: bool = False


def ask_driver() -> Driver:
    """What NVIDIA's driver says; an empty answer where there is none."""
    cards = _cards()
    version = _version()
    library = optional_library(LIBRARIES)
    if library is None:
        return Driver(cards=cards, version=version)
    cuda = divmod(_number(library.cuDriverGetVersion) // 10, 100)
    gpus: tuple[Gpu, ...] = ()
    if library.cuInit(0) == 0:
        count = _number(library.cuDeviceGetCount)
        gpus = tuple(_gpu(library, index) for index in range(count))
    return Driver(True, cuda, gpus, cards, version)


def _number(function: Callable[..., int], *arguments: object) -> int:
    """What a function writes into its first argument; 0 where it fails."""
    value = ctypes.c_int(0)
    function(ctypes.byref(value), *arguments)
    return value.value


def _gpu(library: Any, index: int) -> Gpu:
    device = _number(library.cuDeviceGet, index)
    name = ctypes.create_string_buffer(NAME_BYTES)
    library.cuDeviceGetName(name, NAME_BYTES, device)
    memory = ctypes.c_size_t(0)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major = _number(library.cuDeviceGetAttribute, MAJOR, device)
    minor = _number(library.cuDeviceGetAttribute, MINOR, device)
    text = name.value.decode(errors="replace")
    return Gpu(text, memory.value, (major, minor))


def _cards() -> tuple[str, ...]:
    """Names of the cards that the kernel module knows, whether torch can use them or
    not.
    """
    names: list[str] = []
    for file in sorted(FILES.glob("gpus/*/information")):
        model = re.search(r"^Model:(.*)$", _text(file), re.MULTILINE)
        names.append(model[1].strip() if model else "a GPU without a name")
    return tuple(names)


def _version() -> str:
    return _text(FILES / "version").partition("\n")[0].strip()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
