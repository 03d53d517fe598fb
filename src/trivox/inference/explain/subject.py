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
from trivox.inference.members import Member
from trivox.inference.predictor import Predictor
from trivox.planning.plan import Plan
from trivox.preparation.grid import PreparedCase
from trivox.volumes.volume import Array, Shape, Spacing

GIVEN = "as given"
PREDICTED = "the middle of the predicted foreground"
NOTHING = "the middle of the image (nothing is predicted)"
"""Why a point was chosen."""


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
        if self.plan.labels.exclusive:
            names = ["background", *names]
        return names[self.channel]

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
    predictor: Predictor,
    case: PreparedCase,
    point: Shape | None,
    *,
    where: str,
) -> Subject:
    """The window of a prepared case around source voxel `point`, or around the middle
    of what the model predicts.

    With a point its own logit is explained, else that of all voxels of the window with
    the label at the middle.
    """
    member = predictor.members[0]
    plan = member.plan
    exclusive = plan.labels.exclusive
    engine = member.windows.engines[0]
    assert isinstance(engine, TorchEngine), "only torch shows what a network looks at"
    centre, chosen = _centre(member, case, point, where=where)
    image = case.image.to(engine.device)
    window = window_around(image, plan.patch_size, centre)
    logits = window_logits(engine.network, window)
    at = logits[(slice(None), *window.point)]
    predicted = chosen == PREDICTED
    channel = int(at[1:].argmax()) + 1 if predicted and exclusive else int(at.argmax())
    whole = predicted and bool(label_masks(logits, exclusive=exclusive)[channel].any())
    return Subject(
        network=engine.network,
        plan=plan,
        window=window,
        logits=logits,
        channel=channel,
        chosen=chosen,
        over="label" if whole else "voxel",
    )


def _centre(
    member: Member, case: PreparedCase, point: Shape | None, *, where: str
) -> tuple[Shape, str]:
    """The voxel of the network's grid that the window lies around, and why."""
    if point is not None:
        return grid_voxel(case.record, point, where=where), GIVEN
    exclusive = member.plan.labels.exclusive
    mask = foreground(member.windows, case.image, exclusive=exclusive)
    centre = central_voxel(mask)
    if centre is not None:
        return centre, PREDICTED
    z, y, x = (n // 2 for n in case.record.shape)
    return (z, y, x), NOTHING
