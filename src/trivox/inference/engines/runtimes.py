"""Graphs computed by ONNX Runtime and OpenVINO, on a CPU."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trivox.errors import BundleError
from trivox.inference.engines.engine import Split
from trivox.inference.engines.graph import LOGITS, WINDOWS
from trivox.inference.engines.torch import VOXELS_A_BATCH
from trivox.learning.runtime import cpu_has_bf16
from trivox.optional import optional_package

CPU = torch.device("cpu")
HINTS = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls the precision that it may compute in; round what was quantised, it
takes what is fastest.
"""


@dataclass(frozen=True, eq=False)
class GraphEngine:
    """A graph on the CPU."""

    precision: str

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return CPU

    def split(self) -> Split | None:
        """None: a graph is whole; see `trivox.inference.engines.split`."""
        return None


@dataclass(frozen=True, eq=False)
class OnnxEngine(GraphEngine):
    """A graph in a session of ONNX Runtime."""

    name: ClassVar[str] = "onnx"

    session: Any

    @property
    def voxels_a_batch(self) -> int:
        """Patch voxels that stay in the CPU's cache."""
        return VOXELS_A_BATCH["cpu"]

    def logits(self, windows: Tensor) -> Tensor:
        """See `trivox.inference.engines.engine.Engine`."""
        array = np.ascontiguousarray(windows.numpy(), dtype=np.float32)
        (result,) = self.session.run([LOGITS], {WINDOWS: array})
        return torch.from_numpy(result)


@dataclass(frozen=True, eq=False)
class OpenVinoEngine(GraphEngine):
    """A graph that OpenVINO compiled for one window at a time."""

    name: ClassVar[str] = "openvino"

    request: Any

    @property
    def voxels_a_batch(self) -> int:
        """One window: more would leave the CPU's cache."""
        return 1

    def logits(self, windows: Tensor) -> Tensor:
        """See `trivox.inference.engines.engine.Engine`."""
        parts = []
        for window in windows.split(1):
            array = np.ascontiguousarray(window.numpy(), dtype=np.float32)
            answer = self.request.infer(
                {0: array}, share_inputs=True, share_outputs=True
            )
            # the next window is written where this one was
            parts.append(torch.from_numpy(answer[0]).clone())
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def onnx_engine(graph: bytes, *, precision: str) -> OnnxEngine:
    """A graph made ready by ONNX Runtime; raises `ResourceError` without it,
    `BundleError` for a graph that it does not read.
    """
    runtime = optional_package("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise _unreadable("ONNX Runtime", error) from error
    return OnnxEngine(precision, session)


def openvino_engine(
    graph: bytes, *, shape: Sequence[int], precision: str
) -> OpenVinoEngine:
    """A graph compiled by OpenVINO for windows of `shape` `(1, c, z, y, x)`; raises as
    `onnx_engine` does.
    """
    openvino = optional_package("openvino", extra="openvino")
    core = openvino.Core()
    hints = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    if precision in HINTS:
        hints["INFERENCE_PRECISION_HINT"] = HINTS[precision]
    try:
        model = core.read_model(graph)
        model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", hints)
    except Exception as error:
        raise _unreadable("OpenVINO", error) from error
    return OpenVinoEngine(precision, compiled.create_infer_request())


def _unreadable(runtime: str, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())[:200]
    return BundleError(
        f"{runtime} cannot compute the network ({reason}); use --engine torch"
    )


PACKAGES: Mapping[str, str] = {"onnx": "onnxruntime", "openvino": "openvino"}


def is_installed(engine: str) -> bool:
    """Whether the package of an engine is here."""
    return importlib.util.find_spec(PACKAGES[engine]) is not None


def best_precision(engine: str) -> str:
    """What an engine computes fastest in on this CPU without losing labels."""
    fast = engine == "openvino" and cpu_has_bf16()
    return "bf16" if fast else "fp32"
