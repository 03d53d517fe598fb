"""Label maps from a model on a Triton server; needs numpy, scipy, nibabel and
tritonclient[grpc], no trivox, no torch and no runtime of networks.

    python client.py SCAN.nii.gz --out labels.nii.gz --url localhost:8001

Windows are sent one by one, many at a time, and the server batches them; with --volume
the scan is sent once and its label map comes back. Research use only, not a medical
device.
"""

import argparse
import json
import sys
from concurrent.futures import Future
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from run import HERE, Array, Model, require_places, write_labels
from runtimes import Network, in_flight


class Server:
    """Models of a Triton server, by their names."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = grpc.InferenceServerClient(url)

    def network(self, name: str, most: int) -> Network:
        """A network, `most` windows at a time."""

        def send(window: Array) -> "Future[Array]":
            answer: Future[Array] = Future()

            def arrived(result: Any, error: Any) -> None:
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(result.as_numpy("logits"))

            self.client.async_infer(name, [given("windows", window, "FP32")], arrived)
            return answer

        return Network(f"Triton {name}", in_flight(send, most))

    def labels(self, name: str, image: Array, affine: Array) -> Array:
        """Label values (z, y, x) of an image (c, z, y, x), made by the server."""
        inputs = [given("image", image, "FP32"), given("affine", affine, "FP64")]
        return self.client.infer(name, inputs).as_numpy("labels")


def given(name: str, array: Array, kind: str) -> Any:
    """An input of a request."""
    tensor = grpc.InferInput(name, array.shape, kind)
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor


def predict(arguments: argparse.Namespace) -> None:
    """Write the label map of one case."""
    require_places(arguments.files, [arguments.out])
    server = Server(arguments.url)
    facts = json.loads((HERE / "export.json").read_text("utf-8"))
    runtime = arguments.runtime or facts["runtime"]
    if runtime not in facts["served"]:
        raise ValueError(f"the export has no networks for {runtime}")
    most = 2 * facts["batches"][2]
    names = facts["served"][runtime]
    model = Model(networks=[server.network(name, most) for name in names])
    image, source = model.read(arguments.files)
    if arguments.volume:
        (name,) = facts["served"]["volume"]
        values = server.labels(name, image, source.affine)
    else:
        values = model.predict_array(image, source.affine)
    write_labels(arguments.out, values, source)


def main() -> int:
    """Predict one case from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="NIfTI files, one a channel")
    parser.add_argument("--out", required=True, help="label map to write, .nii.gz")
    parser.add_argument("--url", default="localhost:8001", help="gRPC of the server")
    parser.add_argument("--runtime", choices=("onnx", "openvino"))
    parser.add_argument("--volume", action="store_true", help="send the scan at once")
    arguments = parser.parse_args()
    try:
        predict(arguments)
    except (grpc.InferenceServerException, ValueError, OSError) as error:
        print(f"{arguments.url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
