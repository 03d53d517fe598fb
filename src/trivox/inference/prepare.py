"""Prepare: an image on the grid of each member's networks."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.reading import CroppedCase, crop_volume
from trivox.errors import DataError
from trivox.inference.decide import label_case
from trivox.inference.describe import about_image
from trivox.inference.descriptions import LabelDescription
from trivox.inference.engines.room import spared
from trivox.inference.judge import unlike_training
from trivox.inference.members import Member
from trivox.memory import require_memory
from trivox.planning.describe import sized
from trivox.planning.footprint import (
    prediction_bytes,
    preparation_bytes,
    window_bytes,
)
from trivox.planning.plan import Plan
from trivox.preparation.grid import PreparedCase, prepare, shape_on_grid
from trivox.volumes.formats import read_header
from trivox.volumes.volume import Array, Volume, spacing_of

READ_BYTES = 12
"""A voxel of each channel: as it is stored, in float32, and normalised. Less of large
scans (`trivox.volumes.rows`)."""
DETAIL_BYTES = 16
"""A voxel of each output: the sums of votes and their squares, the mean, and where it
is put back.
"""


@dataclass(frozen=True, eq=False)
class Ready:
    """An image on the grid of each member's networks, and what is seen of it without
    them: how it is unlike the training images (None: not known), and warnings.
    """

    cases: tuple[PreparedCase, ...]
    unlike: Sequence[str] | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Begun:
    """A case that was read.

    cropped: where it cannot be made ready without networks; remarks: of its reader; cells:
    what clinical columns say of it.
    """

    cropped: CroppedCase | None
    ready: Ready | None
    remarks: tuple[str, ...]
    seconds: float
    cells: Mapping[str, str] = field(default_factory=dict)

    def made_ready(
        self, members: Sequence[Member], models: Sequence[LabelDescription]
    ) -> Ready:
        """Ready for the networks."""
        if self.ready is not None:
            return self.ready
        assert self.cropped is not None
        return _looked_at(self.cropped, members, models)


def begun_image(
    volume: Volume,
    members: Sequence[Member],
    models: Sequence[LabelDescription],
    *,
    where: str,
) -> Begun:
    """An image made ready as far as that takes no networks; raises as `prepare_image`."""
    started = time.monotonic()
    cropped = _cropped(volume, members, where=where)
    if any(member.previous is not None for member in members):
        seconds = time.monotonic() - started
        return Begun(cropped, None, volume.remarks, seconds)
    ready = _looked_at(cropped, members, models)
    return Begun(None, ready, volume.remarks, time.monotonic() - started)


def _looked_at(
    cropped: CroppedCase, members: Sequence[Member], models: Sequence[LabelDescription]
) -> Ready:
    cases = _on_grids(cropped, members)
    unlike = unlike_training(models, members, cases)
    return Ready(cases, unlike, about_image(cases[0], members[0].plan))


def case_bytes(case: Case, plans: Sequence[Plan], *, detailed: bool) -> float:
    """About how much memory a case takes from its files to its prediction, by its
    headers; detailed: with probabilities.
    """
    headers = [read_header(path, choice=case.choice) for path in case.images]
    voxels = 0.0
    mm3 = 0.0
    for header in headers:
        count = float(math.prod(header.shape))
        voxels = max(voxels, count)
        mm3 = max(mm3, count * math.prod(spacing_of(header.affine)))
    first = plans[0]
    needed = voxels * READ_BYTES * len(first.channels)
    if detailed:
        needed += voxels * DETAIL_BYTES * first.outputs
    for plan in plans:
        on_grid = voxels
        if plan.grid.image is not None:
            on_grid = mm3 / math.prod(plan.spacing)
        shape = (math.ceil(on_grid), 1, 1)
        needed += preparation_bytes(shape, channels=len(plan.inputs))
    return needed


def prepare_image(
    volume: Volume, members: Sequence[Member], *, where: str
) -> tuple[PreparedCase, ...]:
    """The image once for each member, normalised and resampled as its plan says.

    Raises `DataError` for another number of channels, values that are no numbers, or a
    case that would take more memory than there is.
    """
    return _on_grids(_cropped(volume, members, where=where), members)


def _cropped(volume: Volume, members: Sequence[Member], *, where: str) -> CroppedCase:
    """The image cut to what is not zero; raises as `prepare_image`."""
    plan = members[0].plan
    if volume.channels != len(plan.channels):
        raise DataError(
            f"{where}: {volume.channels} channels found, the model needs "
            f"{len(plan.channels)}: {plan.channels}"
        )
    cropped = crop_volume(volume, None, where=where, orientation=plan.grid.orientation)
    for member in members:
        _require_room(cropped, member)
    return cropped


def _on_grids(case: CroppedCase, members: Sequence[Member]) -> tuple[PreparedCase, ...]:
    return tuple(_prepared(case, member) for member in members)


def _require_room(case: CroppedCase, member: Member) -> None:
    """Raise `DataError` before windows and their sums take more memory than there is."""
    plan = member.plan
    shape = shape_on_grid(case.shape, case.spacing, plan)
    summed = member.windows.summed_channels
    require_memory(
        window_bytes(plan) + prediction_bytes(plan, shape, summed=summed),
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
