"""What the losses share: precision, targets, and the soft sums that overlap losses are
made of.

Logits are `(b, c, z, y, x)`, label indices `(b, z, y, x)`; a negative index is ignored.
Without `regions` the classes are exclusive (softmax, class 0 is background, which
overlap losses leave out as nnU-Net does); with a membership table `(region, index)`
each channel is a region of its own (sigmoid).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trivox.learning.runtime import sum_over_ranks, world_size
from trivox.uploads import on_device

SMOOTH = 1e-5
"""Added to both sides of an overlap ratio: an empty target that is predicted empty
costs nothing.
"""
NARROW = 1e-30
"""Less than any two values of a volume differ by, and more than fp32's smallest."""
REDUCTIONS = {"none": 0, "mean": 1}
"""As torch's kernels count them."""


def full_precision(logits: Tensor) -> Tensor:
    """Logits of half precision as fp32; sums over a million voxels need it."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def absolute_difference(
    one: Tensor, other: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """|one - other| of each value, or the mean (`reduction`: "none", "mean").

    torch's own takes a kernel for each of its operations, and three more for the
    gradient; its smooth one, which is the same where no difference lies within its
    width, takes one for either.
    """
    difference: Tensor = _AbsoluteDifference.apply(one, other, REDUCTIONS[reduction])
    return difference


class _AbsoluteDifference(torch.autograd.Function):
    """The kernel of the gradient writes to memory that none has filled before."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor, reduction: int) -> Tensor:
        ctx.save_for_backward(one, other)
        ctx.reduction = reduction
        value: Tensor = torch.ops.aten.smooth_l1_loss(one, other, reduction, NARROW)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        one, other = ctx.saved_tensors
        of_one = torch.empty_like(one)
        torch.ops.aten.smooth_l1_loss_backward.grad_input(
            gradients[0], one, other, ctx.reduction, NARROW, grad_input=of_one
        )
        return of_one, -of_one if ctx.needs_input_grad[1] else None, None


class _DifferentiableSum(torch.autograd.Function):
    """Sum over ranks; the gradient is scaled by their number, since DDP averages what
    all ranks compute.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return sum_over_ranks(value.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * world_size()


def differentiable_sum(value: Tensor) -> Tensor:
    """Sum over ranks that gradients pass through."""
    total: Tensor = _DifferentiableSum.apply(value)
    return total


def region_targets(labels: Tensor, regions: Tensor) -> Tensor:
    """Boolean `(b, region, z, y, x)` from indices `(b, z, y, x)`; ignored voxels belong
    to no region.
    """
    of_index = on_device(regions, labels.device).T
    inside = of_index[labels.clamp(min=0).long()]  # (b, z, y, x, region)
    return (inside & (labels >= 0)[..., None]).movedim(-1, 1)


def class_targets(labels: Tensor, classes: int) -> Tensor:
    """Boolean `(b, classes - 1, z, y, x)`: one mask for each class but the background."""
    indices = torch.arange(1, classes, device=labels.device)
    return labels[:, None] == indices.view(-1, 1, 1, 1)


def masks(
    logits: Tensor, labels: Tensor, regions: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Probabilities and boolean targets of what is segmented, both `(b, target, z, y,
    x)` and zero where ignored.
    """
    valid = (labels >= 0)[:, None]
    logits = full_precision(logits)
    if regions is not None:
        return logits.sigmoid() * valid, region_targets(labels, regions)
    return logits.softmax(1)[:, 1:] * valid, class_targets(labels, logits.shape[1])


class SoftCounts(NamedTuple):
    """Sums over voxels, `(b, target)`, or `(1, target)` over the batch of all ranks."""

    overlap: Tensor
    """sum(p y): true positives."""
    mass: Tensor
    """sum(p)."""
    size: Tensor
    """sum(y)."""


def soft_counts(
    logits: Tensor, labels: Tensor, *, regions: Tensor | None, batch: bool
) -> SoftCounts:
    """True positives, predicted and labelled mass of each target; `batch` pools them
    over the batch and all ranks.
    """
    if regions is None:
        parts = _class_counts(logits, labels)
    else:
        parts = _region_counts(logits, labels, regions)
    if batch:
        parts = tuple(differentiable_sum(part.sum(0, keepdim=True)) for part in parts)
    return SoftCounts(*parts)


def _class_counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    probability = full_precision(logits).softmax(1).flatten(2)  # (b, c, n)
    valid = (labels.flatten(1) >= 0).to(probability.dtype)  # (b, n)
    index = labels.flatten(1).clamp(min=0).long()
    picked = probability.gather(1, index[:, None])[:, 0] * valid
    classes = probability.shape[1]
    overlap = sums_by_class(picked, index, classes)
    size = sums_by_class(valid, index, classes)
    mass = torch.einsum("bcn,bn->bc", probability, valid)
    return overlap[:, 1:], mass[:, 1:], size[:, 1:]


def _region_counts(
    logits: Tensor, labels: Tensor, regions: Tensor
) -> tuple[Tensor, ...]:
    probability, target = masks(logits, labels, regions)
    return (
        (probability * target).flatten(2).sum(2),
        probability.flatten(2).sum(2),
        target.flatten(2).sum(2).to(probability),
    )


def sums_by_class(values: Tensor, index: Tensor, classes: int) -> Tensor:
    """Sums `(b, c)` of the values `(b, n)` whose index `(b, n)` is each class.

    A CPU adds them where they belong. A GPU, whose threads would queue for the few
    sums, writes them into a row for each class first.
    """
    if values.device.type == "cpu":
        return values.new_zeros(len(values), classes).scatter_add(1, index, values)
    rows = values.new_zeros(len(values), classes, values.shape[1])
    return rows.scatter_(1, index[:, None], values[:, None]).sum(2)


def complete(valid: Tensor) -> bool:
    """Whether no voxel is ignored, which saves a pass; False on a GPU, which a look at
    the answer would make wait.
    """
    return valid.device.type == "cpu" and bool(valid.all())


def taking_part(output: Tensor) -> Tensor:
    """0, with gradient zero for all that an output was computed from: DDP waits for
    every parameter, also of a head that has no weight in the loss.
    """
    nothing: Tensor = _TakingPart.apply(output)
    return nothing


class _TakingPart(torch.autograd.Function):
    """Nothing is computed of the output: a sum of all would overflow in fp16."""

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        ctx.output = output.shape, output.dtype
        return output.new_zeros((), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        shape, dtype = ctx.output
        return gradients[0].new_zeros(shape, dtype=dtype)
