"""Bodies whose line integrals are known, and rays followed one at a time, for the tests
of the projector.
"""

import numpy as np
import torch

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
    source = geometry.source[:, None, None] - torch.tensor(
        centre, dtype=geometry.sod.dtype
    )
    direction = torch.nn.functional.normalize(
        geometry.pixel_points() - geometry.source[:, None, None], dim=-1
    )
    across = torch.linalg.cross(source.expand_as(direction), direction).norm(dim=-1)
    return 2 * (radius**2 - across**2).clamp(min=0).sqrt()


def box(grid, half):
    """Attenuation `(z, y, x)` of the box, whose faces lie between voxels."""
    inside = (
        grid.points(dtype=torch.float64).abs() < torch.tensor(half, dtype=torch.float64)
    ).all(dim=-1)
    return inside.to(torch.float64) * MU


def sphere(grid, centre, radius, fine=3):
    """Attenuation `(z, y, x)` of the sphere: the part of each voxel that it fills, of
    fine^3 points.
    """
    sub = grid.resized(tuple(size * fine for size in grid.shape))
    z, y, x = sub.coordinates(dtype=torch.float32)
    squares = [
        (axis - middle) ** 2
        for axis, middle in zip((z, y, x), centre[::-1], strict=True)
    ]
    planes = []
    for layer in squares[0].split(fine):
        inside = (
            layer[:, None, None] + squares[1][:, None] + squares[2] < radius**2
        ).to(torch.float32)
        planes.append(torch.nn.functional.avg_pool3d(inside[None, None], fine)[0, 0, 0])
    return torch.stack(planes).to(torch.float64) * MU


def relative(found, expected):
    """Error in the Euclidean norm."""
    return float((found - expected).norm() / expected.norm())


def voxel_ray(geometry: Geometry, grid: Grid, view, row, column):
    """Source and direction of a ray in voxels `(z, y, x)`, float64, and mm of the whole
    direction.
    """
    source = geometry.source[view].double().numpy()
    pixel = geometry.pixel_points()[view, row, column].double().numpy()
    spacing = np.array(grid.spacing)
    start = (source - np.array(grid.centre_mm))[::-1] / spacing + (
        np.array(grid.shape) - 1
    ) / 2
    return (
        start,
        (pixel - source)[::-1] / spacing,
        float(np.linalg.norm(pixel - source)),
    )


def sorted_crossings(volume, geometry, grid, view, row, column):
    """Siddon's integral as he wrote it: all crossings of one ray with voxel faces,
    sorted.
    """
    start, direction, length = voxel_ray(geometry, grid, view, row, column)
    with np.errstate(divide="ignore", invalid="ignore"):
        faces = [
            (np.arange(n + 1) - 0.5 - s) / d
            for n, s, d in zip(grid.shape, start, direction, strict=True)
        ]
    crossings = np.unique(np.concatenate([f[np.isfinite(f)] for f in faces]))
    middles = start + (crossings[1:] + crossings[:-1])[:, None] / 2 * direction
    voxels = np.rint(middles).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(grid.shape))).all(axis=1)
    values = volume.numpy()[tuple(voxels[inside].T)]
    return float((values * np.diff(crossings)[inside]).sum() * length)


def interpolated_planes(volume, geometry, grid, view, row, column):
    """Joseph's integral of one ray: scipy's interpolation where it meets the planes of
    the axis it crosses most of.
    """
    from scipy.ndimage import map_coordinates

    start, direction, length = voxel_ray(geometry, grid, view, row, column)
    axis = int(np.argmax(np.abs(direction)))
    along = (np.arange(grid.shape[axis]) - start[axis]) / direction[axis]
    places = start + along[:, None] * direction
    values = map_coordinates(
        volume.numpy(), places.T, order=1, mode="grid-constant", cval=0.0
    )
    return float(values.sum() * length / abs(direction[axis]))
