"""A chest in HU, drawn from random numbers: toy anatomy with the sizes and densities of
a real one.

Lengths are mm in the patient's own coordinates: +x right, +y anterior, +z superior, the
origin in mid-chest. Densities are those of textbooks (lung -850..-700, fat -100, muscle
50, trabecular bone 200, cortical 900 HU). It is far simpler than a patient: few views
pin it down far better, so that figures on it promise nothing for real chests.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.phantoms.ellipsoids import random_rotation
from trivox.datasets.phantoms.thorax_body import (
    AIR,
    FAT,
    HEART,
    LUNG,
    NODULE,
    SOFT,
    VESSEL,
    Body,
    Cage,
)
from trivox.datasets.phantoms.thorax_canvas import (
    EVERYWHERE,
    Box,
    Canvas,
    Field3,
    Pose,
    Vector,
)
from trivox.datasets.phantoms.thorax_skeleton import (
    paint_front_bones,
    paint_ribs,
    paint_spine,
)
from trivox.projection.geometry import Grid


class Thorax(NamedTuple):
    """HU `(z, y, x)` float32, and the tissue that fills most of each voxel, uint8 index
    into `TISSUES`.
    """

    hounsfield: Field3
    tissues: NDArray[np.uint8]


def draw_thorax(rng: np.random.Generator, grid: Grid) -> Thorax:
    """A chest on `grid`, in a random pose; equal random numbers give the same patient
    on any grid, up to its sampling.
    """
    body = Body.drawn(rng)
    canvas = Canvas(grid, _pose(rng), hounsfield=-1000)
    _paint_trunk(canvas, body, rng)
    cage = Cage(canvas, body)
    _paint_abdomen(canvas, body, cage, rng)
    lungs = _paint_lungs(canvas, body, cage, rng)
    paint_ribs(canvas, body, cage)
    paint_spine(canvas, body)
    paint_front_bones(canvas, body, rng)
    heart = _paint_heart(canvas, body, rng)
    _paint_great_vessels(canvas, body, heart, rng)
    _paint_vessel_trees(canvas, body, lungs, rng)
    _paint_nodules(canvas, lungs, rng)
    return Thorax(canvas.hounsfield, canvas.tissues)


def _pose(rng: np.random.Generator) -> Pose:
    """A few degrees about each axis, and a shift."""
    a, b, c = np.radians(rng.uniform(-1, 1, 3) * (8, 5, 8))
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    )
    about_y = np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    about_z = np.array(
        [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    )
    return Pose(about_z @ about_y @ about_x, rng.uniform(-1, 1, 3) * (9, 11, 18))


def _smooth(rng: np.random.Generator, canvas: Canvas, size_mm: float = 40.0) -> Field3:
    """A random field of unit variance that varies over about `size_mm`, linear between
    coarse points.
    """
    counts = [max(2, round(extent / size_mm) + 1) for extent in canvas.grid.extent_mm]
    field = rng.standard_normal(counts, dtype=np.float32) * np.float32(
        1.8
    )  # interpolation lowers the variance
    for axis, (size, count) in enumerate(zip(canvas.grid.shape, counts, strict=True)):
        at = np.linspace(0, count - 1, size, dtype=np.float32)[:, None]
        weights = np.clip(1 - np.abs(at - np.arange(count, dtype=np.float32)), 0, 1)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


# -- trunk -----------------------------------------------------------------------------
def _paint_trunk(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Skin to ribs: fat, with breasts or not, and muscle with shoulders."""
    up = canvas.z * np.float32(1 / 160)
    girth = 1 + up * (np.float32(body.taper) + np.float32(body.waist) * up)
    u, v = (
        canvas.x / (np.float32(body.width) * girth),
        canvas.y / (np.float32(body.depth) * girth),
    )
    u *= u
    v *= v
    radius = np.sqrt(
        u + v - np.float32(body.squareness) * np.minimum(u, 1) * np.minimum(v, 1)
    )  # Fernandez-Guasti 1992
    outside = (radius - 1) * np.float32(body.depth)
    canvas.paint(
        EVERYWHERE, canvas.soft(outside.copy()), -100 + 8 * _smooth(rng, canvas), FAT
    )
    if body.female:
        _paint_breasts(canvas, body, rng)
    canvas.paint(
        EVERYWHERE,
        canvas.soft(outside + np.float32(body.fat)),
        50 + 8 * _smooth(rng, canvas),
        SOFT,
    )
    for side in (
        -1,
        1,
    ):  # shoulders of the raised arms, and the long muscles beside the spine
        for place, radii in (
            ((side * 0.68 * body.width, -8.0, 150.0), (35, 42, 60)),
            ((side * 26.0, -body.cage[1] - 4, 0.0), (26, 20, 400)),
        ):
            box, share = canvas.ellipsoid(place, radii)
            canvas.paint(box, share, 50.0, SOFT)


