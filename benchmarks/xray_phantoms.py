"""The ladder of a trained run on the declared test cases of its dataset, and what
happens if the network is deceived.

    python benchmarks/xray_phantoms.py RUN DATASET

Prints PSNR (whole volume, window -1024 to 1476 HU) and SSIM with 95 % bootstrap
intervals for 1, 2, 4 and 8 stored views; then, with two views: images swapped under
their geometry, those of another patient, no views at all. A network that does not look
at its X-rays, or does not know where they come from, would not lose by any of these.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import torch

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.evaluation.metrics.statistics import summarise
from trivox.evaluation.metrics.volumes import measure_arrays
from trivox.files import read_json
from trivox.inference.reconstructor import Reconstructor
from trivox.preparation.exam_store import ExamStore, fitted_views
from trivox.projection.grids import on_grid
from trivox.projection.ladder import Ladder
from trivox.projection.xrays import Xrays
from trivox.tasks.reconstruction.exams import PreparedExams, reference_volume
from trivox.tasks.reconstruction.validation import LIBRARY, evenly, volumes_of
from trivox.volumes.formats import read_volume

Rows = dict[str, list[float | None]]


def shown(values: list[float | None], digits: int = 2) -> str:
    """Mean and interval."""
    found = summarise(values)
    low, high = found["ci95"] or (math.nan, math.nan)
    return f"{found['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    given = parser.parse_args()
    model = Reconstructor.load(given.run, device="cpu")
    dataset, plan = load_dataset(given.dataset), model.plan
    cases = [
        case
        for case in dataset.cases
        if case.split == "test" and case.volume is not None
    ]
    exams = [read_exam(case) for case in cases]
    truths = [truth(case, model) for case in cases]
    views = [
        fitted_views(exam, plan, where=case.name)
        for case, exam in zip(cases, exams, strict=True)
    ]
    prepared = PreparedExams(dataset, plan, (), ExamStore(given.run / "prepared"))
    library = evenly(read_json(given.run / "splits.json")[0]["train"], LIBRARY)
    print(f"{len(cases)} test cases, ladder fitted on {len(library)} training cases\n")
    for count in (1, 2, 4, 8):
        ladder = Ladder.fit(
            (reference_volume(prepared, name) for name in library),
            (prepared.store.views(name).select(range(count)) for name in library),
            plan.grid,
            water_per_mm=plan.water_per_mm,
            window=plan.window,
        )
        decibels: Rows = defaultdict(list)
        similar: Rows = defaultdict(list)
        for xrays, wanted in zip(views, truths, strict=True):
            for name, volume in volumes_of(
                model, ladder, xrays.select(range(count))
            ).items():
                row = measure_arrays(volume, wanted, window=plan.window)
                decibels[name].append(row["psnr_db"])
                similar[name].append(row["ssim"])
        print(f"| {count} views | PSNR, dB | SSIM |\n|---|---|---|")
        for name in decibels:
            print(f"| {name} | {shown(decibels[name])} | {shown(similar[name], 3)} |")
        print()
    deceive(model, [xrays.select([0, 1]) for xrays in views], truths)


def truth(case: Case, model: Reconstructor):
    """The CT on the model's grid, HU."""
    assert case.volume is not None
    return on_grid(
        read_volume(case.volume), model.plan.grid, isocentre=read_exam(case).isocentre
    )


def deceive(model: Reconstructor, views: list[Xrays], truths: list) -> None:
    """Two views as they are, and changed so that they no longer tell of the patient."""
    found: Rows = defaultdict(list)
    for index, (xrays, wanted) in enumerate(zip(views, truths, strict=True)):
        other = views[(index + 1) % len(views)]
        given = {
            "two views as taken": xrays,
            "images swapped, geometry kept": Xrays(
                xrays.images.flip(1), xrays.geometry, xrays.present
            ),
            "X-rays of another patient": Xrays(
                other.images, xrays.geometry, xrays.present
            ),
            "no views": xrays.without(torch.ones_like(xrays.present)),
        }
        for name, changed in given.items():
            volume = model.reconstruct(changed)[0].cpu().numpy()
            found[name].append(
                measure_arrays(volume, wanted, window=model.plan.window)["psnr_db"]
            )
    print("| network + data consistency, 2 views | PSNR, dB |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {shown(values)} |")


if __name__ == "__main__":
    main()
