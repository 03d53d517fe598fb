"""Shared by benchmarks of engines: what this CPU could do at best, by how fast it
multiplies large matrices.
"""

from collections.abc import Callable

import torch

from _measure import timed

SIZE = 2048
ROUNDS = 6


def multiplying_rates() -> dict[str, float]:
    """Operations a CPU second (2 x multiply-accumulates) of square matrices, by
    precision, on as many threads as torch has; the best round.
    """
    torch.manual_seed(0)
    left, right = torch.randn(2, SIZE, SIZE)
    halves = left.bfloat16(), right.bfloat16()
    bytes_ = (10 * left).to(torch.int8), (10 * right).to(torch.int8)
    return {
        "fp32": _rate(lambda: left @ right),
        "bf16": _rate(lambda: halves[0] @ halves[1]),
        "int8": _rate(lambda: torch._int_mm(*bytes_)),
    }


def _rate(multiply: Callable[[], torch.Tensor]) -> float:
    seconds = [timed(multiply)[0].cpu for _ in range(ROUNDS)]
    return 2 * SIZE**3 / min(seconds)
