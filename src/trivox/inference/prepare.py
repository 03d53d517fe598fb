"""Prepare: an image on the grid of each member's networks."""

from collections.abc import Sequence

from trivox.datasets.reading import CroppedCase, crop_volume
from trivox.errors import DataError
from trivox.inference.members import Member
from trivox.memory import require_memory
from trivox.planning.describe import sized
from trivox.planning.footprint import prediction_bytes, window_bytes
from trivox.planning.plan import Plan
from trivox.preparation.grid import PreparedCase, prepare, shape_on_grid
from trivox.volumes.volume import Volume


def prepare_image(
    volume: Volume, members: Sequence[Member], *, where: str
) -> tuple[PreparedCase, ...]:
    """The image once for each member, normalised and resampled as its plan says.

    Raises `DataError` for another number of channels, values that are no numbers, or a
    case that would take more memory than there is.
    """
    channels = members[0].plan.channels
    if volume.channels != len(channels):
        raise DataError(
            f"{where}: {volume.channels} channels found, the model needs "
            f"{len(channels)}: {channels}"
        )
    cropped = crop_volume(volume, None, where=where)
    for member in members:
        _require_room(cropped, member.plan)
    return tuple(prepare(cropped, member.plan) for member in members)


def _require_room(case: CroppedCase, plan: Plan) -> None:
    """Raise `DataError` before windows and their sums take more memory than there is."""
    shape = shape_on_grid(case.shape, case.spacing, plan)
    require_memory(
        window_bytes(plan) + prediction_bytes(plan, shape),
        f"windows of {sized(plan.patch_size)} and {sized(shape)} voxels at "
        f"{sized(plan.spacing)} mm",
        "correct the voxel size of the image, crop it, or use a smaller model",
    )
