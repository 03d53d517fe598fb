"""Joseph's rule: in every plane, bilinear interpolation between the four voxels about
the ray.

Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE Trans Med
Imaging 1(3), 1982.
"""

from trivox.projection.rays import Rays, Taps


def joseph(rays: Rays) -> Taps:
    """Four voxels a plane; weights sum to 1."""
    places = rays.inside(rays.places())  # beyond lie empty voxels only
    stride_p, stride_q = rays.others
    corner = rays.flat(places.int())
    p, q = places.frac_()
    both = p * q
    p_only = p.sub_(both)
    neither = (1 - q).sub_(p_only)
    q_only = q.sub_(both)
    return [
        (corner, neither),
        (corner + stride_q, q_only),
        (corner + stride_p, p_only),
        (corner + (stride_p + stride_q), both),
    ]
