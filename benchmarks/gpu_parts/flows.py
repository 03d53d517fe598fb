"""Steps of each task, reached through the public verbs and watched from outside: what
happens between two steps of the progress that a training shows is one step.

Small drawn data and small networks; a watched training ends with its last step.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import trivox
from case import TARGET, plan_of
from trivox.datasets.phantoms.abdomens import (
    PancreasPhantomSettings,
    write_pancreas_phantoms,
)
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.inference.predictor import Predictor
from trivox.networks.registry import build_network
from trivox.planning.plan import Plan
from trivox.tasks.console import Quiet

PHANTOMS = PhantomSettings(cases=6, shape=(32, 44, 40), label_values=(7, 300))
ABDOMENS = PancreasPhantomSettings(cases=15, shape=(24, 48, 48))
THORAXES = ThoraxSettings(cases=6, size=32)
PATCHES = {"patch_size": (32, 32, 32), "batch_size": 2, "network": "nnunet-plain"}
VOLUMES = {
    **{"patch_size": (32, 32, 32), "batch_size": 2, "network": "xray2ct-tiny"},
    "reconstruction": {"view_counts": (4,), "drop_view": 0.0, "no_views": 0.0},
}
TINY_PATCHES = {**PATCHES, "patch_size": (16, 16, 16), "network": "unet-tiny"}
TINY_VOLUMES = {**VOLUMES, "patch_size": (8, 8, 8)}
WARM = 3
"""Steps until caches are full."""


class EnoughSeenError(Exception):
    """Ends a training once its steps were watched."""


Phase = tuple[int, AbstractContextManager[Any]]
"""How many steps are to run inside of a context."""


@dataclass
class Watch(Quiet):
    """A console that takes the steps of a training through phases, one after the other,
    and then ends it.
    """

    phases: Sequence[Phase]
    said: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(steps for steps, _ in self.phases)

    def say(self, line: str) -> None:
        self.said.append(line)

    def track(
        self, items: Iterable[Any], total: int, what: str, note: object = None
    ) -> Iterator[Any]:
        return self.watched(items) if what.startswith("epoch") else iter(items)

    def watched(self, items: Iterable[Any]) -> Iterator[Any]:
        """Pass the steps of an epoch through."""
        remaining = iter(items)
        for steps, context in self.phases:
            with context:
                for _ in range(steps):
                    yield next(remaining)
                # the last is over when the next is asked for
        raise EnoughSeenError

    def repeat(self, work: Callable[[], object]) -> None:
        """Do something that is no training as often as there are steps."""
        for steps, context in self.phases:
            with context:
                for _ in range(steps):
                    work()


def counted(watching: AbstractContextManager[Any], steps: int) -> Watch:
    """`steps` steps inside of `watching`, once caches are full."""
    return Watch([(WARM, nullcontext()), (steps, watching)])


@dataclass(frozen=True)
class Flow:
    """Something that is done over and over.

    unit: what one time is called; steps: how many times are enough for a mean; run:
    does it, given a folder, a device, a precision, a watch, and whether to be tiny.
    """

    unit: str
    steps: int
    run: Callable[[Path, str, str, Watch, bool], None]


def train(
    write: Callable[[Path], Path],
    settings: Mapping[str, Any],
    folder: Path,
    device: str,
    precision: str,
    watch: Watch,
    *,
    task: str = "segmentation",
) -> None:
    """A training on drawn data, until the watch has seen enough.

    task: "pretraining" for `trivox.pretrain`.
    """
    length = {"iterations_per_epoch": watch.steps + 1}
    asked = {
        "preset": "production",
        "device": device,
        "set": {**settings, **length, "precision": precision},
        "console": watch,
    }
    data = write(folder / "data")
    try:
        if task == "pretraining":
            trivox.pretrain(data, folder / "run", **asked)
        else:
            trivox.train(data, folder / "run", task=task, **asked)
    except EnoughSeenError:
        return
    raise RuntimeError("a training ended before its steps were seen")


def _of_patches(
    write: Callable[[Path], Path],
    task: str,
    folder: Path,
    device: str,
    precision: str,
    watch: Watch,
    tiny: bool,
) -> None:
    settings = TINY_PATCHES if tiny else PATCHES
    train(write, settings, folder, device, precision, watch, task=task)


def _of_volumes(
    folder: Path, device: str, precision: str, watch: Watch, tiny: bool
) -> None:
    write = partial(write_thoraxes, settings=THORAXES)
    settings = TINY_VOLUMES if tiny else VOLUMES
    train(write, settings, folder, device, precision, watch, task="reconstruction")


def write_model(plan: Plan, folder: Path) -> Path:
    """A bundle of a network with random weights."""
    outputs = plan.labels.output_channels
    torch.manual_seed(0)
    network = build_network(
        plan.network, plan.topology, channels=1, outputs=outputs, deep_supervision=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    save_file(network.state_dict(), weights)
    description = LabelDescription(task=plan.task, plan=plan)
    write_bundle(folder / "bundle", description, {"0": weights})
    return folder / "bundle"


def _predictions(
    folder: Path, device: str, precision: str, watch: Watch, tiny: bool
) -> None:
    """Cases of 2 x 3 x 3 windows that are resampled to the plan's spacing and back."""
    size = 16 if tiny else 32
    shape = (3 * size // 2, 2 * size, 2 * size)
    plan = plan_of((size, size, size), shape, 3, 8)
    model = write_model(plan, folder)
    predictor = Predictor.load(model, device=device, precision=precision)
    rng = np.random.default_rng(0)
    image = rng.normal(size=[round(0.8 * n) for n in shape]).astype(np.float32)
    spacing = (TARGET / 0.8,) * 3
    watch.repeat(lambda: predictor.predict_array(image, spacing))


def _phantoms(folder: Path) -> Path:
    return write_phantoms(folder, PHANTOMS)


def _abdomens(folder: Path) -> Path:
    return write_pancreas_phantoms(folder, ABDOMENS)


FLOWS: dict[str, Flow] = {
    "segmentation": Flow("step", 20, partial(_of_patches, _phantoms, "segmentation")),
    "multitask": Flow("step", 20, partial(_of_patches, _abdomens, "multitask")),
    "reconstruction": Flow("step", 4, _of_volumes),
    "pretraining": Flow("step", 20, partial(_of_patches, _phantoms, "pretraining")),
    "prediction": Flow("case", 2, _predictions),
}
