"""Bodies whose line integrals are known, and rays followed one at a time, for the tests
of the projector.
"""

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from trivox.projection.geometry import Geometry, Grid

MU = 0.02


def chord_of_box(geometry, half):
    """Length `(v, rows, columns)` mm of each ray in the box of half sizes `(x, y, z)`
    about the isocentre.
    """
    source = geometry.source[:, None, None]
    pixels = geometry.pixel_points()
    direction = pixels - source
    half = torch.tensor(half, dtype=source.dtype)
    ends = torch.stack(((-half - source) / direction, (half - source) / direction))
    inside = ends.amax(dim=0).amin(dim=-1) - ends.amin(dim=0).amax(dim=-1)
    return inside.clamp(min=0) * direction.norm(dim=-1)


def chord_of_sphere(geometry, centre, radius):
    """Length `(v, rows, columns)` mm of each ray in the sphere."""
    source = geometry.source[:, None, None]
    direction = geometry.pixel_points() - source
    direction = torch.nn.functional.normalize(direction, dim=-1)
    from_centre = source - torch.tensor(centre, dtype=source.dtype)
    moment = torch.linalg.cross(from_centre.expand_as(direction), direction)
    across = moment.norm(dim=-1)
    return 2 * (radius**2 - across**2).clamp(min=0).sqrt()


def box(grid, half):
    """Attenuation `(z, y, x)` of the box, whose faces lie between voxels."""
    points = grid.points(dtype=torch.float64)
    inside = points.abs() < torch.tensor(half, dtype=torch.float64)
    return inside.all(dim=-1).to(torch.float64) * MU


def sphere(grid, centre, radius, fine=3):
    """Attenuation `(z, y, x)` of the sphere: the part of each voxel that it fills, of
    fine^3 points.
    """
    sub = grid.resized(tuple(size * fine for size in grid.shape))
    axes = zip(sub.coordinates(dtype=torch.float32), centre[::-1], strict=True)
    z, y, x = ((places - middle) ** 2 for places, middle in axes)
    planes = []
    for layer in z.split(fine):
        distances = layer[:, None, None] + y[:, None] + x
        inside = (distances < radius**2).to(torch.float32)
        shares = torch.nn.functional.avg_pool3d(inside[None, None], fine)
        planes.append(shares[0, 0, 0])
    return torch.stack(planes).to(torch.float64) * MU


def relative(values, expected):
    """Error in the Euclidean norm."""
    return float((values - expected).norm() / expected.norm())


def voxel_ray(geometry: Geometry, grid: Grid, view, row, column):
    """Source and direction of a ray in voxels `(z, y, x)`, float64, and mm of the whole
    direction.
    """
    source = geometry.source[view].double().numpy()
    pixel = geometry.pixel_points()[view, row, column].double().numpy()
    spacing = np.array(grid.spacing)
    middle = (np.array(grid.shape) - 1) / 2
    start = (source - np.array(grid.centre_mm))[::-1] / spacing + middle
    way = pixel - source
    return start, way[::-1] / spacing, float(np.linalg.norm(way))


def sorted_crossings(volume, geometry, grid, view, row, column):
    """Siddon's integral as he wrote it: all crossings of one ray with voxel faces,
    sorted.
    """
    start, direction, length = voxel_ray(geometry, grid, view, row, column)
    faces = []
    for axis, size in enumerate(grid.shape):
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = (np.arange(size + 1) - 0.5 - start[axis]) / direction[axis]
        faces.append(crossed[np.isfinite(crossed)])
    crossings = np.unique(np.concatenate(faces))
    halfway = (crossings[1:] + crossings[:-1]) / 2
    middles = start + halfway[:, None] * direction
    voxels = np.rint(middles).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(grid.shape))).all(axis=1)
    values = volume.numpy()[tuple(voxels[inside].T)]
    return float((values * np.diff(crossings)[inside]).sum() * length)


def interpolated_planes(volume, geometry, grid, view, row, column):
    """Joseph's integral of one ray: scipy's interpolation where it meets the planes of
    the axis it crosses most of.
    """
    start, direction, length = voxel_ray(geometry, grid, view, row, column)
    axis = int(np.argmax(np.abs(direction)))
    along = (np.arange(grid.shape[axis]) - start[axis]) / direction[axis]
    places = start + along[:, None] * direction
    values = map_coordinates(
        volume.numpy(), places.T, order=1, mode="grid-constant", cval=0.0
    )
    return float(values.sum() * length / abs(direction[axis]))
