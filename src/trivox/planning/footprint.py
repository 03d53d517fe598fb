"""Memory that a case takes on its way through the network's grid, in bytes; pure
arithmetic.
"""

import math
from collections.abc import Sequence

from trivox.planning.plan import ImagePlan, Plan
from trivox.planning.volumes import VolumePlan
from trivox.volumes.volume import Shape

IMAGE_BYTES = 12
"""A voxel of each channel: the image in float32, and twice as much while it is
resampled.
"""
LABEL_BYTES = 16
"""A voxel: label indices, and the votes while they are resampled."""

NARROWEST = 16
"""Features at full resolution of the narrowest network that makes volumes."""


def preparation_bytes(shape: Shape, *, channels: int) -> int:
    """Of an image of `channels` and its label map that become `shape` voxels."""
    voxels = math.prod(shape)
    image = IMAGE_BYTES * channels * voxels
    label = LABEL_BYTES * voxels
    return image + label


def window_bytes(plan: ImagePlan) -> int:
    """At least, of one window in a network at prediction: two maps of its first stage
    and the outputs, in 16 bits.
    """
    voxels = math.prod(plan.patch_size)
    first, *_ = plan.topology.features
    maps = 2 * first + plan.outputs
    return 2 * maps * voxels


def prediction_bytes(plan: Plan, shape: Shape, *, summed: int) -> int:
    """Of predicting a case of `shape` voxels: its image, and a patch's depth of the
    `summed` channels, twice.
    """
    padded = padded_shape(shape, plan.patch_size)
    depth, *_ = plan.patch_size
    _, height, width = padded
    image = 4 * len(plan.inputs) * math.prod(padded)
    rows = 4 * summed * depth * height * width
    return image + 2 * rows


def padded_shape(shape: Shape, patch: Sequence[int]) -> Shape:
    """At least as large as a patch along each axis."""
    pairs = zip(shape, patch, strict=True)
    z, y, x = (max(pair) for pair in pairs)
    return z, y, x


def rendering_bytes(plan: VolumePlan) -> int:
    """Of a CT on the grid that X-rays are rendered from, and twice as much while it is
    resampled.
    """
    voxels = math.prod(plan.render_shape)
    return IMAGE_BYTES * voxels


def volume_bytes(plan: VolumePlan, *, volumes: int = 1) -> int:
    """At least, of computing volumes: two maps of the narrowest network's last stage,
    in 16 bits.
    """
    voxels = volumes * math.prod(plan.shape)
    maps = 2 * NARROWEST
    return 2 * maps * voxels
