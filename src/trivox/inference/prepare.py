"""Prepare: an image on the grid of each member's networks."""

from collections.abc import Sequence

from trivox.datasets.reading import crop_volume
from trivox.errors import DataError
from trivox.inference.members import Member
from trivox.preparation.grid import PreparedCase, prepare
from trivox.volumes.volume import Volume


def prepare_image(
    volume: Volume, members: Sequence[Member], *, where: str
) -> tuple[PreparedCase, ...]:
    """The image once for each member, normalised and resampled as its plan says.

    Raises `DataError` for another number of channels, or values that are no numbers.
    """
    channels = members[0].plan.channels
    if volume.channels != len(channels):
        raise DataError(
            f"{where}: {volume.channels} channels found, the model needs "
            f"{len(channels)}: {channels}"
        )
    cropped = crop_volume(volume, None, where=where)
    return tuple(prepare(cropped, member.plan) for member in members)
