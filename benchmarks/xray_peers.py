"""Other projectors at our geometry: plastimatch, itk-rtk, DiffDRR and nanodrr, given a
volume, a `Geometry` and a `Grid`.

plastimatch and RTK are told the angles in their own conventions
(docs/explanation/xray-geometry.md), so that they judge ours; the renderers of DiffDRR
and nanodrr are given our rays. Also a command, by which the oracle tests reach a peer
that lives in another environment: `xray_peers.py PEER CASE.npz...` writes CASE.npy.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivox.projection.geometry import Geometry, Grid


def load_case(file: Path) -> tuple[Tensor, Geometry, Grid]:
    """A volume `(z, y, x)` and the views that it is to be seen in: the arrays of `Grid`
    and `Geometry` by name.
    """
    with np.load(file) as saved:
        rows, columns = saved["detector"].tolist()
        views = {
            field.name: torch.from_numpy(saved[field.name])
            for field in fields(Geometry)
            if field.name != "detector"
        }
        grid = Grid(
            saved["volume"].shape,
            tuple(saved["spacing"].tolist()),
            tuple(saved["centre_mm"].tolist()),
        )
        return (
            torch.from_numpy(saved["volume"]),
            Geometry(detector=(rows, columns), **views),
            grid,
        )


# -- peers -----------------------------------------------------------------------------
def plastimatch(
    volume: Tensor, geometry: Geometry, grid: Grid, algorithm: str = "exact"
) -> Tensor:
    """Line integrals `(v, rows, columns)`: `algorithm` "exact" (Siddon) or "uniform"; a
    process a view.

    LPS millimetres; the detector is named by the direction to the source. Rays end at
    the centres of the outer voxels, so these must be 0; results are in units of 10 mm.
    """
    import SimpleITK

    array = np.ascontiguousarray(
        volume.numpy()[:, ::-1, ::-1]
    )  # x and y point the other way in LPS
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(grid.spacing[::-1])
    first = [
        -(size - 1) / 2 * step
        for size, step in zip(grid.shape, grid.spacing, strict=True)
    ]
    right, front, up = grid.centre_mm
    image.SetOrigin((first[2] - right, first[1] - front, first[0] + up))
    with tempfile.TemporaryDirectory() as folder:
        SimpleITK.WriteImage(image, f"{folder}/volume.mha")
        return torch.stack(
            [
                _plastimatch_view(geometry.select([v]), Path(folder), algorithm)
                for v in range(geometry.views)
            ]
        )


def _plastimatch_view(view: Geometry, folder: Path, algorithm: str) -> Tensor:
    turn, tilt = (float(a) * np.pi / 180 for a in (view.primary[0], view.secondary[0]))
    to_source = (
        np.sin(turn) * np.cos(tilt),
        -np.cos(turn) * np.cos(tilt),
        -np.sin(tilt),
    )
    rows, columns = view.detector
    height, width = (
        n * float(step) for n, step in zip(view.detector, view.pixel_mm[0], strict=True)
    )
    middle = [
        (n - 1) / 2 - float(off / step)
        for n, off, step in zip(
            view.detector, view.offset_mm[0], view.pixel_mm[0], strict=True
        )
    ]
    options = {
        "-i": algorithm,
        "-P": "none",
        "-t": "raw",
        "-r": f"{columns} {rows}",
        "-z": f"{width} {height}",
        "-c": f"{middle[1]} {middle[0]}",
        "-n": " ".join(f"{x:.9f}" for x in to_source),
        "--vup": "0 0 1",
        "--sad": f"{float(view.sod[0])}",
        "--sid": f"{float(view.sdd[0])}",
        "-o": "0 0 0",
        "-O": str(folder / "view"),
    }
    command = [
        "plastimatch",
        "drr",
        *chain.from_iterable(options.items()),
        str(folder / "volume.mha"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("view*.raw")
    image = (
        torch.from_numpy(np.fromfile(found, dtype=np.float32).reshape(rows, columns))
        * 10
    )
    found.unlink()
    return image


def rtk(volume: Tensor, geometry: Geometry, grid: Grid) -> Tensor:
    """Line integrals `(v, rows, columns)` by RTK's Joseph."""
    return rtk_calls(volume, geometry, grid)[0]()


def rtk_calls(
    volume: Tensor, geometry: Geometry, grid: Grid
) -> tuple[Callable[[], Tensor], Callable[[Tensor], Tensor]]:
    """RTK's Joseph, and its back-projection of images `(v, rows, columns)`.

    IEC 61217: x to the patient's left, y to the head, z to the front; the rows of an
    image run upwards.
    """
    import itk
    from itk import RTK

    kind = itk.Image[itk.F, 3]
    body = _rtk_volume(volume, grid)
    views = RTK.ThreeDCircularProjectionGeometry.New()
    for v in range(geometry.views):
        down, across = geometry.offset_mm[v].tolist()
        sod, sdd, turn, tilt = (
            float(each[v])
            for each in (
                geometry.sod,
                geometry.sdd,
                geometry.primary,
                geometry.secondary,
            )
        )
        views.AddProjection(sod, sdd, turn, across, -down, tilt, 0.0, 0.0, 0.0)

    def run(kind_of_filter: Any, *inputs: Any) -> np.ndarray:
        made = kind_of_filter[kind, kind].New()
        made.SetGeometry(views)
        for place, each in enumerate(inputs):
            made.SetInput(place, each)
        made.Update()
        return itk.array_from_image(made.GetOutput())

    def forward() -> Tensor:
        blank = _rtk_images(
            torch.zeros(geometry.views, *geometry.detector), geometry
        )  # made anew: RTK writes into it
        return torch.from_numpy(
            run(RTK.JosephForwardProjectionImageFilter, blank, body)[:, ::-1].copy()
        )

    def backward(images: Tensor) -> Tensor:
        empty = _rtk_volume(torch.zeros_like(volume), grid)
        found = run(
            RTK.JosephBackProjectionImageFilter, empty, _rtk_images(images, geometry)
        )
        return torch.from_numpy(found[:, :, ::-1].transpose(1, 0, 2).copy())

    return forward, backward


