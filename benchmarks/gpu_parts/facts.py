"""Which machine it is: GPU, driver, torch and what it is built with."""

import os
import platform
import subprocess
from typing import Any

import torch

from gpu_parts.record import Record, Row
from trivox.learning.runtime import make_runtime
from trivox.verbs.doctor import examine_machine

QUERY = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
"""Of nvidia-smi."""


def run(record: Record) -> None:
    """Write the facts."""
    record.measure("gpu", _gpu)
    record.measure("nvidia-smi", _driver)
    record.measure("torch", _torch)
    record.measure("precision", _precision)
    record.measure("doctor", examine_machine)


def _gpu() -> Row:
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "device": torch.cuda.get_device_name(0),
        "count": torch.cuda.device_count(),
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_bytes": total,
        "free_bytes": free,
    }


def _driver() -> Row:
    """What nvidia-smi says of the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=15, check=True
    )
    first = said.stdout.splitlines()[0]
    return dict(zip(QUERY, first.split(", "), strict=True))


def _torch() -> Row:
    cudnn: Any = torch.backends.cudnn
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _precision() -> Row:
    return {
        "bf16_in_hardware": torch.cuda.is_bf16_supported(including_emulation=False),
        "chosen": make_runtime("cuda", "auto").precision,
    }
