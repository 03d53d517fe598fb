"""The training step of three networks in several ways, at nnU-Net's patch and batch."""

from functools import partial

import torch

from gpu_parts.record import Record
from gpu_parts.training import (
    TINY,
    TINY_LENGTH,
    Length,
    Setup,
    Variant,
    of_drawn_batches,
    with_reading,
)
from trivox.learning.trainer import Trainer

SETUPS = (Setup(), Setup("resenc-m"), Setup("hybrid-base"))
CHANNELS_LAST = torch.channels_last_3d


def other_optimiser(trainer: Trainer) -> None:
    """Fused kernels where they are not used, else one operator after the other."""
    for group in trainer.learner.optimizer.param_groups:
        fused = not group.get("fused")
        group["fused"] = fused
        group["foreach"] = not fused


GRAPH = {"cuda_graph": True}
COMPILE = {"compile": True}
QUICK = [
    Variant(),
    Variant("channels last", layout=CHANNELS_LAST),
    Variant("the other kind of optimiser", change=other_optimiser),
    Variant("CUDA graph", GRAPH),
]
COMPILED = [
    Variant("compiled", COMPILE),
    Variant("compiled, channels last", COMPILE, CHANNELS_LAST),
    Variant("all", {**COMPILE, **GRAPH}, CHANNELS_LAST),
]


def run(record: Record) -> None:
    """What is most worth knowing comes first: the limit may cut the rest."""
    if record.pretended:
        for variant in QUICK:
            measure_drawn(record, TINY, variant, TINY_LENGTH)
        measure_reading(record, TINY, TINY_LENGTH)
        return
    plain, *others = SETUPS
    measure_drawn(record, plain, Variant(), Length())
    measure_reading(record, plain, Length())
    for variant in QUICK:
        for setup in SETUPS:
            measure_drawn(record, setup, variant, Length())
    for variant in COMPILED:
        measure_drawn(record, plain, variant, Length())
    for setup in others:
        measure_drawn(record, setup, COMPILED[-1], Length())


def measure_drawn(
    record: Record, setup: Setup, variant: Variant, length: Length
) -> None:
    """Steps on noise that is on the GPU already."""
    work = partial(of_drawn_batches, setup, variant, length)
    record.measure(f"trivox, {setup.name}, drawn batches, {variant.name}", work)


def measure_reading(record: Record, setup: Setup, length: Length) -> None:
    """Steps whose batches are read and augmented."""
    work = partial(with_reading, setup, length, tiny=record.pretended)
    record.measure(f"trivox, {setup.name}, reading and augmentation", work)
