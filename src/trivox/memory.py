"""How much memory is left, also inside a container; and a refusal before it is taken."""

from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from trivox.errors import DataError, ResourceError

CGROUP = Path("/sys/fs/cgroup")
NO_MEMORY = (
    "out of memory",
    "cannot allocate memory",
    "can't start new thread",
    "failed to map segment",
)
"""What the system says where memory, or room for a thread or a library, is missing."""
NO_MEMORY_OF_TORCH = ("alloc", "unable to find an engine to execute")
"""What torch, CUDA, cuBLAS and cuDNN say besides."""


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that memory is missing, whatever its type."""
    said = str(error).lower()
    signs = [*NO_MEMORY]
    if isinstance(error, RuntimeError):
        signs += NO_MEMORY_OF_TORCH
    # torch has an exception of its own, which is not loaded for that
    kinds = {kind.__name__ for kind in type(error).mro()}
    named = {"MemoryError", "OutOfMemoryError"} & kinds
    return bool(named) or any(sign in said for sign in signs)


def no_memory(error: BaseException) -> ResourceError:
    """The line that says so."""
    reason = " ".join(str(error).split()) or "no more to be had"
    return ResourceError(
        f"out of memory ({reason}); use smaller cases, patches or batches, or more "
        "memory"
    )


class Holder(Protocol):
    """What holds memory of a device that others may need more."""

    def give_way(self) -> bool:
        """Let go of a part; False if nothing is left of it."""


HOLDERS: WeakSet[Holder] = WeakSet()


def make_room() -> bool:
    """Ask all holders to give way; whether one did."""
    answers = [holder.give_way() for holder in HOLDERS]
    return any(answers)


def free_memory() -> int:
    """Bytes that this process may still take: what the system could give, or the limit
    of its container (cgroup v2) leaves.
    """
    # loads slowly for what most commands never ask
    import psutil

    # free memory and what the page cache would give back
    free: int = psutil.virtual_memory().available
    return min(free, _container_memory())


def total_memory() -> int:
    """Bytes of the machine, or of its container (cgroup v2)."""
    import psutil

    total: int = psutil.virtual_memory().total
    try:
        return min(total, _container_limit())
    except (OSError, ValueError):  # "max": no limit
        return total


def _container_limit() -> int:
    return int((CGROUP / "memory.max").read_text(encoding="ascii"))


def _container_memory() -> int:
    """What the limit of a container leaves; huge without one."""
    try:
        limit = _container_limit()
        facts = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        used = next(int(line.split()[1]) for line in facts if line.startswith("anon "))
    except (OSError, ValueError, StopIteration):  # "max": no limit
        return 2**62
    return max(limit - used, 0)


def gigabytes(count: float) -> str:
    """Bytes as people say them: `0.35 GB`, `190 GB`."""
    size = count / 1e9
    return f"{size:.0f} GB" if size >= 10 else f"{size:.2g} GB"


def require_memory(needed: float, what: str, advice: str) -> None:
    """Raise `DataError` before `needed` bytes are taken that are not there."""
    free = free_memory()
    if needed > free:
        raise DataError(
            f"{what} need about {gigabytes(needed)} of memory, {gigabytes(free)} are "
            f"available; {advice}"
        )
