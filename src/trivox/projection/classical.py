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
            f"X-rays of {tuple(images.shape[1:])} against "
            f"a library of {tuple(library.shape[1:])}"
        )
    given = images.flatten(1)[None]
    known = library.flatten(1)[None]
    distances = torch.cdist(given, known)[0]  # (b, n)
    return distances.argmin(dim=1)


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
    count = 0
    of_x = 0.0
    of_y = 0.0
    of_xx = 0.0
    of_xy = 0.0
    for estimate, truth in zip(estimates, truths, strict=True):
        x = estimate.double().flatten()
        y = truth.double().flatten()
        count += len(x)
        of_x += float(x.sum())
        of_y += float(y.sum())
        of_xx += float(x @ x)
        of_xy += float(x @ y)
    if not count:
        return 0.0, 0.0
    spread = count * of_xx - of_x * of_x
    covariance = count * of_xy - of_x * of_y
    slope = covariance / spread if spread > 0 else 0.0
    return slope, (of_y - slope * of_x) / count


# -- voxel by voxel --------------------------------------------------------------------
def visual_hull(silhouettes: Xrays, grid: Grid) -> Tensor:
    """The largest shape with these silhouettes, `(b, z, y, x)` from 0 to 1: the least
    of what the views say of a voxel.

    silhouettes: images of 0 and 1. Voxels that a view does not show are not denied by
    it; without views all are 1. Above 0 it holds the whole shape; at 0.5 it ends where
    the silhouettes do. Laurentini 1994.
    """
    device = silhouettes.images.device
    hull = torch.ones(len(silhouettes), *grid.shape, device=device)
    for volume, (images, geometry) in zip(hull, _exams(silhouettes), strict=True):
        for view, image in enumerate(images):
            one_view = geometry.select([view])
            denied, _ = _seen(1 - image, one_view, grid)
            allowed = 1 - denied
            torch.minimum(volume, allowed, out=volume)
    return hull


def fdk(xrays: Xrays, grid: Grid) -> Tensor:
    """Filtered back-projection of cone beams, `(b, z, y, x)` in 1/mm (Feldkamp, Davis
    and Kress 1984).

    For untilted views round the body, ramp filter without window. A view counts for the
    share of the half circle that is nearest to its angle modulo 180 degrees: right for
    full turns and nearly so for half ones (no Parker weights). Made for hundreds of
    views: with eight or fewer, streaks make it worse than SIRT.
    """
    device = xrays.images.device
    volumes = torch.zeros(len(xrays), *grid.shape, device=device)
    for volume, (images, geometry) in zip(volumes, _exams(xrays), strict=True):
        if not geometry.views:
            continue
        share = half_circle_shares(geometry.primary)
        weighted = images * _cone_weights(geometry)
        filtered = _ramp_filtered(weighted, geometry)
        for view, image in enumerate(filtered):
            one_view = geometry.select([view])
            values, depth = _seen(image, one_view, grid)
            weight = (geometry.sod[view] / depth) ** 2
            volume += share[view] * weight * values
    return volumes


def half_circle_shares(primary: Tensor) -> Tensor:
    """Radians of the half circle that are nearest to each of the angles `(v,)` in
    degrees, modulo 180; they add up to pi.
    """
    radians = primary * (math.pi / 180)
    angles, order = radians.remainder(math.pi).sort()
    # to the next angle; the last to the first
    first = angles[:1] + math.pi
    following = torch.cat((angles[1:], first))
    gaps = following - angles
    both_sides = gaps + gaps.roll(1)
    shares = torch.empty_like(angles)
    shares[order] = both_sides / 2
    return shares


def _exams(xrays: Xrays) -> list[tuple[Tensor, Geometry]]:
    """Images `(v, rows, columns)` and geometry of the present views of each exam."""
    exams: list[tuple[Tensor, Geometry]] = []
    for exam, present in enumerate(xrays.present):
        views = present.nonzero().flatten()
        geometry = xrays.geometry.exam(exam).select(views)
        images = xrays.images[exam, present]
        exams.append((images, geometry))
    return exams


def _seen(image: Tensor, geometry: Geometry, grid: Grid) -> tuple[Tensor, Tensor]:
    """What a view `(rows, columns)` shows of each voxel, 0 beside the detector, and the
    depth in mm: both `(z, y, x)`.
    """
    points = grid.points(device=image.device).flatten(0, 2)
    pixels, depth = geometry.project_points(points)
    rows, columns = geometry.detector
    scale = 2 / pixels.new_tensor([columns, rows])
    columns_first = pixels[0].flip(-1)
    places = (columns_first + 0.5) * scale - 1  # -1 to 1 on the detector
    places = places[None, None]
    values = grid_sample(image[None, None], places, align_corners=False)
    depth = depth[0].view(grid.shape)
    return values.view(grid.shape), depth


def _cone_weights(geometry: Geometry) -> Tensor:
    """Cosine of the angle between each ray and the central one, `(v, rows, columns)`."""
    source = geometry.source[:, None, None, :]
    rays = geometry.pixel_points() - source
    lengths: Tensor = torch.linalg.vector_norm(rays, dim=-1)
    return geometry.sdd[:, None, None] / lengths


def _ramp_filtered(images: Tensor, geometry: Geometry) -> Tensor:
    """Images `(v, rows, columns)` filtered along their columns on the detector moved to
    the isocentre; 1/mm.

    Band-limited kernel sampled in space (Kak and Slaney 1988, section 3.3): a sampled
    |frequency| would lose the mean.
    """
    columns = images.shape[-1]
    octaves = math.ceil(math.log2(2 * columns))
    size = 2**octaves
    kernel = _ramp_kernel(size, images.device).to(images.dtype)
    response = torch.fft.rfft(kernel)
    spectrum = torch.fft.rfft(images, n=size) * response
    filtered: Tensor = torch.fft.irfft(spectrum, n=size)
    filtered = filtered[..., :columns]
    # (v,) mm at the isocentre
    magnified = geometry.pixel_mm[:, 1]
    step = magnified * geometry.sod / geometry.sdd
    return filtered / step[:, None, None]


def _ramp_kernel(size: int, device: torch.device) -> Tensor:
    """The ramp filter in space, `(size,)`, as a circular convolution takes it: 1/4 at
    lag 0, 0 at even lags, -1 / (pi lag)^2 at odd ones.
    """
    lag = torch.arange(size, device=device)
    lag = torch.minimum(lag, size - lag)
    radians = math.pi * lag.clamp(min=1)
    at_odd = -1 / radians**2
    odd = lag % 2 == 1
    kernel = torch.where(odd, at_odd, torch.zeros(()))
    return torch.where(lag == 0, 0.25, kernel)
