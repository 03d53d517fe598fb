"""A CT from file to file, beside nnU-Net's predictor with the same weights.

The whole, and the share of the network; the rest is reading, resampling, restoring and
writing.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from case import plan_of, their_predictor
from gpu_parts.flows import write_model
from gpu_parts.meters import Timing, pretends
from gpu_parts.peer import MISSING, quiet
from gpu_parts.record import Record, Row
from trivox.inference.predictor import Predictor
from trivox.networks.registry import build_network
from trivox.planning.plan import Plan
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

CLASSES = 3


def run(record: Record) -> None:
    """Ours, then theirs; both warm."""
    shape, spacing, patch, features = (300, 512, 512), 0.8, 128, 32
    if record.pretended:
        shape, spacing, patch, features = (30, 40, 40), 1.2, 16, 8
    plan = plan_of((patch,) * 3, shape, CLASSES, features)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(plan, folder)
        source = folder / "scan_0000.nii.gz"
        rng = np.random.default_rng(0)
        image = rng.integers(-50, 50, (1, *shape), dtype=np.int16)
        write_volume(source, Volume(image, affine_from_spacing((spacing,) * 3)))
        size = "x".join(map(str, shape))
        # a CPU takes minutes for nnU-Net's copies in fp16
        for mirrored in (False,) if record.pretended else (False, True):
            how = "mirrored copies" if mirrored else "once"
            ours = partial(_ours, plan, model, source, mirrored)
            theirs = partial(_theirs, plan, folder, source, mirrored)
            record.measure(f"trivox, CT {size}, {how}", ours)
            record.measure(f"nnU-Net, CT {size}, {how}", theirs)


def _ours(plan: Plan, model: Path, source: Path, mirrored: bool) -> Row:
    predictor = Predictor.load(model, device="cuda", mirror=mirrored)
    (engine,) = predictor.members[0].windows.engines
    network = engine.network  # type: ignore[attr-defined]
    out = source.with_name("ours.nii.gz")
    return _both(network, lambda: predictor.predict_file(source, out=out), plan)


def _theirs(plan: Plan, folder: Path, source: Path, mirrored: bool) -> Row:
    if importlib.util.find_spec("nnunetv2") is None:
        raise RuntimeError(MISSING)
    network = build_network(
        plan.network,
        plan.topology,
        channels=1,
        outputs=CLASSES,
        deep_supervision=False,
    )
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder)
    with quiet():
        predictor = their_predictor(plan, network, mirror=mirrored, device="cuda")
        work = partial(
            predictor.predict_from_files_sequential,
            [[str(source)]],
            [str(folder / "theirs")],
        )
        return _both(predictor.network, work, plan)


def _both(network: nn.Module, work: Callable[[], Any], plan: Plan) -> Row:
    """Seconds of the whole and of the network, and memory; a pass warms up."""
    network.to("cuda")
    with torch.inference_mode():
        network(torch.zeros(1, 1, *plan.patch_size, device="cuda"))
    passes = Passes(network)
    with Timing() as timing, passes:
        work()
    means = timing.row(1, 1)
    return {
        "all_seconds": timing.seconds,
        "network_seconds": passes.seconds(),
        "passes": passes.count // 2,
        "allocated_bytes": means["allocated_bytes"],
        "reserved_bytes": means["reserved_bytes"],
        "utilisation": means["utilisation"],
    }


class Passes(ExitStack):
    """Forward passes of a network, between CUDA events."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.count = 0
        self.events: list[Any] = []

    def __enter__(self) -> "Passes":
        before = self.network.register_forward_pre_hook(self._note)
        after = self.network.register_forward_hook(self._note)
        self.callback(before.remove)
        self.callback(after.remove)
        return self

    def _note(self, module: nn.Module, *_: object) -> None:
        self.count += 1
        if not pretends():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)

    def seconds(self) -> float:
        """Of all passes; the device has to be done."""
        starts = self.events[::2]
        ends = self.events[1::2]
        pairs = zip(starts, ends, strict=True)
        return sum(start.elapsed_time(end) for start, end in pairs) / 1000