def _paint_breasts(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    size, glandular = rng.uniform(28, 52), rng.uniform(-90, 0)
    for side in (-1, 1):
        place = np.array(
            [side * 0.48 * body.width, 0.78 * body.depth, rng.uniform(-15, 5)]
        )
        box, share = canvas.ellipsoid(place, (1.1 * size, 0.75 * size, size))
        share = share * (
            canvas.hounsfield[box] < -500
        )  # only where air was: the wall behind stays
        canvas.paint(box, share, -100.0, FAT)
        box, share = canvas.ellipsoid(
            place + np.array([0, 0.12 * size, 0]), (0.6 * size, 0.4 * size, 0.6 * size)
        )
        canvas.paint(box, share, glandular, SOFT if glandular > -50 else FAT)


def _paint_abdomen(
    canvas: Canvas, body: Body, cage: Cage, rng: np.random.Generator
) -> None:
    """Below the diaphragm: liver, spleen, stomach with a bubble of gas, fat between
    them.
    """
    width, depth = body.cage
    inside = np.maximum(cage.distance, cage.beyond_dome + 3)
    canvas.paint(cage.box, canvas.soft(inside.copy()), rng.uniform(-90, 20), FAT)
    edge = (
        np.float32(rng.uniform(-0.3, 0.1) * width)
        - cage.x
        + 0.35 * (cage.z - np.float32(body.diaphragm))
    )
    canvas.paint(
        cage.box, canvas.soft(np.maximum(inside, edge)), 55 + 0.5 * body.blood, SOFT
    )
    low = body.diaphragm - 0.6 * body.dome
    organs = (
        ((-0.62 * width, -0.4 * depth, low - 25), (28, 22, 40), 50 + 0.4 * body.blood),
        ((-0.42 * width, 0.3 * depth, low - 22), (34, 27, 36), 25.0),
    )
    for place, radii, level in organs:
        box, share = canvas.ellipsoid(
            np.array(place) + rng.uniform(-8, 8, 3),
            np.array(radii) * rng.uniform(0.8, 1.2),
        )
        canvas.paint(box, share, level, SOFT)
    if rng.random() < 0.6:
        gas = rng.uniform(10, 20)
        box, share = canvas.ellipsoid(
            (-0.42 * width, 0.45 * depth, low - 14), (1.3 * gas, 0.8 * gas, gas)
        )
        canvas.paint(box, share, -950.0, AIR)


def _paint_lungs(
    canvas: Canvas, body: Body, cage: Cage, rng: np.random.Generator
) -> tuple[Box, Field3]:
    """Both lungs, denser at the back where blood sinks to; returns where they are."""
    _, depth = body.cage
    shift = np.float32(rng.uniform(-6, 6))
    front = np.clip(cage.y * np.float32(1 / depth), 0, 1)
    middle = np.float32(body.mediastinum) * (1 - np.float32(0.55) * front) - np.abs(
        cage.x - shift
    )
    share = canvas.soft(
        np.maximum(
            np.maximum(cage.distance + 2, middle), cage.beyond_dome * np.float32(-0.8)
        )
    )
    level = (
        body.lung
        - cage.y * np.float32(rng.uniform(0.2, 0.8))
        + 22 * _smooth(rng, canvas, 30.0)[cage.box]
    )
    canvas.paint(cage.box, share, level, LUNG)
    return cage.box, share


# -- heart and vessels -----------------------------------------------------------------
def _paint_heart(canvas: Canvas, body: Body, rng: np.random.Generator) -> Vector:
    """Heart and the atria behind it; returns its centre."""
    _, depth = body.cage
    radii = (
        np.array([50, 38, 42]) * rng.uniform(0.85, 1.15) * rng.uniform(0.93, 1.07, 3)
    )
    centre = np.array(
        [
            -20 + rng.uniform(-8, 8),
            0.24 * depth + rng.uniform(-6, 6),
            body.diaphragm + 0.62 * radii[2],
        ]
    )
    yaw, roll = np.radians(rng.uniform(15, 45)), np.radians(rng.uniform(10, 40))
    axis = np.array(
        [-np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), -np.sin(roll)]
    )
    second = np.cross([0, 0, 1.0], axis)
    second /= np.linalg.norm(second)
    box, share = canvas.ellipsoid(
        centre, radii, np.stack([axis, second, np.cross(axis, second)])
    )
    canvas.paint(box, share, max(40.0, 0.8 * body.blood), HEART)
    box, share = canvas.ellipsoid(centre + np.array([24, -10, 22]), 0.62 * radii)
    canvas.paint(box, share, body.blood, HEART)
    return centre


