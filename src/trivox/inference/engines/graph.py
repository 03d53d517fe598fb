"""A network as a graph (ONNX) that other programs compute."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trivox.errors import ResourceError
from trivox.memory import memory_ran_out, no_memory
from trivox.optional import optional_package

OPSET = 18
"""Of ONNX; runtimes of 2023 and later read it."""
WRITING = 2
"""Raised where the same network becomes another graph: those of before are not used."""
WINDOWS = "windows"
LOGITS = "logits"
"""Names of what goes in `(n, c, z, y, x)` and comes out `(n, outputs, z, y, x)`, both
float32.
"""
MOST_WINDOWS = 2**16


class UnexportableError(ResourceError):
    """A network that has no graph: it computes what ONNX does not know."""


def graph_of(network: nn.Module, *, channels: int, patch: Sequence[int]) -> bytes:
    """The graph of a network in eval mode on a CPU, for any number of windows of
    `patch` voxels `(z, y, x)`.

    Raises as `exported` does.
    """
    example = torch.zeros(2, channels, *patch)
    with torch.inference_mode(False), torch.no_grad():
        # tables that depend on the grid alone are made here, and constants of the graph
        network(example[:1])
    count = torch.export.Dim("n", min=1, max=MOST_WINDOWS)
    return exported(network, {WINDOWS: example}, [LOGITS], sizes=({0: count},))


def exported(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    sizes: tuple[dict[int, Any], ...] | None = None,
) -> bytes:
    """The graph of a module in eval mode on a CPU, for tensors of the shapes of
    `inputs`; sizes: axes of each that may have another.

    Raises `ResourceError` where the packages for it are missing, `UnexportableError`
    naming what has no counterpart in ONNX.
    """
    for package in ("onnx", "onnxscript"):
        optional_package(package, extra="export")
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                network,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=sizes,
                verbose=False,
            )
    except Exception as error:
        if isinstance(error, RuntimeError) and memory_ran_out(error):
            raise no_memory(error) from error
        raise UnexportableError(
            f"network {type(network).__name__}: {_reason(error)}; it runs with "
            "--engine torch"
        ) from error
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def _reason(error: BaseException) -> str:
    """What torch says of an operator that has no counterpart, in one line."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    lines = [line.strip() for line in str(innermost).splitlines()]
    said = next((line for line in lines if line), type(innermost).__name__)
    return f"has no ONNX graph ({said[:200]})"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of itself."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
