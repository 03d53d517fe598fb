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
from trivox.config.recipe import Recipe
from trivox.learning.trainer import Trainer

SETUPS = (Setup(), Setup("resenc-m"), Setup("hybrid-base"))
CHANNELS_LAST = torch.channels_last_3d


def other_optimiser(trainer: Trainer) -> None:
    """Fused kernels where they are not used, else one operator after the other."""
    for group in trainer.learner.optimizer.param_groups:
        fused = not group.get("fused")
        group["fused"] = fused
        group["foreach"] = not fused


GRAPH = {name: True for name in Recipe.model_fields if "graph" in name}
"""What the recipe calls a CUDA graph of the step, if it knows one."""
COMPILE = {"compile": True}
QUICK = [
    Variant(),
    Variant("channels last", layout=CHANNELS_LAST),
    Variant("the other kind of optimiser", change=other_optimiser),
]
if GRAPH:
    QUICK.append(Variant("CUDA graph", GRAPH))
COMPILED = [
    Variant("compiled", COMPILE),
    Variant("compiled, channels last", COMPILE, CHANNELS_LAST),
]
if GRAPH:
    COMPILED.append(Variant("all", {**COMPILE, **GRAPH}, CHANNELS_LAST))


def run(record: Record) -> None:
    """What is most worth knowing comes first: the limit may cut the rest."""
    if record.pretended:
        for variant in QUICK:
            _drawn(record, TINY, variant, TINY_LENGTH)
        _reading(record, TINY, TINY_LENGTH)
        return
    plain, *others = SETUPS
    _drawn(record, plain, Variant(), Length())
    _reading(record, plain, Length())
    for variant in QUICK:
        for setup in SETUPS:
            _drawn(record, setup, variant, Length())
    for variant in COMPILED:
        _drawn(record, plain, variant, Length())
    for setup in others:
        _drawn(record, setup, COMPILED[-1], Length())


def _drawn(record: Record, setup: Setup, variant: Variant, length: Length) -> None:
    work = partial(of_drawn_batches, setup, variant, length)
    record.measure(f"{setup.name}, {variant.name}", work)


def _reading(record: Record, setup: Setup, length: Length) -> None:
    work = partial(with_reading, setup, length, tiny=record.pretended)
    record.measure(f"{setup.name}, with reading and augmentation", work)
