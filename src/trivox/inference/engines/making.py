"""An engine by its name for the networks of a model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trivox.config.choices import EngineName
from trivox.errors import BundleError, UsageError
from trivox.inference.engines.encoders import (
    Encoder,
    OnnxEncoder,
    OpenVinoEncoder,
    TorchEncoder,
    encoder_source,
)
from trivox.inference.engines.engine import Engine
from trivox.inference.engines.kept import Source
from trivox.inference.engines.runtimes import (
    OnnxEngine,
    OpenVinoEngine,
    best_precision,
    onnx_session,
    openvino_request,
)
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
    computing = _compiled(name, source, runtime.precision)
    if name == "onnx":
        return OnnxEngine(runtime.precision, computing)
    return OpenVinoEngine(runtime.precision, computing)


def made_encoder(name: EngineName, source: Source, runtime: Runtime) -> Encoder:
    """The encoder of a network, computed as `made_engine` computes all of it."""
    encoder = encoder_source(source)
    if name == "torch":
        return TorchEncoder(encoder.network, runtime)
    computing = _compiled(name, encoder, runtime.precision)
    if name == "onnx":
        return OnnxEncoder(computing, encoder.outputs)
    return OpenVinoEncoder(computing, encoder.outputs)


def _compiled(name: EngineName, source: Source, precision: str) -> Any:
    """The graph of a source made ready by the runtime of an engine."""
    try:
        return _by_runtime(name, source.graph(), source, precision)
    except BundleError:  # a graph that was damaged where it was kept
        return _by_runtime(name, source.made_again(), source, precision)


def _by_runtime(name: EngineName, graph: bytes, source: Source, precision: str) -> Any:
    if name == "onnx":
        return onnx_session(graph)
    return openvino_request(graph, shape=source.shape, precision=precision)


def made_engines(
    name: EngineName, sources: Sequence[Source], runtime: Runtime
) -> tuple[Engine, ...]:
    """An engine for each network."""
    return tuple(made_engine(name, source, runtime) for source in sources)
