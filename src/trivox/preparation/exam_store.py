"""Prepared X-ray exams on disk: the CT on the grid that X-rays are rendered from, and
the views as they were taken.

`NAME.volume.b2nd` `(z, y, x)` int16 HU, `NAME.views.b2nd` `(v, rows, columns)` float32
line integrals, and `NAME.json` with the geometry, which is written last: an exam
without it is not there.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivox.datasets.content import CaseContent, content_of, recorded_content
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.exams import Exam, read_exam
from trivox.files import read_json, read_object, remove_leftovers, write_json
from trivox.locks import claimed
from trivox.planning.volumes import VolumePlan
from trivox.preparation.arrays import open_array, write_array
from trivox.preparation.preprocess import ShowNames, for_every_case, unseen
from trivox.preparation.renewal import (
    VERB,
    Say,
    cases_to_prepare,
    hold,
    make_room,
    unheard,
)
from trivox.preparation.store import CONTENT, undamaged
from trivox.projection.geometry import Geometry
from trivox.projection.geometry_files import parsed_record, record_of
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
        for name in self.names():
            self.remove(name)

    def names(self) -> list[str]:
        """Names of the exams, whole or begun."""
        volumes = sorted(self.folder.glob("*.volume.b2nd"))
        return [volume.name.removesuffix(".volume.b2nd") for volume in volumes]

    def remove(self, name: str) -> None:
        """Remove an exam; what says that it is complete goes first."""
        for suffix in (".json", ".views.b2nd", ".volume.b2nd"):
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def content(self, name: str) -> CaseContent | None:
        """What a complete exam was made of, if that was recorded."""
        return recorded_content(self._facts(name).get(CONTENT))

    def write(
        self,
        name: str,
        volume: Array,
        views: Array,
        geometry: Geometry,
        content: CaseContent,
    ) -> None:
        """Write an exam atomically: arrays first, `NAME.json` last."""
        write_array(self.folder / f"{name}.volume.b2nd", volume)
        write_array(self.folder / f"{name}.views.b2nd", views)
        facts = record_of(geometry).model_dump(mode="json")
        facts[CONTENT] = content.model_dump(mode="json")
        write_json(self.folder / f"{name}.json", facts)

    def volume(self, name: str) -> Array:
        """The CT on the rendering grid, `(z, y, x)` int16 HU."""
        return self._read(name, "volume")

    def views(self, name: str) -> Xrays:
        """The views as they were taken, a batch of one."""
        images = torch.from_numpy(self._read(name, "views"))
        facts = self._facts(name)
        facts.pop(CONTENT, None)
        record = parsed_record(facts, where=self.folder / f"{name}.json")
        return Xrays.of(images[None], record.geometry)

    def _facts(self, name: str) -> dict[str, Any]:
        return read_object(self.folder / f"{name}.json")

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
    replace: bool = True,
    progress: ShowNames = unseen,
    say: Say = unheard,
) -> ExamStore:
    """Prepare every training case under `folder`; finished ones of the same plan and
    files are kept, others are removed.

    replace: otherwise exams of another plan are a `PlanError`, and those that the
    dataset does not hold are left alone. Raises `DataError` naming the cases that
    failed, after the others are done.
    """
    store = ExamStore(folder)
    with claimed(folder, VERB, wait=True, say=say):
        if (folder / KEY).exists() and read_json(folder / KEY) != plan.preparation_key:
            make_room(store, replace=replace, say=say)
        if not (folder / KEY).exists():
            write_json(folder / KEY, plan.preparation_key)
        remove_leftovers(folder)
        todo = cases_to_prepare(store, dataset, None, sole=replace, say=say)
        prepare_one = partial(_prepare_one, plan=plan, store=store)
        for_every_case(todo, prepare_one, workers=workers, progress=progress)
        hold(store, dataset)
    return store


def _prepare_one(case: Case, plan: VolumePlan, store: ExamStore) -> None:
    content = content_of(case, None)  # before it is read: a later change is noticed
    exam = read_exam(case)
    assert case.volume is not None
    ct = read_volume(case.volume, choice=case.choice)
    hounsfield = on_grid(ct, plan.render_grid, isocentre=exam.isocentre)
    volume = np.rint(hounsfield).clip(-1024, 32767).astype(np.int16)
    xrays = fitted_views(exam, plan)
    store.write(case.name, volume, xrays.images[0].numpy(), xrays.geometry, content)


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
