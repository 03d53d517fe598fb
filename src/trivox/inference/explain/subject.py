"""What is explained: one network of a model, the window of a case that it saw, and
which of its outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from trivox.inference.engines.torch import TorchEngine
from trivox.inference.explain.window import (
    Window,
    central_voxel,
    foreground,
    grid_voxel,
    label_masks,
    window_around,
    window_logits,
)
from trivox.inference.predictor import Predictor
from trivox.planning.plan import Plan
from trivox.preparation.grid import PreparedCase
from trivox.volumes.volume import Array, Shape, Spacing


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, the window that it saw, and what it predicted there.

    channel: the output that is explained, over all voxels of its label or at the point
    alone; chosen: why this point.
    """

    network: nn.Module
    plan: Plan
    window: Window
    logits: Tensor
    channel: int
    chosen: str
    over: Literal["label", "voxel"]

    @property
    def masks(self) -> Tensor:
        """Where each output channel is predicted, `(outputs, z, y, x)`."""
        return label_masks(self.logits, exclusive=self.plan.labels.exclusive)

    @property
    def label(self) -> str:
        """Name of the output that is explained."""
        names = list(self.plan.labels.targets)
        return (["background", *names] if self.plan.labels.exclusive else names)[
            self.channel
        ]

    @property
    def target(self) -> Tensor:
        """Output voxels whose logits are explained, bool `(outputs, z, y, x)`: of the
        label, or the point alone.
        """
        wanted = torch.zeros_like(self.masks)
        if self.over == "label":
            wanted[self.channel] = self.masks[self.channel]
        else:
            wanted[(self.channel, *self.window.point)] = True
        return wanted

    def canonical(self, array: Array) -> Array:
        """`(z, y, x)` of the network's grid with its axes in canonical order."""
        return array.transpose(np.argsort(self.plan.axis_order))

    def ordered(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Three values of the network's grid in canonical order."""
        z, y, x = (values[int(axis)] for axis in np.argsort(self.plan.axis_order))
        return z, y, x

    def reduction(self, stage: int) -> Shape:
        """Voxels of the window along each axis that one of a stage stands for."""
        z, y, x = np.prod(self.plan.topology.strides[: stage + 1], axis=0).tolist()
        return z, y, x

    def voxel_mm(self, stage: int) -> Spacing:
        """Size of a stage's voxel in mm on the network's axes."""
        z, y, x = (
            r * s for r, s in zip(self.reduction(stage), self.plan.spacing, strict=True)
        )
        return z, y, x


def choose_subject(
    predictor: Predictor, prepared: PreparedCase, point: Shape | None, *, where: str
) -> Subject:
    """The window of a prepared case around source voxel `point`, or around the middle
    of what the model predicts.

    With a point its own logit is explained, else that of all voxels of the window with
    the label at the middle.
    """
    member = predictor.members[0]
    plan, exclusive = member.plan, member.plan.labels.exclusive
    centre, chosen = None, "as given"
    if point is not None:
        centre = grid_voxel(prepared.record, point, where=where)
    else:
        centre = central_voxel(
            foreground(member.windows, prepared.image, exclusive=exclusive)
        )
        chosen = "the middle of the predicted foreground"
    predicted = centre is not None and point is None
    if centre is None:
        z, y, x = (n // 2 for n in prepared.record.shape)
        centre, chosen = (z, y, x), "the middle of the image (nothing is predicted)"
    engine = member.windows.engines[0]
    assert isinstance(engine, TorchEngine), "only torch shows what a network looks at"
    network = engine.network
    window = window_around(prepared.image.to(engine.device), plan.patch_size, centre)
    logits = window_logits(network, window)
    at = logits[(slice(None), *window.point)]
    channel = int(at[1:].argmax()) + 1 if predicted and exclusive else int(at.argmax())
    whole = predicted and bool(label_masks(logits, exclusive=exclusive)[channel].any())
    return Subject(
        network, plan, window, logits, channel, chosen, "label" if whole else "voxel"
    )
