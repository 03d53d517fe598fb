"""A whole scan in, its label map out, on a Triton server with its Python backend: the
windows go to the networks inside the server and never over a wire.

The Python of the server needs numpy and scipy.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """`export.json` beside this file, computed by the networks that `config.pbtxt`
    names.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read the export; the networks are asked when a scan comes."""
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        from run import Model
        from runtimes import Network, in_flight

        parameters = json.loads(args["model_config"])["parameters"]
        names = parameters["networks"]["string_value"].split(",")
        most = int(parameters["windows_in_flight"]["string_value"])
        self.pool = ThreadPoolExecutor(most)
        networks = [
            Network(name, in_flight(partial(self.pool.submit, logits, name), most))
            for name in names
        ]
        self.model = Model(folder, networks=networks)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with a label map or with what is wrong."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """To one request."""
        try:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            affine = pb_utils.get_input_tensor_by_name(request, "affine").as_numpy()
            labels = self.model.predict_array(image, affine)
        except Exception as error:  # one bad scan never stops the server
            return pb_utils.InferenceResponse(
                [], error=pb_utils.TritonError(str(error))
            )
        return pb_utils.InferenceResponse([pb_utils.Tensor("labels", labels)])

    def finalize(self) -> None:
        """Let the threads go."""
        self.pool.shutdown()


def logits(name: str, window: Any) -> Any:
    """Logits (1, outputs, z, y, x) of a window (1, c, z, y, x) by a network of this
    server.
    """
    on_cpu = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
    request = pb_utils.InferenceRequest(
        model_name=name,
        requested_output_names=["logits"],
        inputs=[pb_utils.Tensor("windows", window)],
        preferred_memory=on_cpu,
    )
    response = request.exec()
    if response.has_error():
        raise RuntimeError(f"{name}: {response.error().message()}")
    return pb_utils.get_output_tensor_by_name(response, "logits").as_numpy().copy()
