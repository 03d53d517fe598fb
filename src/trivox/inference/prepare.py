"""Prepare: an image on the grid of each member's networks."""

from collections.abc import Sequence

import numpy as np

from trivox.datasets.reading import CroppedCase, crop_volume
from trivox.errors import DataError
from trivox.inference.decide import label_case
from trivox.inference.members import Member
from trivox.preparation.grid import PreparedCase, prepare
from trivox.volumes.volume import Array, Volume


def prepare_image(
    volume: Volume, members: Sequence[Member], *, where: str
) -> tuple[PreparedCase, ...]:
    """The image once for each member, normalised and resampled as its plan says.

    Raises `DataError` for another number of channels, or values that are no numbers.
    """
    plan = members[0].plan
    if volume.channels != len(plan.channels):
        raise DataError(
            f"{where}: {volume.channels} channels found, the model needs "
            f"{len(plan.channels)}: {plan.channels}"
        )
    cropped = crop_volume(volume, None, where=where, orientation=plan.grid.orientation)
    return tuple(_prepared(cropped, member) for member in members)


def _prepared(case: CroppedCase, member: Member) -> PreparedCase:
    if member.previous is None:
        return prepare(case, member.plan)
    before = _found_by(member.previous, case)
    return prepare(case, member.plan, before=before)


def _found_by(member: Member, case: CroppedCase) -> Array:
    """Label indices `(z, y, x)` that a coarser model finds, on the case's grid."""
    prepared = _prepared(case, member)
    slabs = member.windows.slabs(prepared.image)
    labels = label_case(slabs, prepared.record, member.plan.labels, None)
    return labels.transpose(np.argsort(member.plan.axis_order))
