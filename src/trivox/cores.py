"""How many cores this process may keep busy, also inside a container."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")
"""A line for each hierarchy of groups: number, controllers (none: version 2), path."""
FOLDERS_OF_VERSION_1 = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def usable_cores() -> int:
    """Cores that this process may keep busy: those that it may run on, and not more
    than the CPU time that its container is given (cgroup versions 1 and 2). A part of a
    core counts as one.
    """
    quotas = [_quota_of_version_1(folder) for folder in _folders(version=1)]
    quotas += [_quota_of_version_2(folder) for folder in _folders(version=2)]
    shares = [quota for quota in quotas if quota is not None]
    least = min(shares, default=math.inf)
    return max(1, min(_permitted_cores(), _whole(least)))


def _whole(share: float) -> int:
    return math.ceil(min(share, 2**31))


def _permitted_cores() -> int:
    """Cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders(*, version: int) -> Iterator[Path]:
    """The folders of the process's group and of all that hold it: each may limit it.

    A container often sees its own group as the outermost one, under a name that stands
    for nothing there.
    """
    names = FOLDERS_OF_VERSION_1 if version == 1 else ("", "unified")
    for name in names:
        root = CGROUP / name
        yield root
        group = _group(version).strip("/")
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(1, len(parts) + 1):
            yield root.joinpath(*parts[:depth])


def _group(version: int) -> str:
    """Path of the process's group; that of the CPU's controller in version 1."""
    try:
        lines = OF_PROCESS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        named = [name for name in controllers.split(",") if name]
        if (version == 1 and "cpu" in named) or (version == 2 and not named):
            return path
    return ""


def _quota_of_version_2(folder: Path) -> float | None:
    """Cores that `cpu.max` allows; None without a limit."""
    numbers = _words(folder / "cpu.max")
    return _ratio(*numbers) if len(numbers) == 2 else None


def _quota_of_version_1(folder: Path) -> float | None:
    """Cores that the quota of a period allows; None without a limit."""
    quota = _words(folder / "cpu.cfs_quota_us")
    period = _words(folder / "cpu.cfs_period_us")
    return _ratio(quota[0], period[0]) if quota and period else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _ratio(quota: str, period: str) -> float | None:
    """A quota of microseconds in each period as cores; None for "max" and -1."""
    if not (quota.isdecimal() and period.isdecimal()):
        return None
    microseconds = int(period)
    return int(quota) / microseconds if microseconds else None
