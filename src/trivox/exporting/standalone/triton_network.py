"""The network of this folder on a Triton server that has the Python backend alone: put
`backend: "python"` in `config.pbtxt`, and the Python of the server computes it.

It needs numpy, and onnxruntime for `model.onnx`, openvino for `model.xml`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """All windows of the requests that the server gathered are computed at once."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network."""
        folder = Path(args["model_repository"]) / args["model_version"]
        onnx = folder / "model.onnx"
        self.run = by_onnx(onnx) if onnx.exists() else by_openvino(folder / "model.xml")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Logits of each request's windows."""
        given = [
            pb_utils.get_input_tensor_by_name(request, "windows").as_numpy()
            for request in requests
        ]
        ends = np.cumsum([len(windows) for windows in given])
        logits = np.split(self.run(np.concatenate(given)), ends[:-1])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("logits", part.copy())])
            for part in logits
        ]


def by_onnx(file: Path) -> Any:
    """A function of windows (n, c, z, y, x)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )
    return lambda windows: session.run(["logits"], {"windows": windows})[0]


def by_openvino(file: Path) -> Any:
    """The same."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(file), "CPU", hints)
    return lambda windows: model({0: windows})[0].copy()
