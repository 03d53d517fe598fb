"""Prepare: an image on the grid of each member's networks."""

from collections.abc import Sequence

import numpy as np

from trivox.datasets.reading import CroppedCase, crop_volume
from trivox.errors import DataError
from trivox.inference.decide import label_case
from trivox.inference.engines.room import spared
from trivox.inference.members import Member
from trivox.memory import require_memory
from trivox.planning.describe import sized
from trivox.planning.footprint import prediction_bytes, window_bytes
from trivox.planning.plan import Plan
from trivox.preparation.grid import PreparedCase, prepare, shape_on_grid
from trivox.volumes.volume import Array, Volume


def prepare_image(
    volume: Volume, members: Sequence[Member], *, where: str
) -> tuple[PreparedCase, ...]:
    """The image once for each member, normalised and resampled as its plan says.

    Raises `DataError` for another number of channels, values that are no numbers, or a
    case that would take more memory than there is.
    """
    plan = members[0].plan
    if volume.channels != len(plan.channels):
        raise DataError(
            f"{where}: {volume.channels} channels found, the model needs "
            f"{len(plan.channels)}: {plan.channels}"
        )
    cropped = crop_volume(volume, None, where=where, orientation=plan.grid.orientation)
    for member in members:
        _require_room(cropped, member.plan)
    return tuple(_prepared(cropped, member) for member in members)


def _require_room(case: CroppedCase, plan: Plan) -> None:
    """Raise `DataError` before windows and their sums take more memory than there is."""
    shape = shape_on_grid(case.shape, case.spacing, plan)
    require_memory(
        window_bytes(plan) + prediction_bytes(plan, shape),
        f"windows of {sized(plan.patch_size)} and {sized(shape)} voxels at "
        f"{sized(plan.spacing)} mm",
        "correct the voxel size of the image, crop it, or use a smaller model",
    )


def _prepared(case: CroppedCase, member: Member) -> PreparedCase:
    if member.previous is None:
        return prepare(case, member.plan)
    before = _found_by(member.previous, case)
    return prepare(case, member.plan, before=before)


def _found_by(member: Member, case: CroppedCase) -> Array:
    """Label indices `(z, y, x)` that a coarser model finds, on the case's grid."""
    prepared = _prepared(case, member)

    def decided(lean: bool) -> Array:
        slabs = member.spared(lean).windows.slabs(prepared.image)
        return label_case(slabs, prepared.record, member.plan.labels, None)

    labels = spared(decided, member.windows.device)
    return labels.transpose(np.argsort(member.plan.axis_order))
