"""A real chest CT from 1 to 16 X-rays: what classical reconstruction reaches, its
ceilings, and a network beside it.

The views are rendered from the CT's own voxels (0.7 x 0.7 x 2.5 mm), reconstruction
takes place on 2.8 or 5.6 mm: no method inverts the very projection that made its data.
DATA holds `lidc.nii.gz`, the case that is reconstructed, and `Lung_Dx-A0001.nii.gz`,
another patient and scanner: the only training case of the rows that need one, and what
the weight of TV was chosen on (`--tune` prints that choice). One CT gives no interval:
the figures place methods, they do not rank them for patients at large. `--model RUN`
adds a trained network on the grid that it fills. Research use only.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from trivox.evaluation.metrics.volumes import (
    NOTICE,
    WINDOW,
    convention,
    measure_arrays,
)
from trivox.inference.reconstructor import Reconstructor
from trivox.projection.attenuation import WATER_PER_MM, attenuation_of, hounsfield_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.grids import Point, middle_of, on_grid
from trivox.projection.iterative import sirt, tv
from trivox.projection.ladder import Ladder
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Volume

FILE, OTHER_FILE = "lidc.nii.gz", "Lung_Dx-A0001.nii.gz"
FIELD_MM = 360.0
DETECTOR, PIXEL_MM = (192, 192), 3.0
"""576 mm wide: everything within 222 mm of the axis is seen from all sides."""
METRICS = (
    "psnr_db",
    "psnr_slice4095_x2ct_db",
    "ssim",
    "mae_hu",
    "mae_body_hu",
    "lung_dice",
    "bone_dice",
)
HEADS = (
    "PSNR, whole volume, 2500 HU",
    "PSNR, slice mean, peak 4095",
    "SSIM",
    "MAE, HU",
    "MAE in body, HU",
    "lung Dice",
    "bone Dice",
)
OTHER = "another patient's CT (the only training case)"


@dataclass(frozen=True, eq=False)
class Patient:
    """A CT, and attenuation `(1, z, y, x)` on its own voxels."""

    volume: Volume
    isocentre: Point
    attenuation: Tensor
    grid: Grid

    @classmethod
    def read(cls, path: Path, *, field_mm: float = FIELD_MM) -> "Patient":
        """The CT on its own voxels, as far as they lie in the field that is
        reconstructed; nothing is beyond it.
        """
        volume = read_volume(path)
        isocentre = middle_of(volume)
        z, y, x = (
            min(size, int(field_mm / step + 1e-6))
            for size, step in zip(volume.shape, volume.spacing, strict=True)
        )
        grid = Grid((z, y, x), volume.spacing)
        hounsfield = torch.from_numpy(on_grid(volume, grid, isocentre=isocentre))
        return cls(volume, isocentre, attenuation_of(hounsfield)[None], grid)

    def views(self, angles: list[float]) -> Xrays:
        """Line integrals through the CT's own voxels."""
        geometry = Geometry.orbit(angles, detector=DETECTOR, pixel_mm=PIXEL_MM)
        return Xrays.of(
            Projector(geometry, self.grid).project(self.attenuation), geometry
        )

    def on(self, grid: Grid) -> Tensor:
        """HU `(z, y, x)`."""
        return torch.from_numpy(on_grid(self.volume, grid, isocentre=self.isocentre))


def angles_of(views: int) -> list[float]:
    """Even over half a turn, the first from the front."""
    return [180 * number / views for number in range(views)]


def seen_on(xrays: Xrays, grid: Grid) -> Xrays:
    """With pixels joined until, at the isocentre, they are as large as the voxels."""
    factor = 1
    while PIXEL_MM / 1.2 * factor * 2 <= 1.1 * min(grid.spacing):
        factor *= 2
    images = avg_pool2d(xrays.images, factor)
    return Xrays(images, xrays.geometry.binned(factor), xrays.present)


# -- rows ------------------------------------------------------------------------------
def ceilings(patient: Patient, grid: Grid) -> Iterator[tuple[str, Tensor]]:
    """Perfect volumes on coarser grids, interpolated: what a network on such a grid
    cannot exceed here.
    """
    for size in (64, 32):
        if size < grid.shape[0]:
            coarse = patient.on(grid.resized((size, size, size)))[None, None]
            yield (
                f"perfect {size}^3, interpolated",
                interpolate(coarse, size=grid.shape, mode="trilinear")[0, 0],
            )


