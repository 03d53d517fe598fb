"""Where and how the computation runs: device, precision, ranks, seeds.

Plain torch and torchrun, nothing else.
"""

import ctypes
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from trivox.config.choices import PrecisionName, require_choice
from trivox.cores import usable_cores
from trivox.errors import RecipeError, ResourceError

MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 2**26, -3: 2**25}
"""Of malloc.h: M_TRIM_THRESHOLD (free bytes at the heap's end that stay), M_TOP_PAD
(bytes taken at once), M_MMAP_THRESHOLD (bytes from which a block is taken from the
system and returned to it; 32 MB is the most).
"""
MOST_MAPPED_BLOCKS = -4
"""Of malloc.h, M_MMAP_MAX: blocks that may be taken from the system each for itself; 65536
unless told otherwise.
"""
MALLOC_VARIABLES = (
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
)
MOST_READERS = 12
"""Threads that read patches; more do not read faster than a GPU computes."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""By which a user, or torchrun, says how many threads compute."""
NO_CUDA = (
    "there is an NVIDIA GPU here that torch cannot use (a CPU build of torch, or an old "
    "driver): the CPU computes; 'trivox doctor' says more"
)


def rank() -> int:
    """Rank of this process (0 without torchrun)."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ


def launched_rank() -> int:
    """Rank that torchrun gave this process (0 without it), before they have met."""
    return int(os.environ.get("RANK", 0))


def is_first_of_machine() -> bool:
    """Whether no other process of torchrun's on this machine comes before this one."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def rank_positions(batch: int) -> range:
    """Places of this rank in a global batch of at least `batch`: every `world_size`-th.

    Shares are equal, so that the mean over ranks is that over samples; `stop` is the
    size of the global batch.
    """
    ranks = world_size()
    return range(rank(), -(-batch // ranks) * ranks, ranks)


def reading_threads(workers: int | str, device: torch.device) -> int:
    """Threads that read patches: so many, or for "auto" this rank's share of the cores up
    to 12; 2 where the cores compute as well.
    """
    if isinstance(workers, int):
        return workers
    if device.type != "cuda":
        return 2
    ranks = min(world_size(), torch.cuda.device_count())  # of this machine
    share = usable_cores() // max(1, ranks)
    return max(1, min(share, MOST_READERS))


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def least_over_ranks(number: int, device: torch.device) -> int:
    """The smallest of the ranks' numbers."""
    if world_size() == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MIN)
    return int(value)


@dataclass(frozen=True)
class Runtime:
    """Device and precision.

    Precision is "fp32", "bf16" or "fp16"; weights are always fp32.
    """

    device: torch.device
    precision: str

    @property
    def activation_bytes(self) -> int:
        """Bytes of an activation."""
        return 4 if self.precision == "fp32" else 2

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU, of whatever maker."""
        return self.device.type != "cpu"

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=kind)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, active for fp16 only: bf16 has the range of fp32."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @property
    def wide(self) -> torch.dtype:
        """The widest type of real numbers that the device has, to add many up in."""
        return widest_type(self.device)

    def memory_peak(self) -> int:
        """Bytes at the peak: allocated on a GPU, resident in memory on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return process_memory_peak()


def widest_type(device: torch.device) -> torch.dtype:
    """The widest type of real numbers that a device has; Apple's GPUs have no double."""
    return torch.float32 if device.type == "mps" else torch.float64


def process_memory_peak() -> int:
    """The most bytes that this process has held in memory so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB here


def make_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Choose the device ("auto": a GPU if there is one) and the fastest precision that
    it has hardware for.

    torch computes with no more threads than there are cores for this process, see
    `limit_threads`. For a CPU, the process keeps memory that is freed, see
    `keep_freed_memory`.
    """
    chosen = _device(device)
    limit_threads()
    if chosen.type == "cpu":
        keep_freed_memory()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # of which the precision is asked
    require_choice("precision", precision, PrecisionName)
    if precision == "auto":
        precision = _best_precision(chosen)
    if precision == "fp16" and chosen.type == "cpu":
        raise RecipeError("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if chosen.type == "cuda":
        # convolutions in fp32 may round to TF32; matrix products compute geometry and
        # SSIM, where three digits are not enough
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True
    return Runtime(chosen, precision)


def limit_threads() -> int:
    """Have torch use no more threads than `usable_cores`, of which it sees those of the
    whole machine inside a container; returns how many it uses.

    Threads that wait for each other's share of CPU time are slower than fewer that need
    not. What the environment says (OMP_NUM_THREADS, MKL_NUM_THREADS), and a number that
    is smaller already, stays.
    """
    asked = any(name in os.environ for name in THREAD_VARIABLES)
    cores = usable_cores()
    if not asked and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def free_cached_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_pinned_memory() -> None:
    """Give back what torch keeps for later of the host's memory that a GPU reads; older
    versions of torch cannot.
    """
    give_back = getattr(torch.accelerator, "empty_host_cache", None)
    if give_back is not None:
        give_back()


def keep_freed_memory() -> bool:
    """Have glibc's malloc reuse the memory of freed tensors instead of returning it to
    the system; whether it agreed.

    Each step of a network frees and takes its maps again. Memory that went back to the
    system comes again page by page, which costs a lean block up to 40 % of its time.
    Blocks above 32 MB are beyond malloc's limit (but see `large_blocks_kept`). Without
    glibc (macOS, musl, another malloc preloaded) nothing changes, nor where the user has
    set malloc's options (MALLOC_*_, GLIBC_TUNABLES).
    """
    return _tell_malloc(MALLOC_OPTIONS)


@contextmanager
def large_blocks_kept() -> Iterator[None]:
    """Within, blocks above malloc's limit of 32 MB are taken from memory that was freed
    as well, where `keep_freed_memory` does its work.

    The maps of a large window are such blocks: pages that the system gives anew for
    each of them cost a quarter of the time. For what is freed within: a scan that took
    from this memory would leave holes in it.
    """
    agreed = _tell_malloc({MOST_MAPPED_BLOCKS: 0})
    try:
        yield
    finally:
        if agreed:
            _tell_malloc({MOST_MAPPED_BLOCKS: 2**16})


def _tell_malloc(options: Mapping[int, int]) -> bool:
    """Give options to glibc's malloc; whether it agreed."""
    if any(name in os.environ for name in MALLOC_VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in options.items())


def _device(name: str) -> torch.device:
    local = int(os.environ.get("LOCAL_RANK", 0))  # set by torchrun
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local)
    if name == "auto":
        hidden = any(Path("/proc/driver/nvidia/gpus").glob("*"))
        if hidden and launched_rank() == 0:
            warnings.warn(NO_CUDA, stacklevel=3)
        return torch.device("cpu")
    if "," in name:
        raise RecipeError(
            f"device '{name}' is several, and only the cases of 'trivox predict' are "
            "shared among GPUs; name one"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(
            f"device '{name}' does not exist; use auto, cpu, cuda or cuda:N"
        ) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise RecipeError(
            f"device '{name}' cannot train or predict; use auto, cpu, cuda or cuda:N"
        )
    if device.index is not None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise RecipeError(
            f"device '{name}' would be shared by all processes of torchrun; use --device "
            "cuda, which gives each its own"
        )
    if not _is_here(device):
        raise ResourceError(
            f"device '{name}' is not available here; 'trivox doctor' lists what is"
        )
    return device


def _is_here(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type != "mps" or torch.backends.mps.is_available()


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if in_hardware else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX): 2-3x faster
    convolutions there, slower elsewhere.
    """
    # from torch 2.9 on
    ask: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = ask()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch; `deterministic` also asks for algorithms that
    repeat exactly.

    An operation that has none only warns: average pooling without overlap, say, which
    repeats all the same.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what others draw from it repeats
    torch.manual_seed(seed)
    if deterministic:
        # the only way to ask cuBLAS; read when it starts
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one training step, so that dropout is a function of the step: a
    resumed run drops the same.
    """
    number = (seed * 1_000_003 + step) * world_size() + rank()
    torch.manual_seed(number % 2**63)
