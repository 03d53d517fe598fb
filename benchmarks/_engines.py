"""Shared by benchmarks of engines: a predictor by engine and precision."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trivox.datasets.dataset import Case
from trivox.exporting.calibration import calibration_windows
from trivox.exporting.networks import write_onnx
from trivox.inference.engines.graph import graph_of
from trivox.inference.engines.runtimes import openvino_engine
from trivox.inference.engines.split import (
    SplitEngine,
    narrowing_layer,
    without_last,
)
from trivox.inference.predictor import Predictor

KINDS = (
    "fp32",
    "bf16",
    "onnx fp32",
    "openvino fp32",
    "openvino bf16",
    "openvino int8",
)
"""Engine and precision; torch where no engine is named."""


def predictor_of(kind: str, model: Path, calibration: Sequence[Case]) -> Predictor:
    """A model made ready for the CPU; in int8 calibrated on windows of some cases."""
    engine, _, precision = kind.rpartition(" ")
    if precision != "int8":
        return Predictor.load(
            model, device="cpu", precision=precision, engine=engine or "torch"
        )
    predictor = Predictor.load(model, device="cpu", precision="fp32")
    windows = calibration_windows(predictor, calibration)
    member = predictor.members[0]
    plan = member.plan
    shape = (1, len(plan.inputs), *plan.patch_size)
    engines = []
    with tempfile.TemporaryDirectory() as name:
        for by_torch in member.windows.engines:
            stem = Path(name) / "network"
            layer = narrowing_layer(by_torch.network)
            network = (
                by_torch.network if layer is None else without_last(by_torch.network)
            )
            graph = graph_of(network, channels=len(plan.inputs), patch=plan.patch_size)
            graph = write_onnx(graph, plan, stem, "int8", windows).read_bytes()
            engine = openvino_engine(graph, shape=shape, precision="int8")
            engines.append(engine if layer is None else SplitEngine(engine, layer))
    small = replace(member.windows, engines=engines)
    return replace(predictor, members=(replace(member, windows=small),))