def classical(
    patient: Patient, other: Patient, views: int, grid: Grid, tv_weight: float
) -> dict[str, Tensor]:
    """Rows of the ladder, without the one that a single training case makes equal to
    its neighbour.
    """
    exams = [seen_on(one.views(angles_of(views)), grid) for one in (other, patient)]
    ladder = Ladder.fit(
        [other.on(grid)], exams[:1], grid, water_per_mm=WATER_PER_MM, window=WINDOW
    )
    rows = replace(ladder, tv_weight=tv_weight).reconstruct(exams[1])
    rows.pop("nearest training case by X-ray")
    names = {
        "mean training volume": OTHER,
        "SIRT from the mean volume": "SIRT from that CT",
    }
    return {names.get(name, name): volume for name, volume in rows.items()}


def learnt(
    reconstructor: Reconstructor, patient: Patient, views: int
) -> dict[str, Tensor]:
    """The network's volume without and with its last steps, and SIRT started from it,
    on its own grid.
    """
    xrays = seen_on(patient.views(angles_of(views)), reconstructor.plan.grid)
    plain, volume = (
        reconstructor.reconstruct(xrays, consistent=last)[0] for last in (False, True)
    )
    projector = Projector(xrays.geometry, reconstructor.plan.grid)
    start = attenuation_of(volume)[None]
    closer = sirt(xrays, projector, iterations=Ladder.sirt_iterations, start=start)
    return {
        "network without its last steps": plain,
        "network + data consistency": volume,
        "SIRT from the network's volume": hounsfield_of(closer[0]),
    }


# -- one volume, many numbers ----------------------------------------------------------
def clipped_psnr(
    volume: Tensor, truth: Tensor, window: tuple[float, float], peak: float
) -> float:
    """PSNR over the whole volume after clipping both to the window, dB."""
    error = (volume.clamp(*window) - truth.clamp(*window)).double().square().mean()
    return float(10 * torch.log10(peak**2 / error))


def readings(volume: Tensor, truth: Tensor) -> dict[str, float]:
    """What PSNRs in use make of one volume, dB."""
    slices = measure_arrays(volume.numpy(), truth.numpy(), window=WINDOW)[
        "psnr_slice4095_x2ct_db"
    ]
    return {
        "whole volume, [-1024, 1476], peak 2500 (ours)": clipped_psnr(
            volume, truth, WINDOW, 2500
        ),
        "whole volume, [-1000, 1024], peak 2024 (C2RV, SPARC)": clipped_psnr(
            volume, truth, (-1000, 1024), 2024
        ),
        "whole volume, [-1024, 1476], peak 4095": clipped_psnr(
            volume, truth, WINDOW, 4095
        ),
        "mean over slices, peak 4095 (X2CT-GAN)": slices,
        "whole volume, [-200, 200] as -1 to 1, peak 1 (the seed)": clipped_psnr(
            volume, truth, (-200, 200), 200
        ),
    }


def conventions_table(patient: Patient, grid: Grid) -> Iterator[str]:
    """The same volumes in five conventions."""
    truth, xrays = patient.on(grid), seen_on(patient.views(angles_of(2)), grid)
    volumes = {
        "air": torch.full_like(truth, -1000.0),
        "SIRT, 2 views": hounsfield_of(
            sirt(xrays, Projector(xrays.geometry, grid), iterations=30)[0]
        ),
        **{name: volume for name, volume in ceilings(patient, grid) if "32^3" in name},
    }
    found = [readings(volume, truth) for volume in volumes.values()]
    yield f"\n### One volume, many PSNRs ({grid.shape[0]}^3, dB)\n\n| | {' | '.join(volumes)} |"
    yield "|---" * (1 + len(volumes)) + "|"
    for name in found[0]:
        cells = " | ".join(f"{row[name]:.2f}" for row in found)
        yield f"| {name} | {cells} |"


