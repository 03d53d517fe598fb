"""X-rays of a CT: on which grid it is rendered, how large a detector shows it whole,
and whether it is a CT at all.
"""

import math
from itertools import product

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
    images = np.zeros((geometry.views, *geometry.detector), np.float32)
    for view in range(geometry.views):
        one_view = geometry.select([view])
        images[view] = project(attenuation[None], one_view, grid)[0, 0].numpy()
    return images


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
    corners = np.array(list(product(*ends, [1]))) @ volume.affine.T
    low = corners[:, :3].min(axis=0)  # (x, y, z)
    high = corners[:, :3].max(axis=0)
    extents = (high - low)[::-1].tolist()
    counts: list[int] = []
    for axis, extent in zip(straight.axes, extents, strict=True):
        step = max(volume.spacing[axis], finest_mm)
        counts.append(max(1, int(extent / step + 1e-3)))
    spacing = [extent / count for extent, count in zip(extents, counts, strict=True)]
    x, y, z = ((low + high) / 2 - np.array(isocentre)).tolist()
    return Grid(
        (counts[0], counts[1], counts[2]),
        (spacing[0], spacing[1], spacing[2]),
        (x, y, z),
    )


# -- does the detector show it whole ---------------------------------------------------
def body_points(volume: Volume, *, isocentre: Point) -> Tensor:
    """Middles of body voxels of about 5 mm, `(n, 3)` mm from the isocentre."""
    grid = grid_about(volume, COARSE_MM, isocentre=isocentre)
    hounsfield = torch.from_numpy(on_grid(volume, grid, isocentre=isocentre))
    return grid.points()[hounsfield > BODY_HU]


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
    radius = 1.0
    height = 1.0
    if len(points):
        radius = float(points[:, :2].norm(dim=-1).max())
        height = float(points[:, 2].abs().max())
    radius += COARSE_MM / 2
    height += COARSE_MM / 2
    if radius >= sod:
        raise DataError(
            f"the patient reaches {radius:.0f} mm from the isocentre, "
            f"behind the source at {sod:g} mm; move it"
        )
    rows, columns = detector
    around = Geometry.orbit([0.0], detector=detector, pixel_mm=1.0, sod=sod, sdd=sdd)
    width_mm = float(around.width_needed(radius))
    height_mm = 2 * height * sdd / (sod - radius)
    pixel = max(width_mm / columns, height_mm / rows)
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
            f"values from {low:.3g} to {high:.3g} are no Hounsfield units "
            "(z-scores? 0 to 1?); give a CT in HU"
        )
    if low > -200:
        return (
            f"no air: values start at {low:.0f}; raw values are HU + 1024, "
            "an MR is no CT, a crop inside the body is fine"
        )
    if high > 6000:
        return f"values up to {high:.0f} are no Hounsfield units of a patient"
    return None
