"""Other projectors at our geometry: plastimatch, itk-rtk, DiffDRR and nanodrr, given a volume, a `Geometry` and a `Grid`.

plastimatch and RTK are told the angles in their own conventions (docs/explanation/xray-geometry.md), so that they judge
ours; the renderers of DiffDRR and nanodrr are given our rays. Also a command, by which the oracle tests reach a peer that
lives in another environment: `xray_peers.py PEER CASE.npz OUT.npy`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trivox.projection import Geometry, Grid


# -- files of the command ------------------------------------------------------------------------------------------------
def save_case(file: Path, volume: Tensor, geometry: Geometry, grid: Grid) -> None:
    """A volume `(z, y, x)` and the views that it is to be seen in."""
    views = {field.name: np.asarray(getattr(geometry, field.name)) for field in fields(geometry)}
    np.savez(file, volume=volume.numpy(), spacing=grid.spacing, centre_mm=grid.centre_mm, **views)


def load_case(file: Path) -> tuple[Tensor, Geometry, Grid]:
    with np.load(file) as saved:
        rows, columns = saved["detector"].tolist()
        views = {
            field.name: torch.from_numpy(saved[field.name]) for field in fields(Geometry) if field.name != "detector"
        }
        grid = Grid(saved["volume"].shape, tuple(saved["spacing"].tolist()), tuple(saved["centre_mm"].tolist()))
        return torch.from_numpy(saved["volume"]), Geometry(detector=(rows, columns), **views), grid


# -- peers ---------------------------------------------------------------------------------------------------------------
def plastimatch(volume: Tensor, geometry: Geometry, grid: Grid, algorithm: str = "exact") -> Tensor:
    """Line integrals `(v, rows, columns)`: `algorithm` "exact" (Siddon) or "uniform"; a process a view.

    LPS millimetres; the detector is named by the direction to the source. Rays end at the centres of the outer voxels, so
    these must be 0; results are in units of 10 mm.
    """
    import SimpleITK

    array = np.ascontiguousarray(volume.numpy()[:, ::-1, ::-1])  # x and y point the other way in LPS
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(grid.spacing[::-1])
    first = [-(size - 1) / 2 * step for size, step in zip(grid.shape, grid.spacing, strict=True)]
    right, front, up = grid.centre_mm
    image.SetOrigin((first[2] - right, first[1] - front, first[0] + up))
    with tempfile.TemporaryDirectory() as folder:
        SimpleITK.WriteImage(image, f"{folder}/volume.mha")
        return torch.stack(
            [_plastimatch_view(geometry.select([v]), Path(folder), algorithm) for v in range(geometry.views)]
        )


def _plastimatch_view(view: Geometry, folder: Path, algorithm: str) -> Tensor:
    turn, tilt = (float(a) * np.pi / 180 for a in (view.primary[0], view.secondary[0]))
    to_source = (np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), -np.sin(tilt))
    rows, columns = view.detector
    height, width = (n * float(step) for n, step in zip(view.detector, view.pixel_mm[0], strict=True))
    middle = [
        (n - 1) / 2 - float(off / step)
        for n, off, step in zip(view.detector, view.offset_mm[0], view.pixel_mm[0], strict=True)
    ]
    options = {
        "-i": algorithm, "-P": "none", "-t": "raw", "-r": f"{columns} {rows}", "-z": f"{width} {height}",
        "-c": f"{middle[1]} {middle[0]}", "-n": " ".join(f"{x:.9f}" for x in to_source), "--vup": "0 0 1",
        "--sad": f"{float(view.sod[0])}", "--sid": f"{float(view.sdd[0])}", "-o": "0 0 0", "-O": str(folder / "view"),
    }  # fmt: skip
    command = ["plastimatch", "drr", *(part for pair in options.items() for part in pair), str(folder / "volume.mha")]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("view*.raw")
    image = torch.from_numpy(np.fromfile(found, dtype=np.float32).reshape(rows, columns)) * 10
    found.unlink()
    return image


def rtk(volume: Tensor, geometry: Geometry, grid: Grid) -> Tensor:
    """Line integrals `(v, rows, columns)` by RTK's Joseph."""
    run = rtk_forward(volume, geometry, grid)
    return run()


def rtk_forward(volume: Tensor, geometry: Geometry, grid: Grid) -> Callable[[], Tensor]:
    """A call that projects as RTK does. IEC 61217: x to the patient's left, y to the head, z to the front; rows run up."""
    import itk
    from itk import RTK

    array = np.ascontiguousarray(volume.numpy().transpose(1, 0, 2)[:, :, ::-1])
    depth, height, width = grid.spacing[1], grid.spacing[0], grid.spacing[2]
    right, front, up = grid.centre_mm
    image = itk.image_from_array(array)
    image.SetSpacing((width, height, depth))
    first = [-(n - 1) / 2 * step for n, step in zip(array.shape[::-1], (width, height, depth), strict=True)]
    image.SetOrigin((first[0] - right, first[1] + up, first[2] + front))
    views, blank = RTK.ThreeDCircularProjectionGeometry.New(), _rtk_detector(itk, geometry)
    for v in range(geometry.views):
        down, across = geometry.offset_mm[v].tolist()
        views.AddProjection(
            float(geometry.sod[v]), float(geometry.sdd[v]), float(geometry.primary[v]), across, -down,
            float(geometry.secondary[v]), 0.0, 0.0, 0.0,
        )  # fmt: skip

    def run() -> Tensor:
        kind = itk.Image[itk.F, 3]
        projector = RTK.JosephForwardProjectionImageFilter[kind, kind].New()
        projector.SetGeometry(views)
        projector.SetInput(0, blank)
        projector.SetInput(1, image)
        projector.Update()
        return torch.from_numpy(itk.array_from_image(projector.GetOutput())[:, ::-1].copy())

    return run


def _rtk_detector(itk: object, geometry: Geometry) -> object:
    rows, columns = geometry.detector
    down, across = geometry.pixel_mm[0].tolist()
    blank = itk.image_from_array(np.zeros((geometry.views, rows, columns), dtype=np.float32))  # type: ignore[attr-defined]
    blank.SetSpacing((across, down, 1.0))
    blank.SetOrigin((-(columns - 1) / 2 * across, -(rows - 1) / 2 * down, 0.0))
    return blank


PEERS = {"plastimatch": plastimatch, "rtk": rtk}


def main() -> None:
    peer, case, out = sys.argv[1:]
    np.save(out, PEERS[peer](*load_case(Path(case))).numpy())


if __name__ == "__main__":
    main()