# -- tables ----------------------------------------------------------------------------
def row(name: str, volume: Tensor, truth: Tensor) -> str:
    """A line of a table."""
    found = measure_arrays(volume.numpy(), truth.numpy(), window=WINDOW)
    digits = (2, 2, 3, 0, 0, 3, 3)
    cells = [
        "-" if found[m] is None else f"{found[m]:.{d}f}"
        for m, d in zip(METRICS, digits, strict=True)
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def head(title: str) -> str:
    """The first lines of a table."""
    return f"\n### {title}\n\n| | {' | '.join(HEADS)} |\n|---{'|---' * len(HEADS)}|"


def tables(
    given: argparse.Namespace, patient: Patient, other: Patient
) -> Iterator[str]:
    """The text, table by table."""
    for size in given.sizes:
        grid = Grid((size,) * 3, (FIELD_MM / size,) * 3)
        truth = patient.on(grid)
        yield head(
            f"{size}^3 voxels of {FIELD_MM / size:.1f} mm: no X-rays, and ceilings"
        )
        yield row("air", torch.full_like(truth, -1000.0), truth)
        yield row(
            "best constant (the mean of this CT itself)",
            torch.full_like(truth, float(truth.mean())),
            truth,
        )
        for name, volume in ceilings(patient, grid):
            yield row(name, volume, truth)
        for views in given.views:
            start = time.process_time()
            rows = classical(patient, other, views, grid, given.tv_weight)
            yield head(f"{size}^3, {views} view{'s' * (views > 1)}")
            yield from (row(name, volume, truth) for name, volume in rows.items())
            print(
                f"({size}^3, {views} views: {time.process_time() - start:.0f} CPU seconds)",
                flush=True,
            )
    if given.sizes:
        yield from conventions_table(
            patient, Grid((max(given.sizes),) * 3, (FIELD_MM / max(given.sizes),) * 3)
        )
    if given.model:
        yield from network_tables(given)


def network_tables(given: argparse.Namespace) -> Iterator[str]:
    """The ladder on the grid of the network, and the network; the CTs are cut to the
    field that it fills.
    """
    reconstructor = Reconstructor.load(given.model, device="cpu")
    grid = reconstructor.plan.grid
    other, patient = (
        Patient.read(given.data / name, field_mm=min(grid.extent_mm))
        for name in (OTHER_FILE, FILE)
    )
    truth, size = (
        patient.on(grid),
        f"{grid.shape[0]}^3 voxels of {grid.spacing[0]:.1f} mm",
    )
    for views in (
        count for count in given.views if count <= max(reconstructor.trained_views)
    ):
        rows = classical(patient, other, views, grid, given.tv_weight) | learnt(
            reconstructor, patient, views
        )
        yield head(
            f"{size}, {views} view{'s' * (views > 1)}: "
            "a phantom-trained network out of its distribution"
        )
        yield from (row(name, volume, truth) for name, volume in rows.items())


def tune(other: Patient, views: list[int]) -> None:
    """PSNR of TV on the other patient by weight."""
    grid = Grid((64,) * 3, (FIELD_MM / 64,) * 3)
    truth = other.on(grid)
    for count in views:
        xrays = seen_on(other.views(angles_of(count)), grid)
        projector = Projector(xrays.geometry, grid)
        for weight in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3):
            volume = hounsfield_of(
                tv(xrays, projector, weight=weight, iterations=50)[0]
            )
            found = measure_arrays(volume.numpy(), truth.numpy(), window=WINDOW)
            print(
                f"{count} views, weight {weight:g}: {found['psnr_db']:.2f} dB, "
                f"SSIM {found['ssim']:.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).parents[2] / "shared" / "data" / "chest-ct",
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        default=[64, 128],
        help="voxels along an edge; none: the network alone",
    )
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument(
        "--model", type=Path, help="a run or bundle of task reconstruction"
    )
    parser.add_argument("--tv-weight", type=float, default=Ladder.tv_weight)
    parser.add_argument(
        "--tune",
        action="store_true",
        help="TV by weight on the other patient, and nothing else",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "xray_ladder.md"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    other = Patient.read(given.data / OTHER_FILE)
    if given.tune:
        tune(other, given.views)
        return
    patient = Patient.read(given.data / FILE)
    text = [
        f"# The X-ray ladder on a real chest CT\n\n{NOTICE}. "
        "Printed by `benchmarks/xray_ladder.py`.\n"
    ]
    text += [
        f"- {name}: {meaning}"
        for name, meaning in convention(WINDOW).items()
        if name in (*METRICS, "window", "grid")
    ]
    for line in tables(given, patient, other):
        print(line, flush=True)
        text.append(line)
    given.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
