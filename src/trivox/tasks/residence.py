"""Whether a GPU's memory holds the prepared cases beside what a training step needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trivox.config.recipe import Recipe
from trivox.datasets.splits import Split
from trivox.errors import ResourceError
from trivox.learning.microbatch import HEADROOM, available_memory
from trivox.learning.runtime import (
    Runtime,
    free_pinned_memory,
    rank_positions,
    world_size,
)
from trivox.learning.tracking import RunLog
from trivox.memory import free_memory, gigabytes
from trivox.planning.plan import ImagePlan
from trivox.preparation.resident import CaseCache, ForGpu, GpuStore
from trivox.preparation.store import Store
from trivox.tasks.forecast import step_memory
from trivox.tasks.task import Prepared

CHANGING = (200, 40)
"""Bytes a voxel of a batch that augmentation takes on a GPU: of its labels, and of each
channel.
"""
SHARE_OF_HOST = 0.5
"""Of the host's free memory that cases may wait in: pinned memory is nobody else's."""


@dataclass(frozen=True)
class Cases:
    """The cases `names` of a store, and the plan that they are trained with."""

    store: Store
    names: Sequence[str]
    plan: ImagePlan

    def bytes(self, *, half: bool) -> list[int]:
        """What each takes on a GPU: images in half or single precision, labels in a
        byte.
        """
        kind = 2 if half else 4
        return [
            math.prod(self.store.shape(name)) * (self.store.channels(name) * kind + 1)
            for name in self.names
        ]


@dataclass(frozen=True)
class Rooms:
    """Bytes there are for cases: on the GPU, and on the host."""

    gpu: int
    host: int

    def place(self, sizes: Sequence[int]) -> str | None:
        """Where cases of such sizes fit: all on the "gpu", or all on the "host" and the
        two largest on the GPU; None if nowhere.
        """
        if sum(sizes) <= self.gpu:
            return "gpu"
        # torch takes pinned memory in blocks of powers of two
        pinned = sum(1 << (size - 1).bit_length() for size in sizes)
        fits = pinned <= self.host and 2 * max(sizes) <= self.gpu
        return "host" if fits else None


def at_hand(
    prepared: Prepared[Any, Any],
    recipe: Recipe,
    runtime: Runtime,
    split: Split,
    log: RunLog,
) -> Prepared[Any, Any]:
    """Prepared patches as near to a GPU as they fit; others, and those of a CPU, as they
    are. `recipe` has the micro-batch that was chosen.
    """
    store = prepared.store
    if runtime.device.type != "cuda" or not isinstance(store, Store):
        return prepared
    cases = Cases(store, [*split.train, *split.validation], prepared.plan)
    gpu = read_for_gpu(cases, recipe, runtime, log)
    return replace(prepared, store=GpuStore(store.folder, gpu))


def read_for_gpu(cases: Cases, recipe: Recipe, runtime: Runtime, log: RunLog) -> ForGpu:
    """How the patches of cases are to be read for a GPU.

    Raises `ResourceError` if a recipe insists on a cache that does not fit.
    """
    half = runtime.precision != "fp32"
    if recipe.patch_cache == "off":
        return ForGpu(half)
    sizes = cases.bytes(half=half)
    rooms = rooms_beside(cases.plan, recipe, runtime)
    place = rooms.place(sizes)
    total = gigabytes(sum(sizes))
    there = f"{gigabytes(rooms.gpu)} of the GPU and {gigabytes(rooms.host)} of the host"
    if place is None:
        if recipe.patch_cache == "on":
            raise ResourceError(
                f"the prepared cases take {total}, {there} are left for them; set "
                "patch_cache=auto or off"
            )
        log.line(f"patch cache: off, the cases take {total}, {there} are left for them")
        return ForGpu(half)
    where = {"gpu": "on the GPU", "host": f"in pinned memory, {there} are left"}
    log.line(f"patch cache: {len(sizes)} cases, {total}, {where[place]}")
    cache = CaseCache(
        cases.store, runtime.device, rooms.gpu, half=half, backed=place == "host"
    )
    return ForGpu(half, cache)


def rooms_beside(plan: ImagePlan, recipe: Recipe, runtime: Runtime) -> Rooms:
    """What a training step and the augmentation of the next batch leave."""
    batch = len(rank_positions(recipe.batch_size or plan.batch_size))
    micro = recipe.micro_batch if isinstance(recipe.micro_batch, int) else batch
    step = step_memory(plan, recipe, runtime, min(micro, batch)) / HEADROOM
    of_labels, of_a_channel = CHANGING
    voxels = batch * math.prod(plan.patch_size)
    changing = voxels * (of_labels + of_a_channel * len(plan.inputs))
    left = HEADROOM * available_memory(runtime.device) - step - changing
    free_pinned_memory()  # in which the cases of an earlier fold lay
    host = SHARE_OF_HOST * free_memory() / world_size()
    return Rooms(max(0, int(left)), int(host))