def _rtk_volume(volume: Tensor, grid: Grid) -> Any:
    import itk

    image = itk.image_from_array(
        np.ascontiguousarray(volume.numpy().transpose(1, 0, 2)[:, :, ::-1])
    )
    up, front, right = grid.spacing
    first = [
        (1 - n) / 2 * step for n, step in zip(grid.shape, grid.spacing, strict=True)
    ]
    x, y, z = grid.centre_mm
    image.SetSpacing((right, up, front))
    image.SetOrigin((first[2] - x, first[0] + z, first[1] + y))
    return image


def _rtk_images(images: Tensor, geometry: Geometry) -> Any:
    import itk

    image = itk.image_from_array(np.ascontiguousarray(images.numpy()[:, ::-1]))
    rows, columns = geometry.detector
    down, across = geometry.pixel_mm[0].tolist()
    image.SetSpacing((across, down, 1.0))
    image.SetOrigin(((1 - columns) / 2 * across, (1 - rows) / 2 * down, 0.0))
    return image


def diffdrr_calls(
    grid: Grid, geometry: Geometry, renderer: str
) -> Callable[[Tensor], Tensor]:
    """DiffDRR's renderer "siddon" or "trilinear" (500 points) on the rays of one view,
    in parts that fit in memory.
    """
    from diffdrr.renderers import Siddon, Trilinear

    made, options = (
        (Siddon(), {}) if renderer == "siddon" else (Trilinear(), {"n_points": 500})
    )
    source, pixels = geometry.source[0], geometry.pixel_points()[0].flatten(0, 1)
    spacing, centre = torch.tensor(grid.spacing[::-1]), torch.tensor(grid.centre_mm)
    first = (torch.tensor(grid.shape[::-1]) - 1) / 2

    def part(volume: Tensor, targets: Tensor) -> Tensor:
        length = (targets - source).norm(dim=-1)[None, None]
        voxels = [
            ((point - centre) / spacing + first)[None]
            for point in (source[None], targets)
        ]
        return made(volume.permute(2, 1, 0), *voxels, length, **options)[0, 0]

    def forward(volume: Tensor) -> Tensor:
        return torch.cat(
            [part(volume, targets) for targets in pixels.split(RAYS)]
        ).view(1, *geometry.detector)

    return forward


def nanodrr_calls(
    grid: Grid, geometry: Geometry, samples: int
) -> Callable[[Tensor], Tensor]:
    """The reference renderer of nanodrr, which it takes on a CPU, on the rays of one
    view, in parts that fit in memory.
    """
    from nanodrr.data import Subject
    from nanodrr.drr import render

    spacing, size = torch.tensor(grid.spacing[::-1]), torch.tensor(grid.shape[::-1])
    to_world, to_grid = torch.eye(4), torch.eye(4)
    to_world[:3, :3], to_world[:3, 3] = (
        spacing.diag(),
        torch.tensor(grid.centre_mm) - (size - 1) / 2 * spacing,
    )
    to_grid[:3, :3], to_grid[:3, 3] = (
        (2 / size).diag(),
        1 / size - 1,
    )  # grid_sample without aligned corners
    blank = torch.zeros(1, 1, *grid.shape)
    subject = Subject(
        blank,
        blank,
        to_world,
        to_world.inverse(),
        to_grid,
        torch.zeros(3),
        convert_to_mu=False,
    )
    source, pixels = geometry.source[:1, None], geometry.pixel_points()[0].flatten(0, 1)
    unused = (torch.eye(3)[None], torch.eye(4)[None], geometry.sdd[:1])

    def forward(volume: Tensor) -> Tensor:
        subject._image_hu = volume[None, None]
        parts = [
            render(
                subject,
                *unused,
                1,
                len(rays),
                n_samples=samples,
                src=source,
                tgt=rays[None],
            ).flatten()
            for rays in pixels.split(RAYS)
        ]
        return torch.cat(parts).view(1, *geometry.detector)

    return forward


RAYS = 1 << 14
"""Rays that DiffDRR and nanodrr are given at once: at 512^2 with 500 samples all of
them would take several GB.
"""
PEERS = {"plastimatch": plastimatch, "rtk": rtk}


def main() -> None:
    peer, *cases = sys.argv[1:]
    for case in map(Path, cases):
        np.save(case.with_suffix(".npy"), PEERS[peer](*load_case(case)).numpy())


if __name__ == "__main__":
    main()
