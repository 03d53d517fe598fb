"""What this machine offers, without importing torch: the answer must come at once."""

import importlib.util
import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from trivox.version import __version__

DRIVER = Path("/proc/driver/nvidia")
OPTIONAL = {"tensorboard": "track"}


def examine_machine() -> dict[str, str]:
    """Versions, cores, memory, disk, GPUs and optional packages."""
    free = shutil.disk_usage(Path.cwd()).free
    facts = {
        "trivox": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": _version("torch") or "missing: pip install torch",
        "torch's build": _build(),
        "cores": str(_cores()),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "free disk": f"{free / 1e9:.0f} GB in {Path.cwd()}",
        "gpu": _gpus() or "none found",
        "gpu driver": _driver() or "none found",
        "device auto": _automatic(),
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


def _cores() -> int | None:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _gpus() -> str:
    """Names from NVIDIA's driver files; torch would need seconds to say the same."""
    names = []
    for file in sorted(DRIVER.glob("gpus/*/information")):
        for line in file.read_text(encoding="utf-8").splitlines():
            what, _, value = line.partition(":")
            if what == "Model":
                names.append(value.strip())
    return ", ".join(names)


def _driver() -> str:
    """First line that NVIDIA's driver says of itself."""
    try:
        said = (DRIVER / "version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return said.partition("\n")[0].strip()


def _build() -> str:
    """What torch was built for, from its own file: importing it takes seconds."""
    cuda = _cuda_of_torch()
    return f"CUDA {cuda}" if cuda else "CPU (or no NVIDIA GPU) only"


def _cuda_of_torch() -> str | None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^cuda\b.*=\s*'([^']+)'", text, re.MULTILINE)
    return match[1] if match else None


def _automatic() -> str:
    """What `--device auto` takes, and why."""
    if not _gpus():
        return "cpu: no NVIDIA GPU was found"
    if _cuda_of_torch() is None:
        return "cpu: there is a GPU, but this torch is built without CUDA"
    return "cuda, if the driver is new enough for this build of torch; else cpu"


def _cpu_bf16() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return "yes: training and inference use it"
    return "no: fp32 is used"
