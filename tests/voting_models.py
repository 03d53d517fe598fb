"""Predictors whose networks need no training, with one vote or several."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from trivox.datasets.labels import LabelScheme
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.inference.doubt.calibration import Abstention
from trivox.inference.doubt.uncertainty import wake_dropout
from trivox.inference.engines.torch import torch_engines
from trivox.inference.members import scaled_spacing
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.learning.runtime import Runtime
from trivox.volumes.volume import Volume

CPU = Runtime(torch.device("cpu"), "fp32")
SCAN, _ = phantom_case(
    PhantomSettings(cases=1, shape=(14, 18, 15), spacing=(2.0, 1.5, 1.5)), 0
)
PADDED = np.zeros((1, 20, 30, 28), np.int16)
PADDED[:, 3:17, 6:24, 8:23] = SCAN.array + 20000  # nowhere zero inside
TURN = np.array(
    [
        [0.0, -1.0, 0.0, 3.0],
        [0.96, 0.0, 0.28, -7.0],
        [-0.28, 0.0, 0.96, 11.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
IMAGE = Volume(PADDED, TURN @ SCAN.affine)
RULE = Abstention(
    threshold=0.4, poor_dice=0.7, rule="", cases=9, poor=1, flagged=1, flagged_poor=1
)
REGIONS = LabelScheme(
    labels={"a": 7, "b": 300},
    regions={"whole": (7, 300), "core": (300,)},
    region_order=(7, 300),
)


class Blurred(nn.Module):
    """Brightness to logits of three classes through a small convolution that knows left
    from right.
    """

    def __init__(self, outputs=3, seed=0, dropout=0.0):
        super().__init__()
        self.convolution = nn.Conv3d(1, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(seed)
        self.convolution.weight.data = (
            torch.randn(self.convolution.weight.shape, generator=generator) * 0.6
        )
        self.convolution.bias.data = torch.linspace(0.5, -0.5, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images):
        return self.convolution(self.dropout(images)) * 2


def replaced(member, order):
    return replace(member, plan=member.plan.model_copy(update={"axis_order": order}))


def voting(
    loaded,
    *members,
    mirror=(),
    plan=None,
    orders=None,
    passes=0,
    seed=0,
    scales=(1.0,),
    **description,
):
    """A predictor like one that was loaded: networks of one member, or of several;
    settings of the bundle by name.
    """
    first = loaded.members[0]
    plan = first.plan.model_copy(update=plan or {})
    changes = {"postprocessing": Postprocessing(), **description}
    model = loaded.descriptions[0].model_copy(update=changes)
    made = []
    for networks in members:
        windows = replace(
            first.windows,
            engines=torch_engines([network.eval() for network in networks], CPU),
            mirror_axes=mirror,
            outputs=plan.labels.output_channels,
        )
        for scale in scales:
            spacing = scaled_spacing(plan, scale)
            member = replace(
                first,
                plan=plan.model_copy(update={"spacing": spacing}),
                passes=passes,
                windows=windows,
                temperature=description.get("temperature", 1.0),
            )
            made.append(member)
    if orders:
        made = [replaced(m, order) for m, order in zip(made, orders, strict=True)]
    return Predictor((model,) * len(members), tuple(made), tuple(scales), seed)


def dropping(seed=0):
    network = Blurred(dropout=0.3, seed=seed).eval()
    # `voting` must not silence it by eval()
    wake = type("Awake", (Blurred,), {"eval": lambda self: self})
    network.__class__ = wake
    wake_dropout(network)
    return network


SETUPS = {
    "one vote": ([[Blurred()]], {}),
    "folds": ([[Blurred(), Blurred(seed=1)]], {}),
    "mirrored": ([[Blurred()]], {"mirror": (1, 2)}),
    "scales": ([[Blurred()]], {"scales": (0.8, 1.0, 1.25)}),
    "models": ([[Blurred()], [Blurred(seed=1), Blurred(seed=2)]], {}),
    "dropout": ([[dropping()]], {"passes": 3}),
    "regions": ([[Blurred(2), Blurred(2, seed=1)]], {"plan": {"labels": REGIONS}}),
    "two regions models": (
        [[Blurred(2)], [Blurred(2, seed=1)]],
        {"plan": {"labels": REGIONS}},
    ),
    "turned": ([[Blurred()]], {"plan": {"axis_order": (2, 0, 1)}}),
    "other axes": (
        [[Blurred()], [Blurred(seed=1)]],
        {"orders": ((0, 1, 2), (2, 0, 1))},
    ),
}
ALONE = ("one vote", "turned")
SEVERAL = [name for name in SETUPS if name not in ALONE]


def made(predictor, setup, **changes):
    members, settings = SETUPS[setup]
    return predictor(*members, **{**settings, **changes})
