"""An engine by its name for the networks of a model."""

from collections.abc import Sequence
from dataclasses import replace

from trivox.config.choices import EngineName
from trivox.errors import BundleError, UsageError
from trivox.inference.engines.engine import Engine
from trivox.inference.engines.kept import Source
from trivox.inference.engines.runtimes import (
    best_precision,
    onnx_engine,
    openvino_engine,
)
from trivox.inference.engines.split import SplitEngine
from trivox.inference.engines.torch import TorchEngine
from trivox.learning.runtime import Runtime, make_runtime


def runtime_beside(engine: EngineName, device: str, precision: str) -> Runtime:
    """Device and precision that an engine computes in; torch takes any.

    Raises `UsageError` for what the engine does not have.
    """
    if engine == "torch":
        return make_runtime(device, precision)
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"--engine {engine} computes on the CPU, not on '{device}'; leave out "
            "--device, or use --engine torch"
        )
    if precision == "auto":
        return replace(make_runtime("cpu", "fp32"), precision=best_precision(engine))
    runtime = make_runtime("cpu", precision)
    if engine == "onnx" and runtime.precision != "fp32":
        raise UsageError(
            f"--engine onnx computes in fp32 on a CPU, not in {precision}; use --engine "
            "openvino or torch"
        )
    return runtime


def made_engine(name: EngineName, source: Source, runtime: Runtime) -> Engine:
    """An engine that computes a network as the runtime says."""
    if name == "torch":
        return TorchEngine(source.network, runtime)
    parts = source.apart()
    if parts is None:
        return _graph_engine(name, source, runtime.precision)
    body, layer = parts
    return SplitEngine(_graph_engine(name, body, runtime.precision), layer)


def _graph_engine(name: EngineName, source: Source, precision: str) -> Engine:
    try:
        return _of_graph(name, source.graph(), source, precision)
    except BundleError:  # a graph that was damaged where it was kept
        return _of_graph(name, source.made_again(), source, precision)


def _of_graph(name: EngineName, graph: bytes, source: Source, precision: str) -> Engine:
    if name == "onnx":
        return onnx_engine(graph, precision=precision)
    return openvino_engine(graph, shape=source.shape, precision=precision)


def made_engines(
    name: EngineName, sources: Sequence[Source], runtime: Runtime
) -> tuple[Engine, ...]:
    """An engine for each network."""
    return tuple(made_engine(name, source, runtime) for source in sources)