def _paint_great_vessels(
    canvas: Canvas, body: Body, heart: Vector, rng: np.random.Generator
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
    trunk = [heart + np.array([-6, 14, 24]), (-8, 4, 32), (36, -6, 26)]
    cava = [(24, 6, 104), (22, 4, 24), heart + np.array([30, -6, 10])]
    left = [(-8, 4, 32), (-38, -8, 30)]
    for course, size in ((aorta, radius), (trunk, 11.0), (left, 10.0), (cava, 9.0)):
        _paint_course(canvas, course, size, body.blood, VESSEL)
    fork = np.array([0.0, -8.0, 50.0 + rng.uniform(-8, 8)])
    for end, size in (
        ((0, -4, 190), 8.5),
        ((42, -10, fork[2] - 28), 6.5),
        ((-44, -10, fork[2] - 30), 6.0),
    ):
        _paint_course(canvas, [fork, end], size, -980.0, AIR)


def _paint_course(
    canvas: Canvas,
    points: Sequence[Vector | Sequence[float]],
    radius: float,
    level: float,
    tissue: int,
) -> None:
    for start, end in pairwise(np.asarray(point, float) for point in points):
        box, share = canvas.tube(start, end, radius)
        canvas.paint(box, share, level, tissue)


def _paint_vessel_trees(
    canvas: Canvas, body: Body, lungs: tuple[Box, Field3], rng: np.random.Generator
) -> None:
    """Arteries and veins that fork three times from each hilum, inside the lungs only."""
    inside = np.zeros(canvas.grid.shape, np.float32)
    inside[lungs[0]] = lungs[1]
    for side in (-1, 1):
        ends = [(np.array([side * 36.0, -6.0, 28.0]), np.array([side, 0.0, 0.0]))]
        for radius, length, forks in ((5.5, 40, 5), (3.6, 36, 2), (2.4, 30, 2)):
            grown = []
            for start, heading in ends:
                for _ in range(forks):
                    turned = heading + rng.normal(0, 0.95 if forks > 2 else 0.5, 3)
                    turned /= np.linalg.norm(turned)
                    end = start + turned * length * rng.uniform(0.75, 1.2)
                    box, share = canvas.tube(start, end, radius, 0.7 * radius)
                    canvas.paint(box, share * inside[box], body.blood, VESSEL)
                    grown.append((end, turned))
            ends = grown


def _paint_nodules(
    canvas: Canvas, lungs: tuple[Box, Field3], rng: np.random.Generator
) -> None:
    """Up to four round lesions anywhere in the lungs, solid or ground glass."""
    box, share = lungs
    for _ in range(rng.integers(0, 5)):
        sizes, level = (
            rng.uniform(4, 14) * rng.uniform(0.8, 1.2, 3),
            rng.choice([rng.uniform(0, 80), -500.0]),
        )
        spot = rng.random()
        rows = np.flatnonzero(share > 0.9)
        if not len(rows):
            return
        flat = rows[int(spot * len(rows))]
        centre = np.array(
            [along[box].ravel()[flat] for along in (canvas.x, canvas.y, canvas.z)],
            float,
        )
        where, part = canvas.ellipsoid(centre, sizes, random_rotation(rng))
        canvas.paint(where, part, level, NODULE)
