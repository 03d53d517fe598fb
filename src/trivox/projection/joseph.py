"""Joseph's rule: in every plane, bilinear interpolation between the four voxels about
the ray.

Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE Trans Med
Imaging 1(3), 1982.
"""

from trivox.projection.rays import Rays, Taps


def joseph(rays: Rays) -> Taps:
    """Four voxels a plane; weights sum to 1."""
    places = rays.inside(rays.places())  # beyond lie empty voxels only
    first = rays.flat(places.int())
    return rays.corners(first, places.frac_())
