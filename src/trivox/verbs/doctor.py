"""What this machine offers, without importing torch: the answer must come at once."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from trivox.cores import usable_cores
from trivox.verbs.nvidia import Driver, Gpu, ask_driver
from trivox.version import __version__

NO_GPU = "cpu: no NVIDIA GPU was found"
HALF_SINCE = 8
"""Major compute capability from which on GPUs multiply bf16."""
OPTIONAL = {"tensorboard": "track"}


def examine_machine() -> dict[str, str]:
    """Versions, cores, memory, disk, GPUs and optional packages."""
    free = shutil.disk_usage(Path.cwd()).free
    driver = _seen_by_torch() or ask_driver()
    gpus = driver.gpus or driver.cards
    facts = {
        "trivox": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": _version("torch") or "missing: pip install torch",
        "torch's build": _build() or "for CPUs alone",
        "cores": _cores(),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "free disk": f"{free / 1e9:.0f} GB in {Path.cwd()}",
        "gpu": ", ".join(map(str, gpus)) or "none found",
        "gpu driver": _driver(driver),
        "device auto": _automatic(driver),
        "bf16 on cpu": _cpu_bf16(),
    }
    for package, extra in OPTIONAL.items():
        missing = f"not installed (pip install 'trivox[{extra}]')"
        facts[package] = _version(package) or missing
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> str:
    """Cores that this process may use, and how many there are if these are more."""
    usable = usable_cores()
    there = os.cpu_count() or usable
    return f"{usable} of {there}" if there > usable else str(usable)


def _seen_by_torch() -> Driver | None:
    """What torch says, where it is imported already; None if it sees no GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    gpus: list[Gpu] = []
    for index in range(torch.cuda.device_count()):
        each = torch.cuda.get_device_properties(index)
        gpus.append(Gpu(each.name, each.total_memory, (each.major, each.minor)))
    return replace(ask_driver(), gpus=tuple(gpus), used=True)


def _driver(driver: Driver) -> str:
    """Version of the driver, and the newest CUDA that it runs."""
    cuda = f"runs CUDA up to {_dotted(driver.cuda)}" if driver.answers else ""
    return "; ".join(filter(None, [driver.version, cuda])) or "none found"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _build() -> str | None:
    """What torch was built for ("CUDA 12.8", "ROCm 6.4"), from its own file: importing
    it takes seconds. None for CPUs, or without torch.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    for name, platform_name in (("cuda", "CUDA"), ("hip", "ROCm")):
        match = re.search(rf"^{name}\b.*=\s*'([^']+)'", text, re.MULTILINE)
        if match:
            return f"{platform_name} {match[1]}"
    return None


def _automatic(driver: Driver) -> str:
    """What `--device auto` takes, and why."""
    build = _build()
    if driver.used:
        return f"cuda, {_precision(driver)}: torch sees the GPU"
    if build is not None and build.startswith("ROCm"):
        return "cuda, if torch sees an AMD GPU; else cpu"
    if not (driver.gpus or driver.cards):
        return NO_GPU
    if build is None:
        return (
            "cpu: there is a GPU, but this torch is built without CUDA; install it as "
            "pytorch.org says"
        )
    return _with_cuda(driver, build)


def _with_cuda(driver: Driver, build: str) -> str:
    """The choice of a torch that is built for CUDA, on a machine with a GPU."""
    if not driver.answers:
        return (
            "cpu: there is a GPU, but its driver's library is missing; start a "
            "container with --gpus all"
        )
    # a newer minor version of CUDA than the driver's runs, a newer major one does not
    major = int(build.removeprefix("CUDA ").partition(".")[0])
    if driver.cuda[0] < major:
        return (
            f"cpu: the driver runs CUDA up to {_dotted(driver.cuda)}, and this torch is "
            f"built for {build}; update the driver, or install an older build of torch"
        )
    if not driver.gpus:
        return (
            "cpu: there is a GPU, but the driver lets this process use none; look at "
            "CUDA_VISIBLE_DEVICES, or ask the scheduler for one"
        )
    return f"cuda, {_precision(driver)}: the driver runs what this torch is built for"


def _precision(driver: Driver) -> str:
    return "bf16" if driver.gpus[0].capability[0] >= HALF_SINCE else "fp16"


def _cpu_bf16() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return "yes: training and inference use it"
    return "no: fp32 is used"
