"""What this machine offers, without importing torch: the answer must come at once."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trivox.version import __version__

OPTIONAL = {"tensorboard": "track"}


def examine_machine() -> dict[str, str]:
    """Versions, cores, memory, disk, GPUs and optional packages."""
    facts = {
        "trivox": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": _version("torch") or "missing: pip install torch",
        "cores": str(
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count()
        ),
        "memory": _memory(),
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB in {Path.cwd()}",
        "gpu": _gpus(),
        "bf16 on cpu": _cpu_bf16(),
    }
    for package, extra in OPTIONAL.items():
        facts[package] = (
            _version(package) or f"not installed (pip install 'trivox[{extra}]')"
        )
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{total / 1e9:.0f} GB"


def _gpus() -> str:
    """Names from NVIDIA's driver files; torch would need seconds to say the same."""
    found = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    names = [
        line.split(":", 1)[1].strip()
        for file in found
        for line in file.read_text().splitlines()
        if line.startswith("Model")
    ]
    return ", ".join(names) or "none found"


def _cpu_bf16() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    return (
        "yes: training and inference use it"
        if "avx512_bf16" in flags or "amx_bf16" in flags
        else "no: fp32 is used"
    )
