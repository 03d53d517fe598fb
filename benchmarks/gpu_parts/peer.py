"""nnU-Net's own trainer beside ours: the same network, patch, batch and scans.

Each as it is shipped: nnU-Net computes in fp16 with its loaders in processes, trivox in
the precision that it chooses with readers in threads. "Drawn batches" are noise on the
GPU: the step alone.
"""

import contextlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from case import their_plans
from gpu_parts.flows import EnoughSeenError
from gpu_parts.meters import pretends
from gpu_parts.record import Record, Row
from gpu_parts.step import COMPILED, measure_drawn, measure_reading
from gpu_parts.training import (
    CLASSES,
    TINY,
    TINY_LENGTH,
    Length,
    Meter,
    Setup,
    Variant,
)
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case

PLAIN = Setup()
FOUR = Setup(channels=4)
CASES = 6
MISSING = "nnU-Net is not installed here; run benchmarks/setup.sh"


def run(record: Record) -> None:
    """What is most worth knowing comes first: the limit may cut the rest."""
    length = TINY_LENGTH if record.pretended else Length()
    plain = TINY if record.pretended else PLAIN
    measure_drawn(record, plain, Variant(), length)
    _theirs(record, plain, length, compiled=False, loaders=False)
    measure_reading(record, plain, length)
    if record.pretended:
        _theirs(record, plain, length, compiled=False, loaders=True)
        return
    _theirs(record, plain, length, compiled=True, loaders=True)
    measure_reading(record, FOUR, length)
    _theirs(record, FOUR, length, compiled=True, loaders=True)
    _theirs(record, plain, length, compiled=True, loaders=False)
    measure_drawn(record, plain, COMPILED[-1], length)


def _theirs(
    record: Record, setup: Setup, length: Length, *, compiled: bool, loaders: bool
) -> None:
    batches = "its own loaders" if loaders else "drawn batches"
    how = "compiled" if compiled else "not compiled"
    work = partial(
        _their_steps,
        setup,
        length,
        compiled=compiled,
        loaders=loaders,
        processes=0 if record.pretended else 12,
    )
    record.measure(f"nnU-Net, {setup.name}, {batches}, {how}", work)


def _their_steps(
    setup: Setup, length: Length, *, compiled: bool, loaders: bool, processes: int
) -> Row:
    """Steps of nnU-Net's trainer under our meter."""
    if importlib.util.find_spec("nnunetv2") is None:
        raise RuntimeError(MISSING)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train does
    meter = Meter(length)
    with tempfile.TemporaryDirectory() as folder, quiet():
        environment = {
            "nnUNet_compile": "t" if compiled else "f",
            "nnUNet_n_proc_DA": str(processes),
        }
        root = Path(folder)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            environment[name] = str(root / name)
        os.environ |= environment
        _write_cases(setup, root / "nnUNet_preprocessed")
        trainer = _their_trainer(setup)
        batches: Any = trainer.get_dataloaders() if loaders else None
        drawn = _drawn(trainer, setup)
        steps = meter.watch.watched(range(length.all + 1))
        with contextlib.suppress(EnoughSeenError):
            for _ in steps:
                batch = next(batches[0]) if loaders else drawn
                with _precision():
                    trainer.train_step(batch)
        for each in batches or ():
            if processes:
                each._finish()
    return {**meter.row(setup.batch), "readers": processes if loaders else None}


def _precision() -> contextlib.AbstractContextManager[Any]:
    """nnU-Net's own; a CPU has no kernel for the softmax of its halves."""
    if not pretends():
        return contextlib.nullcontext()
    name = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.autocast"
    return mock.patch(name, return_value=contextlib.nullcontext())


def _their_trainer(setup: Setup) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = their_plans(setup.plan())
    settings = plans["configurations"]["3d_fullres"]
    settings["normalization_schemes"] = ["ZScoreNormalization"] * setup.channels
    settings["use_mask_for_norm"] = [False] * setup.channels
    settings["batch_size"] = setup.batch
    names = {str(index): f"channel {index}" for index in range(setup.channels)}
    labels = {f"organ {index}": index for index in range(1, CLASSES)}
    dataset = {
        "channel_names": names,
        "labels": {"background": 0, **labels},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    trainer = nnUNetTrainer(
        plans={**plans, "continue_training": False},
        configuration="3d_fullres",
        fold="all",  # type: ignore[arg-type]
        dataset_json=dataset,
        device=torch.device("cuda"),
    )
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    return trainer


def _drawn(trainer: Any, setup: Setup) -> dict[str, Any]:
    """One batch of noise on the GPU, with labels at each scale."""
    patch = setup.plan().patch_size
    images = torch.randn(setup.batch, setup.channels, *patch, device="cuda")
    labels = torch.randint(0, CLASSES, (setup.batch, 1, *patch), device="cuda")
    targets = []
    for scale in trainer._get_deep_supervision_scales():
        z, y, x = (round(1 / factor) for factor in scale)
        targets.append(labels[:, :, ::z, ::y, ::x].contiguous().short())
    return {"data": images, "target": targets}


def _write_cases(setup: Setup, root: Path) -> None:
    """The scans of `with_reading` as nnU-Net prepares them."""
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    folder = root / "Dataset001_Benchmark" / "benchmark"
    folder.mkdir(parents=True)
    settings = PhantomSettings(
        cases=CASES,
        shape=(5 * setup.patch // 4,) * 3,
        spacing=(1.0, 1.0, 1.0),
        spacing_variation=0.0,
        channels=setup.channels,
    )
    rng = np.random.default_rng(0)
    for index in range(CASES):
        image, label = phantom_case(settings, index)
        voxels = image.array.astype(np.float32)
        spread = voxels.std((1, 2, 3), keepdims=True)
        voxels = (voxels - voxels.mean((1, 2, 3), keepdims=True)) / spread
        classes = label.array.astype(np.int8)
        places = {}
        for value in range(1, CLASSES):
            everywhere = np.argwhere(classes == value)
            places[value] = rng.permutation(everywhere)[:10000]
        blocks, chunks = comp_blosc2_params(
            voxels.shape, setup.plan().patch_size, voxels.itemsize
        )
        nnUNetDatasetBlosc2.save_case(
            voxels,
            classes,
            {"class_locations": places},
            str(folder / f"case_{index}"),
            chunks=(setup.channels, *chunks[1:]),
            blocks=blocks,
            chunks_seg=(1, *chunks[1:]),
            blocks_seg=(1, *blocks[1:]),
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """nnU-Net says a lot."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
