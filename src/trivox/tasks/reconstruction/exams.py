"""X-ray exams ready to train on."""

import torch
from torch import Tensor

from trivox.planning.volumes import VolumePlan
from trivox.preparation.exam_batches import coarser
from trivox.preparation.exam_store import ExamStore
from trivox.tasks.task import Prepared

PreparedExams = Prepared[VolumePlan, ExamStore]


def reference_volume(exams: PreparedExams, name: str) -> Tensor:
    """The CT of an exam on the network's grid, `(z, y, x)` HU."""
    stored = torch.from_numpy(exams.store.volume(name))[None].float()
    volume: Tensor = coarser(stored, exams.plan)[0, 0]
    return volume
