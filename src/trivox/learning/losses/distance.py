"""Losses that weigh mistakes by their distance to the surface: boundary and Hausdorff.

Distances are Euclidean, in voxels of the output's own grid (not mm), from scipy's exact
transform on the CPU, one mask at a time; they carry no gradient. A mask that is empty
or fills its crop has no surface: its distances are 0. In a step on a GPU each of these
losses waits once, for its masks, and the GPU waits while distances are measured.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from trivox.learning.losses.targets import masks
from trivox.uploads import sent
from trivox.volumes.volume import Array


def boundary(
    logits: Tensor, labels: Tensor, *, regions: Tensor | None = None
) -> Tensor:
    """Mean of `p d` over labelled voxels and targets; d is the signed distance,
    negative inside (Kervadec et al. 2019).

    A term beside a region loss, never alone: empty predictions are one of its minima.
    It is below 0 for a good prediction, and of the size of distances: begin with a
    weight of about 0.01.
    """
    probability, target = masks(logits, labels, regions)
    distance = _each(_signed_distance, target, probability)
    return _mean(probability * distance, labels)


def hausdorff(
    logits: Tensor, labels: Tensor, *, power: float = 2.0, regions: Tensor | None = None
) -> Tensor:
    """Mean of `(p - y)^2 (d_y^power + d_p^power)`, d: distance to the surface of label
    and prediction (p > 0.5).

    Karimi & Salcudean 2019, whose power is 2. Of the size of squared distances: weigh
    it down beside other terms.
    """
    probability, target = masks(logits, labels, regions)
    predicted = probability.detach() > 0.5
    both = torch.stack((target, predicted))
    to_label, to_prediction = _each(_distance, both, probability)
    weight = to_label.pow(power) + to_prediction.pow(power)
    error = probability - target.to(probability.dtype)
    return _mean(error.square() * weight, labels)


def _mean(values: Tensor, labels: Tensor) -> Tensor:
    """Over labelled voxels and targets; `values` are 0 where ignored."""
    labelled = (labels >= 0).sum()
    count = labelled * values.shape[1]
    return values.sum() / count.clamp(min=1)


def _each(measure: Callable[[Array], Array], mask: Tensor, like: Tensor) -> Tensor:
    """`measure` of every mask of the boolean `(..., z, y, x)`, on the device of `like`."""
    fields = np.zeros(mask.shape, np.float32)
    whole = mask.cpu().numpy()
    for at in np.ndindex(*mask.shape[:-3]):
        one = whole[at]
        if one.any() and not one.all():
            fields[at] = measure(one)
    return sent(torch.from_numpy(fields), like.device).to(like.dtype)


def _signed_distance(mask: Array) -> Array:
    """0 on the outermost voxels inside, -1 on the next; 1 on the first voxels outside."""
    outside = distance_transform_edt(~mask)
    inside = np.maximum(_depth(mask) - 1, 0)
    return np.asarray(outside - inside)


def _distance(mask: Array) -> Array:
    return np.asarray(distance_transform_edt(~mask) + _depth(mask))


def _depth(mask: Array) -> Array:
    """Distance to the nearest voxel outside, measured in the box of the mask and one
    voxel around it, which holds it.
    """
    sides = find_objects(mask.view(np.uint8))[0]
    box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in sides)
    depth = np.zeros(mask.shape)
    depth[box] = distance_transform_edt(mask[box])
    return depth
