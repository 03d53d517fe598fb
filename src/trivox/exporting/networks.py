"""Networks as files of a runtime, in a precision."""

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from trivox.exporting.card import Runtime
from trivox.files import write_bytes
from trivox.inference.engines.graph import WINDOWS, graph_of
from trivox.optional import optional_package
from trivox.planning.plan import Plan
from trivox.volumes.volume import Array

PRECISIONS: Mapping[Runtime, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "tensorrt": ("fp32", "bf16", "fp16", "int8"),
}
"""Of each runtime; fp16 halves the file, the CPU computes in fp32. TensorRT rounds to bf16
and fp16 where its engine is built, the file stays in fp32.
"""
FEW_WEIGHTS = 1024
"""Numbers of a tensor that stays in fp32 in an fp16 file."""
Windows = Sequence[Array]
"""Prepared windows `(1, c, z, y, x)` float32 that show how values are distributed."""


def write_networks(
    network: nn.Module,
    plan: Plan,
    stems: Mapping[Runtime, Path],
    precision: str,
    windows: Windows,
) -> dict[Runtime, Path]:
    """Write a network in eval mode for each runtime; returns the files."""
    graph = graph_of(network, channels=len(plan.inputs), patch=plan.patch_size)
    files = {}
    for runtime, stem in stems.items():
        stem.parent.mkdir(parents=True, exist_ok=True)
        files[runtime] = FORMATS[runtime](graph, plan, stem, precision, windows)
    return files


def write_onnx(
    graph: bytes, plan: Plan, stem: Path, precision: str, windows: Windows
) -> Path:
    """Write a graph as `STEM.onnx`."""
    if precision == "fp16":
        graph = with_half_weights(graph)
    if precision == "int8":
        graph = _quantised_onnx(graph, windows)
    return _written(stem, graph)


def write_tensorrt(
    graph: bytes, plan: Plan, stem: Path, precision: str, windows: Windows
) -> Path:
    """Write a graph as `STEM.onnx` that TensorRT reads: of what is quantised it knows
    signed numbers around zero alone.
    """
    if precision == "int8":
        graph = _quantised_onnx(graph, windows, symmetric=True)
    return _written(stem, graph)


def _written(stem: Path, graph: bytes) -> Path:
    file = stem.with_suffix(".onnx")
    write_bytes(file, graph)
    return file


def write_openvino(
    graph: bytes, plan: Plan, stem: Path, precision: str, windows: Windows
) -> Path:
    """Write a graph as `STEM.xml` and `STEM.bin`."""
    openvino = optional_package("openvino", extra="export")
    model = openvino.Core().read_model(graph)
    if precision == "int8":
        model.reshape([1, len(plan.inputs), *plan.patch_size])
        model = _quantised(model, windows)
    file = stem.with_suffix(".xml")
    openvino.save_model(model, str(file), compress_to_fp16=precision == "fp16")
    return file


Writer = Callable[[bytes, Plan, Path, str, Windows], Path]
FORMATS: Mapping[Runtime, Writer] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "tensorrt": write_tensorrt,
}


def with_half_weights(graph: bytes) -> bytes:
    """The graph with its large weights in half precision, half as large; they are
    brought back to fp32 when it is opened.
    """
    onnx = optional_package("onnx", extra="export")
    model = onnx.load_model_from_string(graph)
    casts = []
    for weights in model.graph.initializer:
        array = onnx.numpy_helper.to_array(weights)
        if array.dtype != np.float32 or array.size < FEW_WEIGHTS:
            continue
        name = weights.name
        half = f"{name}.half"
        small = onnx.numpy_helper.from_array(array.astype(np.float16), half)
        weights.CopyFrom(small)
        to = onnx.TensorProto.FLOAT
        casts.append(onnx.helper.make_node("Cast", [half], [name], to=to))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    smaller: bytes = model.SerializeToString()
    return smaller


def _quantised_onnx(
    graph: bytes, windows: Windows, *, symmetric: bool = False
) -> bytes:
    onnx = optional_package("onnx", extra="export")
    model = onnx.load_model_from_string(graph)
    model = _quantised(model, windows, symmetric=symmetric)
    quantised: bytes = model.SerializeToString()
    return quantised


def _quantised(model: Any, windows: Windows, *, symmetric: bool = False) -> Any:
    """Weights and maps in int8, by what the windows make of them (NNCF)."""
    # NNCF reports its use to its makers where it can import this
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    nncf = optional_package("nncf", extra="export")
    nncf.set_log_level(logging.ERROR)
    seen = nncf.Dataset(list(windows), lambda window: {WINDOWS: window})
    presets = nncf.QuantizationPreset
    # it draws bars of its own, where lines for a program may be expected
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            seen,
            preset=presets.PERFORMANCE if symmetric else presets.MIXED,
            subset_size=len(windows),
        )
