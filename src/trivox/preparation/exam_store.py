"""Prepared X-ray exams on disk: the CT on the grid that X-rays are rendered from, and
the views as they were taken.

`NAME.volume.b2nd` `(z, y, x)` int16 HU, `NAME.views.b2nd` `(v, rows, columns)` float32
line integrals, and `NAME.json` with the geometry, which is written last: an exam
without it is not there.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.exams import Exam, read_exam
from trivox.files import read_json, remove_leftovers, write_json
from trivox.planning.volumes import VolumePlan
from trivox.preparation.arrays import open_array, write_array
from trivox.preparation.preprocess import ShowNames, for_every_case, unseen
from trivox.preparation.store import undamaged
from trivox.projection.geometry import Geometry
from trivox.projection.geometry_files import read_record, record_of, write_record
from trivox.projection.grids import on_grid
from trivox.projection.xrays import Xrays
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Array

KEY = "preparation-key.json"
KINDS = {"volume": "int16", "views": "float32"}
"""Numbers of the arrays."""


class ExamStore:
    """A folder of prepared exams made under one preparation key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Whether an exam is complete."""
        return (self.folder / f"{name}.json").exists()

    def clear(self) -> None:
        """Remove all exams and the key, and nothing else that may lie in the folder."""
        (self.folder / KEY).unlink(missing_ok=True)
        for volume in self.folder.glob("*.volume.b2nd"):
            name = volume.name.removesuffix(".volume.b2nd")
            for suffix in (".json", ".views.b2nd", ".volume.b2nd"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def write(self, name: str, volume: Array, views: Array, geometry: Geometry) -> None:
        """Write an exam atomically: arrays first, `NAME.json` last."""
        write_array(self.folder / f"{name}.volume.b2nd", volume)
        write_array(self.folder / f"{name}.views.b2nd", views)
        write_record(self.folder / f"{name}.json", record_of(geometry))

    def volume(self, name: str) -> Array:
        """The CT on the rendering grid, `(z, y, x)` int16 HU."""
        return self._read(name, "volume")

    def views(self, name: str) -> Xrays:
        """The views as they were taken, a batch of one."""
        images = torch.from_numpy(self._read(name, "views"))
        geometry = read_record(self.folder / f"{name}.json").geometry
        return Xrays.of(images[None], geometry)

    def _read(self, name: str, what: str) -> Array:
        file = self.folder / f"{name}.{what}.b2nd"
        with undamaged(self.folder, name):
            array: Array = open_array(file)[:]
            if array.ndim != 3 or array.dtype != KINDS[what]:
                raise ValueError(f"{what} is of size {array.shape}, {array.dtype}")
        return array


def prepare_exams(
    dataset: Dataset,
    plan: VolumePlan,
    folder: Path,
    *,
    workers: int = 2,
    progress: ShowNames = unseen,
) -> ExamStore:
    """Prepare every training case under `folder`; finished ones of the same plan are
    kept, others are removed.

    Raises `DataError` naming the cases that failed, after the others are done.
    """
    store = ExamStore(folder)
    if (folder / KEY).exists() and read_json(folder / KEY) != plan.preparation_key:
        store.clear()
    write_json(folder / KEY, plan.preparation_key)
    remove_leftovers(folder)
    todo = [case for case in dataset.training_cases if not store.has(case.name)]
    prepare_one = partial(_prepare_one, plan=plan, store=store)
    for_every_case(todo, prepare_one, workers=workers, progress=progress)
    return store


def _prepare_one(case: Case, plan: VolumePlan, store: ExamStore) -> None:
    exam = read_exam(case)
    assert case.volume is not None
    ct = read_volume(case.volume)
    hounsfield = on_grid(ct, plan.render_grid, isocentre=exam.isocentre)
    volume = np.rint(hounsfield).clip(-1024, 32767).astype(np.int16)
    xrays = fitted_views(exam, plan)
    store.write(case.name, volume, xrays.images[0].numpy(), xrays.geometry)


def fitted_views(exam: Exam, plan: VolumePlan) -> Xrays:
    """The views of an exam on a detector as coarse as the plan's: pixels are joined
    where there are several times as many.

    A detector of another size is left as it is: what a network is told of its geometry
    holds for any.
    """
    xrays = exam.xrays
    if exam.water_per_mm != plan.water_per_mm:  # the same tissue, in the plan's units
        images = xrays.images * (plan.water_per_mm / exam.water_per_mm)
        xrays = Xrays(images, xrays.geometry, xrays.present)
    rows, columns = xrays.geometry.detector
    factor = max(1, min(rows // plan.detector[0], columns // plan.detector[1]))
    while rows % factor or columns % factor:
        factor -= 1
    if factor == 1:
        return xrays
    images = torch.nn.functional.avg_pool2d(xrays.images, factor)
    return Xrays(images, xrays.geometry.binned(factor), xrays.present)
