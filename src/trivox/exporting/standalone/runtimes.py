"""What computes the networks of an export: ONNX Runtime, OpenVINO, TensorRT, or another
machine. Windows are (1, channel, z, y, x), logits (1, output, z, y, x), both float32.
"""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Windows = Iterable[Array]
Facts = dict[str, Any]
Reader = Callable[[Array, Array], tuple[Array, Array]]
"""Of a window (1, c, z, y, x) and masks (1, m, z, y, x): logits (k,), features (f,)."""


class Network(NamedTuple):
    """What computes a network: `stream` gives the logits (1, outputs, z, y, x) of
    windows (1, c, z, y, x) in their order, `by` names it.
    """

    by: str
    stream: Callable[[Windows], Iterator[Array]]


def in_flight(
    send: Callable[[Array], "Future[Array]"], most: int
) -> Callable[[Windows], Iterator[Array]]:
    """The stream of a network that is computed elsewhere, `most` windows at a time."""

    def stream(windows: Windows) -> Iterator[Array]:
        waiting: deque[Future[Array]] = deque()
        for window in windows:
            waiting.append(send(window))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    return stream


def window_shape(export: Facts) -> tuple[int, ...]:
    """Of one window: (1, c, z, y, x)."""
    rules = export["pipeline"]
    return (1, len(rules["inputs"]), *rules["patch_size"])


def onnx_session(file: Path, threads: int | None) -> Any:
    """A graph that ONNX Runtime computes on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    return onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"]
    )


def open_onnx(file: Path, export: Facts, threads: int | None) -> Network:
    """A network computed by ONNX Runtime on the CPU."""
    session = onnx_session(file, threads)

    def run(windows: Array) -> Array:
        return session.run(["logits"], {"windows": windows})[0]

    return Network("onnxruntime CPU", lambda windows: map(run, windows))


def openvino_request(
    file: Path, hint: str | None, shape: Sequence[int] | None, threads: int | None
) -> Any:
    """A graph that OpenVINO compiled for the CPU; hint: what it may compute in, by default
    what is fastest.
    """
    import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY"}
    if hint:
        hints["INFERENCE_PRECISION_HINT"] = hint
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    model = core.read_model(str(file))
    if shape is not None:
        model.reshape(list(shape))
    return core.compile_model(model, "CPU", hints).create_infer_request()


def open_openvino(file: Path, export: Facts, threads: int | None) -> Network:
    """A network computed by OpenVINO on the CPU."""
    hint = {"bf16": "bf16", "int8": None}.get(export["precision"], "f32")
    request = openvino_request(file, hint, window_shape(export), threads)

    def run(windows: Array) -> Array:
        return request.infer({0: windows})[0]

    return Network("openvino CPU", lambda windows: map(run, windows))


def open_tensorrt(file: Path, export: Facts, threads: int | None) -> Network:
    """A network computed by ONNX Runtime with TensorRT; where that is not at hand, with
    CUDA, or else on the CPU, which is said.
    """
    import onnxruntime

    wanted = {
        "TensorrtExecutionProvider": tensorrt_settings(file.parent, export),
        "CUDAExecutionProvider": {},
        "CPUExecutionProvider": {},
    }
    offered = onnxruntime.get_available_providers()
    providers = [(name, how) for name, how in wanted.items() if name in offered]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    used = session.get_providers()[0].removesuffix("ExecutionProvider")
    if used != "Tensorrt":
        print(
            f"TensorRT is not at hand, {used} computes instead; it needs an NVIDIA GPU, "
            "TensorRT 10 and onnxruntime-gpu in place of onnxruntime",
            file=sys.stderr,
        )
    at_once = 1 if used == "CPU" else export["batches"][2]

    def stream(windows: Windows) -> Iterator[Array]:
        for batch in batches(windows, at_once):
            logits = session.run(["logits"], {"windows": np.concatenate(batch)})[0]
            yield from np.split(logits, len(batch))

    return Network(f"onnxruntime {used}", stream)


def tensorrt_settings(folder: Path, export: Facts) -> Facts:
    """Of ONNX Runtime's TensorRT provider; engines are kept in `engines/`."""
    least, usual, most = (profile(count, export) for count in export["batches"])
    cache = str(folder / "engines")
    settings = {
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": usual,
        "trt_profile_max_shapes": most,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": cache,
    }
    if export["precision"] != "fp32":
        settings[f"trt_{export['precision']}_enable"] = True
    return settings


def profile(count: int, export: Facts) -> str:
    """`count` windows, as the provider reads it: `windows:4x1x96x96x96`."""
    sizes = (count, *window_shape(export)[1:])
    return "windows:" + "x".join(map(str, sizes))


def batches(windows: Windows, most: int) -> Iterator[list[Array]]:
    """Up to `most` windows at a time."""
    rest = iter(windows)
    while batch := list(itertools.islice(rest, most)):
        yield batch


def open_reader(file: Path, export: Facts, threads: int | None) -> Reader:
    """What reads the class of a case from a window, in fp32 on the CPU."""
    if export["runtime"] == "openvino":
        request = openvino_request(file, "f32", None, threads)

        def infer(windows: Array, masks: Array) -> tuple[Array, Array]:
            answer = request.infer({"windows": windows, "masks": masks})
            return answer[0][0].copy(), answer[1][0].copy()

        return infer
    session = onnx_session(file, threads)

    def run(windows: Array, masks: Array) -> tuple[Array, Array]:
        outputs = session.run(
            ["classes", "features"], {"windows": windows, "masks": masks}
        )
        return outputs[0][0], outputs[1][0]

    return run


OPENERS = {"onnx": open_onnx, "openvino": open_openvino, "tensorrt": open_tensorrt}
