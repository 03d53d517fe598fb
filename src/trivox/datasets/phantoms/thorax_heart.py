"""The heart of a drawn chest, the great vessels and the airway."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from trivox.datasets.phantoms.thorax_body import AIR, HEART, VESSEL, Body
from trivox.datasets.phantoms.thorax_canvas import Canvas, Point, Rotation, Vector

AIRWAY_HU = -980.0


def paint_heart(canvas: Canvas, body: Body, rng: np.random.Generator) -> Vector:
    """Heart and the atria behind it; returns its centre."""
    _, depth = body.cage
    size = rng.uniform(0.85, 1.15)
    radii = np.array([50, 38, 42]) * size * rng.uniform(0.93, 1.07, 3)
    across = -20 + rng.uniform(-8, 8)
    along = 0.24 * depth + rng.uniform(-6, 6)
    centre = np.array([across, along, body.diaphragm + 0.62 * radii[2]])
    canvas.paint_ellipsoid(
        centre=centre,
        radii=radii,
        hounsfield=max(40.0, 0.8 * body.blood),
        tissue=HEART,
        turn=_heart_axes(rng),
    )
    canvas.paint_ellipsoid(
        centre=centre + np.array([24, -10, 22]),
        radii=0.62 * radii,
        hounsfield=body.blood,
        tissue=HEART,
    )
    return centre


def _heart_axes(rng: np.random.Generator) -> Rotation:
    """The long axis, to the left, front and bottom, and two across it, as rows."""
    yaw = np.radians(rng.uniform(15, 45))
    roll = np.radians(rng.uniform(10, 40))
    level = np.cos(roll)
    axis = np.array([-np.cos(yaw) * level, np.sin(yaw) * level, -np.sin(roll)])
    second = np.cross([0, 0, 1.0], axis)
    second /= np.linalg.norm(second)
    return np.stack([axis, second, np.cross(axis, second)])


def paint_great_vessels(
    canvas: Canvas,
    body: Body,
    heart: Vector,
    rng: np.random.Generator,
) -> None:
    """Aorta with its arch, pulmonary trunk, venae cavae; the airway."""
    _, depth = body.cage
    radius = rng.uniform(11, 16)
    arch = 62 + rng.uniform(-12, 12)
    back = -0.42 * depth
    aorta = [
        heart + np.array([8, 0, 30]),
        (12, 0.15 * depth, arch - 22),
        (0, 0, arch),
        (-16, 0.5 * back, arch - 4),
        (-28, back, arch - 26),
        (-26, back, -60),
        (-20, back, -190),
    ]
    _paint_course(canvas, aorta, radius, body.blood, VESSEL)
    trunk = [heart + np.array([-6, 14, 24]), (-8, 4, 32), (36, -6, 26)]
    _paint_course(canvas, trunk, 11.0, body.blood, VESSEL)
    left_branch = [(-8, 4, 32), (-38, -8, 30)]
    _paint_course(canvas, left_branch, 10.0, body.blood, VESSEL)
    cava = [(24, 6, 104), (22, 4, 24), heart + np.array([30, -6, 10])]
    _paint_course(canvas, cava, 9.0, body.blood, VESSEL)
    _paint_airway(canvas, rng)


def _paint_airway(canvas: Canvas, rng: np.random.Generator) -> None:
    """Trachea and the two main bronchi."""
    height = 50.0 + rng.uniform(-8, 8)
    fork = (0.0, -8.0, height)
    _paint_course(canvas, [fork, (0, -4, 190)], 8.5, AIRWAY_HU, AIR)
    _paint_course(canvas, [fork, (42, -10, height - 28)], 6.5, AIRWAY_HU, AIR)
    _paint_course(canvas, [fork, (-44, -10, height - 30)], 6.0, AIRWAY_HU, AIR)


def _paint_course(
    canvas: Canvas,
    points: Sequence[Point],
    radius: float,
    level: float,
    tissue: int,
) -> None:
    for start, end in pairwise(np.asarray(point, float) for point in points):
        box, share = canvas.tube(start, end, radius)
        canvas.paint(box, share, level, tissue)
