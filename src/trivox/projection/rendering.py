"""X-rays of a CT: on which grid it is rendered, how large a detector shows it whole,
and whether it is a CT at all.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trivox.errors import DataError
from trivox.projection.attenuation import WATER_PER_MM, attenuation_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.grids import Point, middle_of, on_grid
from trivox.projection.projector import project
from trivox.volumes.geometry import canonical_orientation
from trivox.volumes.volume import Volume

BODY_HU = -300.0
"""Above it a voxel is body (or table) and not air or lung."""
COARSE_MM = 5.0


def render(
    volume: Volume,
    geometry: Geometry,
    *,
    isocentre: Point | None = None,
    water_per_mm: float = WATER_PER_MM,
) -> NDArray[np.float32]:
    """Line integrals `(v, rows, columns)` of a CT in HU, as `geometry` `(v,)` sees it;
    air around the scan.

    isocentre: RAS mm in the CT's world; None: its middle. Raises `GeometryError` where
    the scan reaches behind a source.
    """
    centre = middle_of(volume) if isocentre is None else isocentre
    grid = rendering_grid(volume, geometry, isocentre=centre)
    hounsfield = torch.from_numpy(on_grid(volume, grid, isocentre=centre))
    attenuation = attenuation_of(hounsfield, water=water_per_mm)
    del hounsfield  # a CT of 512 x 512 x 133 voxels is 140 MB
    views = [
        project(attenuation[None], geometry.select([v]), grid)[0, 0]
        for v in range(geometry.views)
    ]
    images = (
        torch.stack(views) if views else attenuation.new_zeros(0, *geometry.detector)
    )
    return np.asarray(images.numpy(), dtype=np.float32)


def rendering_grid(volume: Volume, geometry: Geometry, *, isocentre: Point) -> Grid:
    """RAS grid about the scan at its own spacing, or half a pixel at the isocentre
    where that is coarser.
    """
    pixel = geometry.pixel_mm * (geometry.sod / geometry.sdd)[:, None]
    finest = float(pixel.min()) / 2 if geometry.views else COARSE_MM
    return grid_about(volume, finest, isocentre=isocentre)


def grid_about(volume: Volume, finest_mm: float, *, isocentre: Point) -> Grid:
    """RAS grid that covers a scan of any orientation, with voxels no smaller than the
    scan's and than `finest_mm`.
    """
    straight = canonical_orientation(volume.affine)
    ends = [(-0.5, size - 0.5) for size in volume.shape[::-1]]
    corners = (
        np.array([[x, y, z, 1] for x in ends[0] for y in ends[1] for z in ends[2]])
        @ volume.affine.T
    )
    low, high = (
        corners[:, :3].min(axis=0)[::-1],
        corners[:, :3].max(axis=0)[::-1],
    )  # (z, y, x)
    shape, spacing = [], []
    for axis, extent in zip(straight.axes, high - low, strict=True):
        count = max(1, int(float(extent) / max(volume.spacing[axis], finest_mm) + 1e-3))
        shape.append(count)
        spacing.append(float(extent) / count)
    x, y, z = ((low + high)[::-1] / 2 - np.array(isocentre)).tolist()
    return Grid(_triple(shape), _triple(spacing), (x, y, z))


def _triple(values: list[Any]) -> Any:
    z, y, x = values
    return z, y, x


# -- does the detector show it whole ---------------------------------------------------
def body_points(volume: Volume, *, isocentre: Point) -> Tensor:
    """Middles of body voxels of about 5 mm, `(n, 3)` mm from the isocentre."""
    grid = grid_about(volume, COARSE_MM, isocentre=isocentre)
    return grid.points()[
        torch.from_numpy(on_grid(volume, grid, isocentre=isocentre)) > BODY_HU
    ]


def share_outside(geometry: Geometry, points: Tensor) -> Tensor:
    """Share `(v,)` of the points `(n, 3)` mm whose image misses the detector."""
    if len(points) == 0:
        return torch.zeros(geometry.views)
    places, _ = geometry.project_points(points)  # (v, n, 2)
    beyond = (places < -0.5) | (places > torch.tensor(geometry.detector) - 0.5)
    return beyond.any(dim=-1).float().mean(dim=-1)


def pixel_to_show(
    points: Tensor, *, detector: tuple[int, int], sod: float, sdd: float
) -> float:
    """The pixel size in mm, rounded up to two digits, at which the detector shows all
    points `(n, 3)` from every side.
    """
    radius, height = (
        (float(points[:, :2].norm(dim=-1).max()), float(points[:, 2].abs().max()))
        if len(points)
        else (1, 1)
    )
    radius, height = radius + COARSE_MM / 2, height + COARSE_MM / 2
    if radius >= sod:
        raise DataError(
            f"the patient reaches {radius:.0f} mm from the isocentre, behind the source at {sod:g} mm; move it"
        )
    around = Geometry.orbit([0.0], detector=detector, pixel_mm=1.0, sod=sod, sdd=sdd)
    width = float(around.width_needed(radius))
    pixel = max(width / detector[1], 2 * height * sdd / (sod - radius) / detector[0])
    step = 10.0 ** (math.floor(math.log10(pixel)) - 1)
    return float(f"{math.ceil(pixel / step) * step:.6g}")


# -- is it a CT ------------------------------------------------------------------------
def doubt_about(volume: Volume) -> str | None:
    """Why the values do not look like HU, or None; raises `DataError` for values that
    cannot be: z-scores, 0 to 1, NaN.
    """
    values = volume.array[..., :: max(1, volume.array.shape[-1] // 128)]
    if volume.channels != 1:
        raise DataError(
            f"a CT has one channel, this volume has {volume.channels}; give one of them"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(
            "the CT holds NaN or infinite values; replace them, for example by -1000"
        )
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    if high - low < 100:
        raise DataError(
            f"values from {low:.3g} to {high:.3g} are no Hounsfield units (z-scores? 0 to 1?); give a CT in HU"
        )
    if low > -200:
        return f"no air: values start at {low:.0f}; raw values are HU + 1024, an MR is no CT, a crop inside the body is fine"
    return (
        f"values up to {high:.0f} are no Hounsfield units of a patient"
        if high > 6000
        else None
    )
