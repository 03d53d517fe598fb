"""A training of milliseconds for the tests of the loop: batches, networks and
objectives that can be told to misbehave.
"""

import os
import signal
from dataclasses import dataclass, field

import torch
from torch import nn

from trivox.config.recipe import make_recipe
from trivox.datasets.labels import LabelScheme
from trivox.learning.losses.choice import LossSetup, make_loss
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime
from trivox.learning.tracking import RunLog, read_records
from trivox.learning.trainer import Trainer
from trivox.preparation.batches import RawBatch
from trivox.tasks.labels.objective import SegmentationObjective

CPU = Runtime(torch.device("cpu"), "fp32")
OUT_OF_MEMORY = torch.OutOfMemoryError("Tried to allocate 1 EiB")
SCHEME = LabelScheme(labels={"ball": 1})
RECIPE = {
    "epochs": 2,
    "iterations_per_epoch": 4,
    "validation_iterations": 2,
    "workers": 0,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "deep_supervision": False,
    "batch_size": 4,
}


@dataclass
class Toy:
    """Batches as a function of the step: the label is where the image is bright."""

    seed: int = 0
    batch: int = 4
    on_read: dict = field(default_factory=dict)
    reads: list = field(default_factory=list)

    def read(self, step):
        self.reads.append(step)
        if step in self.on_read:
            self.on_read[step]()
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        labels = (torch.rand(self.batch, 4, 5, 6, generator=generator) < 0.3).to(
            torch.int16
        )
        images = labels[:, None] + 0.3 * torch.randn(
            self.batch, 1, 4, 5, 6, generator=generator
        )
        return RawBatch(
            plain=(images, labels), boxed=None, warped=[], spatial=[], intensity=[]
        )


class Net(nn.Module):
    """Small, and able to fail like a full device."""

    def __init__(self, most=99, error=OUT_OF_MEMORY):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 2, 1)
        )
        self.most = most
        self.error = error
        self.sizes = []

    def forward(self, images):
        if self.training:
            self.sizes.append(len(images))
            if len(images) > self.most:
                raise self.error
        return self.body(images)


class Fixed(nn.Module):
    """Logits that follow the image's brightness times `sign`; the parameter only keeps
    the optimizer content.
    """

    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return (
            torch.cat([torch.zeros_like(images), self.sign * (images - 0.5)], 1)
            + 0 * self.unused
        )


class Scripted(Objective):
    """An objective whose validation Dice is given for each epoch."""

    headlines = ("validation_dice",)

    def __init__(self, dices):
        self.dices = iter(dices)

    def loss(self, outputs, labels):
        return outputs.square().mean()

    def count(self, outputs, labels):
        return torch.zeros(1)

    def score(self, counts):
        return {"validation_dice": next(self.dices)}


def segmentation():
    criterion = make_loss({"dice": 1.0, "cross_entropy": 1.0}, LossSetup())
    return SegmentationObjective(
        SCHEME, criterion, torch.from_numpy(SCHEME.region_table())
    )


def make(
    folder,
    *,
    network=None,
    objective=None,
    source=None,
    validation=True,
    lines=None,
    runtime=CPU,
    **settings,
):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [] if lines is None else lines
    return Trainer(
        network=network or Net(),
        objective=objective or segmentation(),
        training=source or Toy(),
        validation=Toy(seed=7) if validation else None,
        recipe=make_recipe("production", {**RECIPE, **settings}),
        folder=folder,
        runtime=runtime,
        log=RunLog(folder, say=lines.append),
    )


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(first, second, *, tolerance=0.0):
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=0, atol=tolerance), name


def epochs_of(folder):
    return [r for r in read_records(folder / "metrics.jsonl") if r["kind"] == "epoch"]
