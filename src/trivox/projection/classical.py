"""What can be made of X-rays without learning a network: nearest case, back-projection,
FDK, visual hull.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from trivox.errors import GeometryError
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays


def nearest_by_xrays(images: Tensor, library: Tensor) -> Tensor:
    """Index `(b,)` of the most similar set of X-rays (Euclidean distance).

    images: `(b, v, rows, columns)`; library: `(n, v, rows, columns)`, taken in the same
    geometry.
    """
    if images.shape[1:] != library.shape[1:]:
        raise GeometryError(
            f"X-rays of {tuple(images.shape[1:])} against a library of {tuple(library.shape[1:])}"
        )
    return torch.cdist(images.flatten(1)[None], library.flatten(1)[None])[0].argmin(
        dim=1
    )


def backprojection(xrays: Xrays, projector: Projector) -> Tensor:
    """Unfiltered: each voxel `(b, z, y, x)` is the mean, in 1/mm, of the mean
    attenuations along the rays through it.

    This is the first step of SIRT. It is blurred; `fit_affine` finds the scale that
    suits it best.
    """
    return sirt(xrays, projector, iterations=1, momentum=False)


def fit_affine(
    estimates: Iterable[Tensor], truths: Iterable[Tensor]
) -> tuple[float, float]:
    """Slope and offset with which all estimates come closest to their truths, voxel by
    voxel (least squares).
    """
    sums = torch.zeros(5, dtype=torch.float64)
    for estimate, truth in zip(estimates, truths, strict=True):
        x, y = estimate.double().flatten(), truth.double().flatten()
        sums += torch.stack(
            (x.new_tensor(x.numel()), x.sum(), y.sum(), x @ x, x @ y)
        ).cpu()
    count, x, y, xx, xy = sums.tolist()
    spread = count * xx - x * x
    slope = (count * xy - x * y) / spread if spread > 0 else 0.0
    return slope, (y - slope * x) / count if count else 0.0


# -- voxel by voxel --------------------------------------------------------------------
def visual_hull(silhouettes: Xrays, grid: Grid) -> Tensor:
    """The largest shape with these silhouettes, `(b, z, y, x)` from 0 to 1: the least
    of what the views say of a voxel.

    silhouettes: images of 0 and 1. Voxels that a view does not show are not denied by
    it; without views all are 1. Above 0 it holds the whole shape; at 0.5 it ends where
    the silhouettes do. Laurentini 1994.
    """
    hull = torch.ones(len(silhouettes), *grid.shape, device=silhouettes.images.device)
    for exam, (images, geometry) in enumerate(_exams(silhouettes)):
        for view in range(geometry.views):
            denied, _ = _seen(1 - images[view], geometry.select([view]), grid)
            hull[exam] = torch.minimum(hull[exam], 1 - denied)
    return hull


def fdk(xrays: Xrays, grid: Grid) -> Tensor:
    """Filtered back-projection of cone beams, `(b, z, y, x)` in 1/mm (Feldkamp, Davis
    and Kress 1984).

    For untilted views round the body, ramp filter without window. A view counts for the
    share of the half circle that is nearest to its angle modulo 180 degrees: right for
    full turns and nearly so for half ones (no Parker weights). Made for hundreds of
    views: with eight or fewer, streaks make it worse than SIRT.
    """
    volume = torch.zeros(len(xrays), *grid.shape, device=xrays.images.device)
    for exam, (images, geometry) in enumerate(_exams(xrays)):
        if not geometry.views:
            continue
        share = half_circle_shares(geometry.primary)
        filtered = _ramp_filtered(images * _cone_weights(geometry), geometry)
        for view in range(geometry.views):
            values, depth = _seen(filtered[view], geometry.select([view]), grid)
            volume[exam] += share[view] * (geometry.sod[view] / depth) ** 2 * values
    return volume


def half_circle_shares(primary: Tensor) -> Tensor:
    """Radians of the half circle that are nearest to each of the angles `(v,)` in
    degrees, modulo 180; they add up to pi.
    """
    angles, order = (primary * (math.pi / 180)).remainder(math.pi).sort()
    gaps = (
        torch.cat((angles[1:], angles[:1] + math.pi)) - angles
    )  # to the next angle; the last to the first
    shares = torch.empty_like(angles)
    shares[order] = (gaps + gaps.roll(1)) / 2
    return shares


def _exams(xrays: Xrays) -> list[tuple[Tensor, Geometry]]:
    """Images `(v, rows, columns)` and geometry of the present views of each exam."""
    return [
        (images[there], xrays.geometry.exam(exam).select(there.nonzero().flatten()))
        for exam, (images, there) in enumerate(
            zip(xrays.images, xrays.present, strict=True)
        )
    ]


def _seen(image: Tensor, geometry: Geometry, grid: Grid) -> tuple[Tensor, Tensor]:
    """What a view `(rows, columns)` shows of each voxel, 0 beside the detector, and the
    depth in mm: both `(z, y, x)`.
    """
    points = grid.points(device=image.device).flatten(0, 2)
    pixels, depth = geometry.project_points(points)
    rows, columns = geometry.detector
    places = (pixels[0].flip(-1) + 0.5) * (2 / pixels.new_tensor([columns, rows])) - 1
    values = grid_sample(image[None, None], places[None, None], align_corners=False)
    return values.view(grid.shape), depth[0].view(grid.shape)


def _cone_weights(geometry: Geometry) -> Tensor:
    """Cosine of the angle between each ray and the central one, `(v, rows, columns)`."""
    rays = geometry.pixel_points() - geometry.source[:, None, None, :]
    lengths: Tensor = torch.linalg.vector_norm(rays, dim=-1)
    return geometry.sdd[:, None, None] / lengths


def _ramp_filtered(images: Tensor, geometry: Geometry) -> Tensor:
    """Images `(v, rows, columns)` filtered along their columns on the detector moved to
    the isocentre; 1/mm.

    Band-limited kernel sampled in space (Kak and Slaney 1988, section 3.3): a sampled
    |frequency| would lose the mean.
    """
    columns = images.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * columns))
    lag = torch.arange(size, device=images.device)
    lag = torch.minimum(lag, size - lag)
    odd = torch.where(
        lag % 2 == 1, -1 / (math.pi * lag.clamp(min=1)) ** 2, torch.zeros(())
    )
    kernel = torch.where(lag == 0, 0.25, odd)
    step = (
        geometry.pixel_mm[:, 1] * geometry.sod / geometry.sdd
    )  # (v,) mm at the isocentre
    spectrum = torch.fft.rfft(images, n=size) * torch.fft.rfft(kernel.to(images.dtype))
    filtered: Tensor = torch.fft.irfft(spectrum, n=size)[..., :columns]
    return filtered / step[:, None, None]
