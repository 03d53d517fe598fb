"""clDice: overlap of centre lines, for vessels, airways and nerves (Shit et al. 2021).

Soft erosion is a minimum over the 6-neighbourhood along the axes, soft dilation a
maximum over the 27-neighbourhood, as in the authors' code; the skeleton collects what
opening removes, one erosion after the other.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trivox.learning.losses.targets import SMOOTH, differentiable_sum, masks


def cl_dice(
    logits: Tensor,
    labels: Tensor,
    *,
    iterations: int = 10,
    regions: Tensor | None = None,
    batch: bool = False,
) -> Tensor:
    """`1 - 2 P S / (P + S)`, mean over targets.

    P is the share of the predicted skeleton that lies in the label, S the share of the
    label's skeleton that is predicted. iterations: at least the radius of the thickest
    tube in voxels. Best beside an overlap loss, which alone sees how thick a tube is.
    """
    probability, target = masks(logits, labels, regions)
    truth = target.to(probability.dtype)
    with torch.no_grad():
        true_skeleton = soft_skeleton(truth, iterations)
    skeleton = soft_skeleton(probability, iterations)
    parts = (skeleton * truth, skeleton, true_skeleton * probability, true_skeleton)
    sums = [part.flatten(2).sum(2) for part in parts]
    if batch:
        sums = [differentiable_sum(part.sum(0, keepdim=True)) for part in sums]
    in_label, predicted, covered, true = sums
    precision = (in_label + SMOOTH) / (predicted + SMOOTH)
    sensitivity = (covered + SMOOTH) / (true + SMOOTH)
    return 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()


def soft_skeleton(image: Tensor, iterations: int) -> Tensor:
    """Soft skeleton of values in [0, 1], `(b, c, z, y, x)`; exact for masks up to
    `iterations` voxels of radius.
    """
    skeleton = torch.zeros_like(image)
    for _ in range(iterations + 1):
        if image.requires_grad:  # keep two images an iteration instead of a dozen
            image, skeleton = checkpoint(
                _thinned, image, skeleton, use_reentrant=False, preserve_rng_state=False
            )
        else:
            image, skeleton = _thinned(image, skeleton)
    return skeleton


def _thinned(image: Tensor, skeleton: Tensor) -> tuple[Tensor, Tensor]:
    """The image eroded once, and the skeleton with what opening the image would remove."""
    eroded = torch.minimum(
        torch.minimum(_smallest(image, 2), _smallest(image, 3)), _smallest(image, 4)
    )
    opened = _largest(_largest(_largest(eroded, 2), 3), 4)
    ridge = F.relu(image - opened)
    return eroded, skeleton + F.relu(ridge - skeleton * ridge)


def _largest(image: Tensor, axis: int) -> Tensor:
    result: Tensor = _Extreme.apply(image, axis, torch.maximum)
    return result


def _smallest(image: Tensor, axis: int) -> Tensor:
    result: Tensor = _Extreme.apply(image, axis, torch.minimum)
    return result


class _Extreme(torch.autograd.Function):
    """Largest or smallest of three neighbours along an axis, by shifted views; the
    gradient goes to the first of equals.

    Value and gradient of `max_pool3d`, which visits every window by itself and keeps
    indices: slower on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, axis: int, choose: Callable[..., Tensor]
    ) -> Tensor:
        ctx.axis = axis
        pairs = image.shape[axis] - 1
        result = image.clone()
        low = result.narrow(axis, 0, pairs)
        high = result.narrow(axis, 1, pairs)
        choose(high, image.narrow(axis, 0, pairs), out=high)
        choose(low, image.narrow(axis, 1, pairs), out=low)
        ctx.save_for_backward(image, result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        image, result = ctx.saved_tensors
        axis = ctx.axis
        pairs = image.shape[axis] - 1
        # where the neighbour before was chosen, the voxel itself, the neighbour after
        before = image.narrow(axis, 0, pairs) == result.narrow(axis, 1, pairs)
        itself = image == result
        itself.narrow(axis, 1, pairs).logical_and_(~before)
        after = ~itself.narrow(axis, 0, pairs)
        if pairs > 1:
            not_before = ~before.narrow(axis, 0, pairs - 1)
            after.narrow(axis, 1, pairs - 1).logical_and_(not_before)
        total = gradient * itself
        total.narrow(axis, 0, pairs).add_(gradient.narrow(axis, 1, pairs) * before)
        total.narrow(axis, 1, pairs).add_(gradient.narrow(axis, 0, pairs) * after)
        return total, None, None
