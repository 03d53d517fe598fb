"""Steps of our own trainer under a meter: on batches drawn beforehand, and with reading
and augmentation.
"""

import gc
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_parts.flows import EnoughSeenError, Phase, Watch, train
from gpu_parts.meters import Profile, Timing
from gpu_parts.record import Row
from trivox.config.recipe import Recipe, make_recipe
from trivox.datasets.labels import LabelScheme
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.learning.runtime import Runtime, make_runtime, seed_everything
from trivox.learning.tracking import run_log
from trivox.learning.trainer import Trainer
from trivox.networks.registry import build_network, patch_family
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.tasks.labels.objective import SegmentationObjective

CLASSES = 3
REMARKABLE = ("out of memory", "graph")
"""In lines of a training's log: a smaller micro-batch, a step that is no graph."""
MOST_READERS = 12
"""As many as nnU-Net has processes."""


@dataclass(frozen=True)
class Setup:
    """What is trained.

    patch: voxels along an edge.
    """

    network: str = "nnunet-plain"
    patch: int = 128
    batch: int = 2
    channels: int = 1

    @property
    def name(self) -> str:
        size = f"{self.batch} x {self.channels} x {self.patch}^3"
        return f"{self.network} {size}"

    def plan(self) -> Plan:
        """nnU-Net's, for isotropic voxels."""
        edges = (self.patch,) * 3
        topology, patch = patch_family(self.network).shape(edges, (1.0, 1.0, 1.0))
        names = tuple(f"channel {index}" for index in range(self.channels))
        z_score = Normalisation(scheme="z-score")
        return Plan(
            dataset="drawn",
            task="segmentation",
            channels=names,
            labels=LabelScheme(labels={f"organ {i}": i for i in range(1, CLASSES)}),
            normalisations=(z_score,) * self.channels,
            spacing=(1.0, 1.0, 1.0),
            median_shape=patch,
            patch_size=patch,
            batch_size=self.batch,
            batch_dice=False,
            network=self.network,
            topology=topology,
            memory=forecast_memory(
                topology,
                patch,
                batch=self.batch,
                channels=self.channels,
                outputs=CLASSES,
            ),
        )

    def recipe(self, length: int, settings: Mapping[str, Any]) -> Recipe:
        """The production preset."""
        asked = {
            "network": self.network,
            "batch_size": self.batch,
            "iterations_per_epoch": length,
            "workers": 0,
            **settings,
        }
        return make_recipe("production", asked)

    def forecast(self, recipe: Recipe, runtime: Runtime) -> int:
        """Bytes that a step is said to need."""
        plan = self.plan()
        forecast = forecast_memory(
            plan.topology,
            plan.patch_size,
            batch=self.batch,
            channels=self.channels,
            outputs=CLASSES,
            optimizer=recipe.optimizer,
            activation_bytes=runtime.activation_bytes,
        )
        return forecast.total


@dataclass(frozen=True)
class Length:
    """Steps before timing, timed, and under the profiler."""

    warm: int = 8
    timed: int = 24
    profiled: int = 3

    @property
    def all(self) -> int:
        return self.warm + self.timed + self.profiled


TINY = Setup("unet-tiny", patch=16)
TINY_LENGTH = Length(warm=1, timed=2, profiled=1)


@dataclass(frozen=True)
class Drawn:
    """One batch on the device, given at every step."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, setup: Setup, layout: torch.memory_format) -> "Drawn":
        """Noise."""
        patch = setup.plan().patch_size
        images = torch.randn(setup.batch, setup.channels, *patch, device="cuda")
        labels = torch.randint(0, CLASSES, (setup.batch, *patch), device="cuda")
        return cls(images.contiguous(memory_format=layout), labels.to(torch.int16))

    def read(self, step: int) -> "Drawn":
        return self

    def finish(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.images, self.labels


@dataclass(frozen=True)
class Variant:
    """A way to take a step.

    settings: of the recipe; change: what is done to the trainer before it begins.
    """

    name: str = "as it is"
    settings: Mapping[str, Any] = field(default_factory=dict)
    layout: torch.memory_format = torch.contiguous_format
    change: Callable[[Trainer], None] | None = None


def of_drawn_batches(setup: Setup, variant: Variant, length: Length) -> Row:
    """The pure step: nothing is read or augmented."""
    plan = setup.plan()
    recipe = setup.recipe(length.all + 1, variant.settings)
    seed_everything(recipe.seed, deterministic=recipe.deterministic)
    runtime = make_runtime("cuda", recipe.precision)
    network = build_network(
        setup.network, plan.topology, channels=setup.channels, outputs=CLASSES
    )
    meter = Meter(length)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_log(Path(folder), recipe, say=meter.watch.say) as log,
    ):
        trainer = Trainer(
            network=network,
            objective=SegmentationObjective.of(plan, recipe),
            training=Drawn.of(setup, variant.layout),
            validation=None,
            recipe=recipe,
            folder=Path(folder),
            runtime=runtime,
            log=log,
            show_steps=lambda steps, what, note: meter.watch.watched(steps),
        )
        network.to(memory_format=variant.layout)  # type: ignore[call-overload]
        if variant.change is not None:
            variant.change(trainer)
        meter.follow(trainer.fit)
    forecast = setup.forecast(recipe, runtime)
    return {**meter.row(setup.batch), "forecast_bytes": forecast}


def with_reading(setup: Setup, length: Length, *, tiny: bool = False) -> Row:
    """The step as a user has it, from drawn scans on the disk."""
    edge = 5 * setup.patch // 4
    settings = PhantomSettings(
        cases=6,
        shape=(edge,) * 3,
        spacing=(1.0, 1.0, 1.0),
        spacing_variation=0.0,
        channels=setup.channels,
    )
    readers = 1 if tiny else min(MOST_READERS, len(os.sched_getaffinity(0)))
    asked = {
        "network": setup.network,
        "patch_size": (setup.patch,) * 3,
        "batch_size": setup.batch,
        "workers": readers,
    }
    meter = Meter(length)
    write = partial(write_phantoms, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        train(write, asked, Path(folder), "cuda", "auto", meter.watch)
    return {**meter.row(setup.batch), "readers": readers}


class Meter:
    """Takes a training through warming up, timing and profiling."""

    def __init__(self, length: Length) -> None:
        self.length = length
        self.timing = Timing()
        self.profile = Profile()
        self.warming = Stopwatch()
        phases: list[Phase] = [
            (length.warm, self.warming),
            (length.timed, self.timing),
            (length.profiled, self.profile),
        ]
        self.watch = Watch(phases)

    def follow(self, fit: Callable[[], object]) -> None:
        """Train until all is measured."""
        try:
            fit()
        except EnoughSeenError:
            return
        raise RuntimeError("a training ended before its steps were seen")

    def row(self, batch: int) -> dict[str, Any]:
        """What was measured, a step; warm_seconds: of all steps before, compiling and
        choosing of algorithms included.
        """
        return {
            **self.timing.row(self.length.timed, batch),
            **self.profile.row(self.length.profiled),
            "warm_seconds": self.warming.seconds,
            "remarks": self.remarks(),
        }

    def remarks(self) -> str | None:
        """What the training said of doing something else than it was asked to."""
        lines = [
            line
            for line in self.watch.said
            if any(sign in line.lower() for sign in REMARKABLE)
        ]
        return "; ".join(lines) or None


class Stopwatch(nullcontext):
    """Seconds until the GPU is done; what rows before have left is given back first."""

    def __enter__(self) -> "Stopwatch":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.began
