"""Two silhouettes to a shape: a network beside nearest shape, visual hull and SIRT, on
adrenal glands with a true split.

FILE: `adrenalmnist3d_64.npz` of MedMNIST (CC BY 4.0): 1188 shapes to learn from, 98 of
the official validation split to be measured on: a tenth of the training shapes, held
out, choose checkpoint and thresholds (the loss was changed to L2 once the 98 had been
seen). The set gives no voxel size and no orientation: a voxel counts as 1 mm, array
axes as z, y, x. Silhouettes (is the ray's path in the shape above 0?) are rendered from
64^3 on 64 x 64 pixels at 0 and 90 degrees; shapes are judged on `--size`^3 voxels,
area-averaged and cut at one half. `--minutes 0` prints the baselines alone. Research
use only.
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from trivox.datasets.exams import write_exam, write_patients
from trivox.evaluation.metrics.claims import claim_text, paired_difference
from trivox.evaluation.metrics.overlap import confusion, dice
from trivox.evaluation.metrics.statistics import summarise
from trivox.projection.classical import nearest_by_xrays, visual_hull
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.grids import middle_of, on_grid
from trivox.projection.iterative import sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Volume, affine_from_spacing

GEOMETRY = Geometry.orbit((0.0, 90.0), detector=(64, 64), pixel_mm=1.4)
FULL = Grid((64, 64, 64), (1.0, 1.0, 1.0))
WINDOW = (-1000.0, 0.0)
"""HU: -1000 is outside, 0 inside."""
SETTINGS = {
    "reconstruction.views": "stored",
    "reconstruction.view_counts": "[2]",
    "reconstruction.window": "[-1000, 0]",
    "reconstruction.detector": "64",
    "reconstruction.drop_view": "0",
    "reconstruction.no_views": "0",
    "reconstruction.photons": "null",
    # silhouettes are no line integrals: nothing physical holds that would tie a
    # volume's projections to them
    "reconstruction.prior": "none",
    "reconstruction.consistency_steps": "0",
    "reconstruction.loss.reprojection": "0",
    # shapes fill 2 % of the voxels: what L1 likes best is their median, which is
    # nothing
    "reconstruction.loss.l2": "1",
    "reconstruction.loss.l1": "0",
    "reconstruction.loss.ssim": "0",
    "reconstruction.loss.edge": "0",
    "reconstruction.loss.frequency": "0",
    "reconstruction.loss.perceptual": "0",
    "reconstruction.loss.deep_supervision": "0",
}


def shapes_of(file: Path) -> dict[str, Tensor]:
    """Occupancy `(n, z, y, x)` bool by split; every tenth training shape is held out to
    choose by.
    """
    with np.load(file) as data:
        train, official = (
            torch.from_numpy(data[f"{name}_images"] > 0) for name in ("train", "val")
        )
    held_out = torch.arange(len(train)) % 10 == 0
    return {
        "train": train[~held_out],
        "choosing": train[held_out],
        "official validation": official,
    }


def silhouettes_of(shapes: Tensor) -> Xrays:
    """What the two views show of shapes `(n, 64, 64, 64)`: 1 where the ray's path in
    the shape is above 0, else 0.
    """
    projector = Projector(GEOMETRY, FULL)
    parts = [
        (projector.project(some.float()) > 1e-3).float() for some in shapes.split(32)
    ]
    return Xrays.of(torch.cat(parts), GEOMETRY)


def coarser(shapes: Tensor, size: int) -> Tensor:
    """Share of each of the `size`^3 voxels that the shape fills, `(n, z, y, x)`."""
    return torch.cat(
        [avg_pool3d(some.float(), 64 // size) for some in shapes.split(32)]
    )


# -- measuring -------------------------------------------------------------------------
def dices(estimates: Tensor, truths: Tensor, threshold: float) -> list[float]:
    """Dice of each estimate cut at the threshold with its truth cut at one half."""
    pairs = zip((estimates > threshold).numpy(), (truths >= 0.5).numpy(), strict=True)
    return [dice(confusion(estimate, truth)) or 0.0 for estimate, truth in pairs]


def best_threshold(estimates: Tensor, truths: Tensor) -> float:
    """The cut with the highest mean Dice."""
    cuts = np.linspace(float(estimates.min()), float(estimates.max()), 100)[:-1]
    return float(
        max(cuts, key=lambda cut: np.mean(dices(estimates, truths, float(cut))))
    )


def show(name: str, found: list[float], threshold: float | None) -> None:
    """Print a row."""
    summary = summarise(found, "dice")
    low, high = summary["ci95"] or (math.nan, math.nan)
    cut = "" if threshold is None else f"{threshold:.3g}"
    print(
        f"| {name} | {summary['mean']:.3f} ({low:.3f} to {high:.3f}) "
        f"| {summary['median']:.3f} | {cut} |",
        flush=True,
    )


# -- baselines -------------------------------------------------------------------------
Method = Callable[[Xrays], Tensor]


def methods(library: Tensor, library_images: Tensor, grid: Grid) -> dict[str, Method]:
    """Estimates `(n, z, y, x)` of shapes from their silhouettes."""
    mean, projector = library.mean(0), Projector(GEOMETRY, grid)
    distances = library_images.flatten(1)

    def nearest(xrays: Xrays) -> Tensor:
        return library[nearest_by_xrays(xrays.images, library_images)]

    def ten_nearest(xrays: Xrays) -> Tensor:
        order = (
            torch.cdist(xrays.images.flatten(1), distances)
            .topk(10, largest=False)
            .indices
        )
        return torch.stack([library[some].mean(0) for some in order])

    return {
        "mean training shape": lambda xrays: mean.expand(len(xrays), *grid.shape),
        "nearest training shape by silhouettes": nearest,
        "mean of the ten nearest": ten_nearest,
        "visual hull": lambda xrays: visual_hull(xrays, grid),
        "visual hull x mean of the ten nearest": lambda xrays: (
            visual_hull(xrays, grid) * ten_nearest(xrays)
        ),
        "SIRT on silhouettes": lambda xrays: sirt(xrays, projector, iterations=30),
    }


def baselines(
    shapes: dict[str, Tensor], views: dict[str, Xrays], size: int
) -> dict[str, list[float]]:
    """Dice on the official validation split by method; thresholds are chosen on
    held-out training shapes.
    """
    truths = {split: coarser(some, size) for split, some in shapes.items()}
    grid, found = FULL.resized((size, size, size)), {}
    for name, method in methods(truths["train"], views["train"].images, grid).items():
        threshold = best_threshold(method(views["choosing"]), truths["choosing"])
        found[name] = dices(
            method(views["official validation"]),
            truths["official validation"],
            threshold,
        )
        show(name, found[name], threshold)
    return found


# -- network ---------------------------------------------------------------------------
def write_datasets(
    root: Path, shapes: dict[str, Tensor], views: dict[str, Xrays]
) -> tuple[Path, Path]:
    """The training shapes as a dataset for `trivox train`, the official validation
    shapes as one for `trivox predict`.
    """
    learning, held_out = root / "learning", root / "official"
    rows = {learning: [], held_out: []}
    for split, name in (
        ("train", "train"),
        ("choosing", "validation"),
        ("official validation", "test"),
    ):
        folder = held_out if name == "test" else learning
        for number, (shape, images) in enumerate(
            zip(shapes[split], views[split].images, strict=True)
        ):
            case = f"{name}-{number:04d}"
            rows[folder].append((case, case, name))
            if not (folder / "patients" / case).is_dir():
                volume = Volume(
                    shape.numpy().astype(np.int16)[None] * 1000 - 1000,
                    affine_from_spacing(FULL.spacing),
                )
                write_exam(
                    folder / "patients" / case,
                    images.numpy(),
                    GEOMETRY,
                    isocentre=middle_of(volume),
                    kind="silhouettes",
                    volume=volume,
                )
    for folder, table in rows.items():
        write_patients(folder, table)
        (folder / "NOTE.txt").write_text(
            "AdrenalMNIST3D (MedMNIST, CC BY 4.0) as silhouettes; voxels count as 1 mm.\n"
        )
    return learning, held_out


def trivox(*words: str) -> None:
    """Run a verb and show what it says."""
    print("$ trivox", *words, flush=True)
    subprocess.run([sys.executable, "-m", "trivox", *words], check=True)


def predicted(folder: Path, cases: Iterator[str], size: int) -> Tensor:
    """Predictions `(n, z, y, x)` as share of filled volume, on the grid that shapes are
    judged on.
    """
    grid = FULL.resized((size, size, size))
    volumes = [read_volume(folder / f"{case}.nii.gz") for case in cases]
    hu = [on_grid(volume, grid, isocentre=middle_of(volume)) for volume in volumes]
    return torch.from_numpy(np.stack(hu) / 1000 + 1)


def network(
    root: Path,
    shapes: dict[str, Tensor],
    views: dict[str, Xrays],
    *,
    size: int,
    minutes: float,
    settings: list[str],
) -> list[float]:
    """Train, predict, choose the threshold on held-out training shapes, Dice on the
    official validation split.
    """
    learning, held_out = write_datasets(root, shapes, views)
    run = root / "run"
    sets = [f"{key}={value}" for key, value in SETTINGS.items()] + [
        f"reconstruction.spacing_mm={64 / size}",
        *settings,
    ]
    trivox(
        "train",
        str(learning),
        "--task",
        "reconstruction",
        "--preset",
        "quick_test",
        "--out",
        str(run),
        "--minutes",
        str(minutes),
        "--patch-size",
        *[str(size)] * 3,
        *chain.from_iterable(("--set", setting) for setting in sets),
    )
    estimates, truths = {}, {}
    for split, name, folder in (
        ("choosing", "validation", learning),
        ("official validation", "test", held_out),
    ):
        chosen = root / f"views-{name}"
        linked(folder, chosen, name)
        trivox(
            "predict", str(run), str(chosen), "--out", str(root / f"predicted-{name}")
        )
        cases = (f"{name}-{number:04d}" for number in range(len(shapes[split])))
        estimates[split] = predicted(root / f"predicted-{name}", cases, size)
        truths[split] = coarser(shapes[split], size)
    threshold = best_threshold(estimates["choosing"], truths["choosing"])
    found = dices(
        estimates["official validation"], truths["official validation"], threshold
    )
    show("network", found, threshold)
    return found


def linked(dataset: Path, folder: Path, name: str) -> None:
    """A dataset of the exams of one split, without their volumes, as links."""
    for exam in sorted((dataset / "patients").glob(f"{name}-*")):
        target = folder / "patients" / exam.name
        target.mkdir(parents=True, exist_ok=True)
        for file in ("views.npz", "geometry.json"):
            link = target / file
            link.unlink(missing_ok=True)
            link.symlink_to(exam.absolute() / file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        default=Path(__file__).parents[2] / "shared/data/adrenal/adrenalmnist3d_64.npz",
    )
    parser.add_argument("--size", type=int, default=32, choices=(32, 64))
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="of training; 0: baselines alone"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for data set, run and predictions; needed to train",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="further settings of the recipe",
    )
    given = parser.parse_args()
    if given.minutes and not given.out:
        parser.error("--minutes needs --out")
    torch.set_num_threads(1)
    start = time.process_time()
    shapes = shapes_of(given.file)
    views = {split: silhouettes_of(some) for split, some in shapes.items()}
    print(
        f"\n| official validation split, {len(shapes['official validation'])} shapes, "
        f"{given.size}^3 | Dice, mean (95 % interval) | median | cut |\n|---|---|---|---|"
    )
    rows = baselines(shapes, views, given.size)
    print(f"\n{time.process_time() - start:.0f} CPU seconds\n", flush=True)
    if given.minutes:
        ours = network(
            given.out,
            shapes,
            views,
            size=given.size,
            minutes=given.minutes,
            settings=given.set,
        )
        for name, theirs in rows.items():
            difference = paired_difference(ours, theirs)
            print(f"network minus {name}: {claim_text(difference, 3)}")


if __name__ == "__main__":
    main()
