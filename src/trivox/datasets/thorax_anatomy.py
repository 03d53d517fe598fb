"""A chest in HU, drawn from random numbers: toy anatomy with the sizes and densities of a real one.

Lengths are mm in the patient's own coordinates: +x right, +y anterior, +z superior, the origin in mid-chest. Densities are
those of textbooks (lung -850..-700, fat -100, muscle 50, trabecular bone 200, cortical 900 HU). It is far simpler than a
patient: few views pin it down far better, so that figures on it promise nothing for real chests.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.phantoms import random_rotation
from trivox.datasets.thorax_canvas import EVERYWHERE, Box, Canvas, Field3, Pose, Vector
from trivox.projection import Grid

TISSUES = ("air", "soft", "fat", "lung", "bone", "heart", "vessel", "nodule")
AIR, SOFT, FAT, LUNG, BONE, HEART, VESSEL, NODULE = range(len(TISSUES))
TOP = 135.0
"""Height of the lungs' apex."""


class Thorax(NamedTuple):
    """HU `(z, y, x)` float32, and the tissue that fills most of each voxel, uint8 index into `TISSUES`."""

    hounsfield: Field3
    tissues: NDArray[np.uint8]


@dataclass(frozen=True)
class _Body:
    """Sizes of one patient in mm, densities in HU."""

    width: float
    depth: float
    squareness: float
    taper: float
    waist: float
    fat: float
    muscle: float
    rib_slope: float
    rib_pitch: float
    rib_phase: float
    diaphragm: float
    dome: float
    mediastinum: float
    spine_back: float
    spine_curve: float
    lung: float
    blood: float
    bone: float
    female: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Body":
        size, stout = rng.uniform(0.8, 1.06), rng.uniform(-1, 1)
        return cls(
            width=size * (136 + 8 * stout + rng.uniform(-4, 4)), depth=size * (93 + 12 * stout + rng.uniform(-5, 5)),
            squareness=rng.uniform(0.15, 0.5), taper=rng.uniform(-0.1, 0.02), waist=rng.uniform(-0.12, 0.0),
            fat=14 + 8 * stout + rng.uniform(-2, 2), muscle=rng.uniform(9, 16), rib_slope=rng.uniform(0.25, 0.55),
            rib_pitch=size * rng.uniform(23, 28), rib_phase=rng.uniform(0, 1), diaphragm=rng.uniform(-95, -20),
            dome=rng.uniform(30, 60), mediastinum=rng.uniform(18, 28), spine_back=rng.uniform(-2, 4),
            spine_curve=rng.uniform(4, 18), lung=rng.uniform(-850, -700), blood=rng.choice([45.0, rng.uniform(50, 150)]),
            bone=rng.uniform(0.75, 1.25), female=bool(rng.random() < 0.5),
        )  # fmt: skip

    @property
    def cage(self) -> tuple[float, float]:
        """Half width and half depth of the space inside the ribs."""
        wall = self.fat + self.muscle + 8
        return self.width - wall, self.depth - wall


def draw_thorax(rng: np.random.Generator, grid: Grid) -> Thorax:
    """A chest on `grid`, in a random pose; equal random numbers give the same patient on any grid, up to its sampling."""
    body = _Body.drawn(rng)
    canvas = Canvas(grid, _pose(rng), hounsfield=-1000)
    _paint_trunk(canvas, body, rng)
    cage = _Cage(canvas, body)
    _paint_abdomen(canvas, body, cage, rng)
    lungs = _paint_lungs(canvas, body, cage, rng)
    _paint_ribs(canvas, body, cage)
    _paint_spine(canvas, body)
    _paint_front_bones(canvas, body, rng)
    heart = _paint_heart(canvas, body, rng)
    _paint_great_vessels(canvas, body, heart, rng)
    _paint_vessel_trees(canvas, body, lungs, rng)
    _paint_nodules(canvas, lungs, rng)
    return Thorax(canvas.hounsfield, canvas.tissues)


def _pose(rng: np.random.Generator) -> Pose:
    """A few degrees about each axis, and a shift."""
    a, b, c = np.radians(rng.uniform(-1, 1, 3) * (8, 5, 8))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return Pose(about_z @ about_y @ about_x, rng.uniform(-1, 1, 3) * (9, 11, 18))


def _smooth(rng: np.random.Generator, canvas: Canvas, size_mm: float = 40.0) -> Field3:
    """A random field of unit variance that varies over about `size_mm`, linear between coarse points."""
    counts = [max(2, round(extent / size_mm) + 1) for extent in canvas.grid.extent_mm]
    field = rng.standard_normal(counts, dtype=np.float32) * np.float32(1.8)  # interpolation lowers the variance
    for axis, (size, count) in enumerate(zip(canvas.grid.shape, counts, strict=True)):
        at = np.linspace(0, count - 1, size, dtype=np.float32)[:, None]
        weights = np.clip(1 - np.abs(at - np.arange(count, dtype=np.float32)), 0, 1)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


# -- trunk -------------------------------------------------------------------------------------------------------------
def _paint_trunk(canvas: Canvas, body: _Body, rng: np.random.Generator) -> None:
    """Skin to ribs: fat, with breasts or not, and muscle with shoulders."""
    up = canvas.z * np.float32(1 / 160)
    girth = 1 + up * (np.float32(body.taper) + np.float32(body.waist) * up)
    u, v = canvas.x / (np.float32(body.width) * girth), canvas.y / (np.float32(body.depth) * girth)
    u *= u
    v *= v
    radius = np.sqrt(u + v - np.float32(body.squareness) * np.minimum(u, 1) * np.minimum(v, 1))  # Fernandez-Guasti 1992
    outside = (radius - 1) * np.float32(body.depth)
    canvas.paint(EVERYWHERE, canvas.soft(outside.copy()), -100 + 8 * _smooth(rng, canvas), FAT)
    if body.female:
        _paint_breasts(canvas, body, rng)
    canvas.paint(EVERYWHERE, canvas.soft(outside + np.float32(body.fat)), 50 + 8 * _smooth(rng, canvas), SOFT)
    for side in (-1, 1):  # shoulders of the raised arms, and the long muscles beside the spine
        for place, radii in (
            ((side * 0.68 * body.width, -8.0, 150.0), (35, 42, 60)),
            ((side * 26.0, -body.cage[1] - 4, 0.0), (26, 20, 400)),
        ):
            box, share = canvas.ellipsoid(place, radii)
            canvas.paint(box, share, 50.0, SOFT)


def _paint_breasts(canvas: Canvas, body: _Body, rng: np.random.Generator) -> None:
    size, glandular = rng.uniform(28, 52), rng.uniform(-90, 0)
    for side in (-1, 1):
        place = np.array([side * 0.48 * body.width, 0.78 * body.depth, rng.uniform(-15, 5)])
        box, share = canvas.ellipsoid(place, (1.1 * size, 0.75 * size, size))
        share = share * (canvas.hounsfield[box] < -500)  # only where air was: the wall behind stays
        canvas.paint(box, share, -100.0, FAT)
        box, share = canvas.ellipsoid(place + (0, 0.12 * size, 0), (0.6 * size, 0.4 * size, 0.6 * size))
        canvas.paint(box, share, glandular, SOFT if glandular > -50 else FAT)


class _Cage:
    """The inside of the ribs: an elliptic tube with a rounded top; fields in its bounding box, signed distances in mm."""

    def __init__(self, canvas: Canvas, body: _Body) -> None:
        width, depth = body.cage
        self.box = canvas.around((0, 0, (TOP - 200) / 2), (width + 9, depth + 9, (TOP + 200) / 2 + 9))
        self.x, self.y, self.z = canvas.places(self.box)
        top = np.maximum(self.z - np.float32(15), 0) * np.float32(1 / (TOP - 15))
        u, v = self.x * np.float32(1 / width), self.y * np.float32(1 / depth)
        self.distance = (np.sqrt(u * u + v * v + top * top) - 1) * np.float32(depth)
        self.beyond_dome = self.z - self._dome(body, width, depth)

    def _dome(self, body: _Body, width: float, depth: float) -> Field3:
        """Height of the diaphragm: two domes, the right one (over the liver) higher."""
        right = self.x > 0
        across = (np.abs(self.x) - np.float32(0.48 * width)) * np.float32(1.5 / width)
        along = (self.y - np.float32(0.15 * depth)) * np.float32(1.1 / depth)
        top = np.where(right, np.float32(body.diaphragm + 7), np.float32(body.diaphragm - 7))
        return np.asarray(top - np.float32(body.dome) * (across * across + along * along))


def _paint_abdomen(canvas: Canvas, body: _Body, cage: _Cage, rng: np.random.Generator) -> None:
    """Below the diaphragm: liver, spleen, stomach with a bubble of gas, fat between them."""
    width, depth = body.cage
    inside = np.maximum(cage.distance, cage.beyond_dome + 3)
    canvas.paint(cage.box, canvas.soft(inside.copy()), rng.uniform(-90, 20), FAT)
    edge = np.float32(rng.uniform(-0.3, 0.1) * width) - cage.x + 0.35 * (cage.z - np.float32(body.diaphragm))
    canvas.paint(cage.box, canvas.soft(np.maximum(inside, edge)), 55 + 0.5 * body.blood, SOFT)
    low = body.diaphragm - 0.6 * body.dome
    organs = (
        ((-0.62 * width, -0.4 * depth, low - 25), (28, 22, 40), 50 + 0.4 * body.blood),
        ((-0.42 * width, 0.3 * depth, low - 22), (34, 27, 36), 25.0),
    )
    for place, radii, level in organs:
        box, share = canvas.ellipsoid(np.array(place) + rng.uniform(-8, 8, 3), np.array(radii) * rng.uniform(0.8, 1.2))
        canvas.paint(box, share, level, SOFT)
    if rng.random() < 0.6:
        gas = rng.uniform(10, 20)
        box, share = canvas.ellipsoid((-0.42 * width, 0.45 * depth, low - 14), (1.3 * gas, 0.8 * gas, gas))
        canvas.paint(box, share, -950.0, AIR)


def _paint_lungs(canvas: Canvas, body: _Body, cage: _Cage, rng: np.random.Generator) -> tuple[Box, Field3]:
    """Both lungs, denser at the back where blood sinks to; returns where they are."""
    _, depth = body.cage
    shift = np.float32(rng.uniform(-6, 6))
    front = np.clip(cage.y * np.float32(1 / depth), 0, 1)
    middle = np.float32(body.mediastinum) * (1 - np.float32(0.55) * front) - np.abs(cage.x - shift)
    share = canvas.soft(np.maximum(np.maximum(cage.distance + 2, middle), cage.beyond_dome * np.float32(-0.8)))
    level = body.lung - cage.y * np.float32(rng.uniform(0.2, 0.8)) + 22 * _smooth(rng, canvas, 30.0)[cage.box]
    canvas.paint(cage.box, share, level, LUNG)
    return cage.box, share


# -- bones -------------------------------------------------------------------------------------------------------------
def _paint_ribs(canvas: Canvas, body: _Body, cage: _Cage) -> None:
    """Bands of the cage's wall, lower in front; their front ends are cartilage."""
    _, depth = body.cage
    shell = canvas.soft(np.abs(cage.distance - np.float32(3.5)) - np.float32(3.5))
    run = (cage.z + np.float32(body.rib_slope) * (cage.y + np.float32(depth))) * np.float32(1 / body.rib_pitch)
    run -= np.float32(body.rib_phase)
    run -= np.rint(run)
    band = canvas.soft(np.abs(run) * np.float32(body.rib_pitch) - np.float32(6))
    band *= shell
    cartilage = canvas.soft(np.float32(0.72 * depth) - cage.y)
    bone = np.float32(520 * body.bone)
    canvas.paint(cage.box, band, bone + cartilage * (np.float32(110) - bone), None)
    canvas.tissues[cage.box][(band > 0.5) & (cartilage < 0.5)] = BONE


def _paint_spine(canvas: Canvas, body: _Body) -> None:
    """Vertebrae with discs between them, the canal, arches and processes, on a curve."""
    _, depth = body.cage
    box = canvas.around((0, -depth - body.spine_back, 0), (42, 62, 190))
    x, y, z = canvas.places(box)
    bend = (z - np.float32(10)) * np.float32(1 / 150)
    y = y + np.float32(depth - 16 + body.spine_back) - np.float32(body.spine_curve) * bend * bend
    pitch = np.float32(body.rib_pitch)
    level = z * (1 / pitch) - np.float32(body.rib_phase)
    level = np.abs(level - np.rint(level)) * pitch  # mm from the middle of a vertebra
    rim = (np.sqrt((x / 18) ** 2 + (y / 15) ** 2) - 1) * np.float32(15)
    bone = np.float32(body.bone)
    inner = 190 * bone + canvas.soft(-3 - rim) * (450 * bone)
    disc = canvas.soft(pitch / 2 - np.float32(3) - level)
    canvas.paint(box, canvas.soft(rim.copy()), inner + disc * (90 - inner), BONE)
    arch = (np.sqrt((x / 15) ** 2 + ((y + 25) / 13) ** 2) - 1) * np.float32(13)
    body_of_level = canvas.soft(level - np.float32(0.36 * body.rib_pitch))
    canvas.paint(box, canvas.soft(arch) * body_of_level, 420 * bone, BONE)
    tip = max(38.0, 13 + body.fat + body.muscle)  # under the skin
    behind = np.maximum(np.abs(x) - 4, np.abs(y + np.float32(0.5 * (tip + 32))) - np.float32(0.5 * (tip - 32)))
    across = np.maximum(np.abs(x) - 33, np.abs(y + 26) - 5)
    canvas.paint(box, canvas.soft(np.minimum(behind, across)) * canvas.soft(level - 6), 420 * bone, BONE)
    canal = (np.sqrt((x / 9) ** 2 + ((y + 23) / 8) ** 2) - 1) * np.float32(8)
    canvas.paint(box, canvas.soft(canal), 30.0, SOFT)


def _paint_front_bones(canvas: Canvas, body: _Body, rng: np.random.Generator) -> None:
    """Sternum, clavicles, shoulder blades and the heads of the raised arms."""
    width, depth = body.cage
    bone = body.bone
    box, share = canvas.ellipsoid((0, 0.97 * depth, 18), (17, 6, 75))
    canvas.paint(box, share, 280 * bone, BONE)
    for side in (-1, 1):
        inner = np.array([side * 18.0, 0.72 * depth, 98.0])
        outer = np.array([side * 0.74 * body.width, -4.0, rng.uniform(120, 145)])
        box, share = canvas.tube(inner, outer, 6.0)
        canvas.paint(box, share, 480 * bone, BONE)
        box, share = canvas.ellipsoid(outer + (side * 6, -2, 22), (20, 20, 22))
        canvas.paint(box, share, 330 * bone, BONE)
        tilt = np.radians(side * rng.uniform(25, 45))
        plate = np.array([[np.cos(tilt), np.sin(tilt), 0], [-np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
        blade = np.array([side * 0.72 * width, -0.88 * depth - 10, 75.0 + rng.uniform(-10, 10)])
        box, share = canvas.ellipsoid(blade, (34, 4.5, 55), plate)
        canvas.paint(box, share, 380 * bone, BONE)


# -- heart and vessels -------------------------------------------------------------------------------------------------
def _paint_heart(canvas: Canvas, body: _Body, rng: np.random.Generator) -> Vector:
    """Heart and the atria behind it; returns its centre."""
    _, depth = body.cage
    radii = np.array([50, 38, 42]) * rng.uniform(0.85, 1.15) * rng.uniform(0.93, 1.07, 3)
    centre = np.array([-20 + rng.uniform(-8, 8), 0.24 * depth + rng.uniform(-6, 6), body.diaphragm + 0.62 * radii[2]])
    yaw, roll = np.radians(rng.uniform(15, 45)), np.radians(rng.uniform(10, 40))
    axis = np.array([-np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), -np.sin(roll)])
    second = np.cross([0, 0, 1.0], axis)
    second /= np.linalg.norm(second)
    box, share = canvas.ellipsoid(centre, radii, np.stack([axis, second, np.cross(axis, second)]))
    canvas.paint(box, share, max(40.0, 0.8 * body.blood), HEART)
    box, share = canvas.ellipsoid(centre + (24, -10, 22), 0.62 * radii)
    canvas.paint(box, share, body.blood, HEART)
    return centre


def _paint_great_vessels(canvas: Canvas, body: _Body, heart: Vector, rng: np.random.Generator) -> None:
    """Aorta with its arch, pulmonary trunk, venae cavae; the airway."""
    _, depth = body.cage
    radius = rng.uniform(11, 16)
    arch = 62 + rng.uniform(-12, 12)
    back = -0.55 * depth
    aorta = [heart + (8, 0, 30), (12, 0.15 * depth, arch - 22), (0, 0, arch), (-14, 0.5 * back, arch - 4),
             (-20, back, arch - 26), (-15, back, -60), (-8, back, -190)]  # fmt: skip
    trunk = [heart + (-6, 14, 24), (-8, 4, 32), (36, -6, 26)]
    cava = [(24, 6, 104), (22, 4, 24), heart + (30, -6, 10)]
    for course, size in ((aorta, radius), (trunk, 11.0), ([(-8, 4, 32), (-38, -8, 30)], 10.0), (cava, 9.0)):
        _paint_course(canvas, course, size, body.blood, VESSEL)
    fork = np.array([0.0, -8.0, 50.0 + rng.uniform(-8, 8)])
    for end, size in (((0, -4, 190), 8.5), ((42, -10, fork[2] - 28), 6.5), ((-44, -10, fork[2] - 30), 6.0)):
        _paint_course(canvas, [fork, end], size, -980.0, AIR)


def _paint_course(canvas: Canvas, points: list[object], radius: float, level: float, tissue: int) -> None:
    places = [np.asarray(point, float) for point in points]
    for start, end in zip(places, places[1:], strict=False):
        box, share = canvas.tube(start, end, radius)
        canvas.paint(box, share, level, tissue)


def _paint_vessel_trees(canvas: Canvas, body: _Body, lungs: tuple[Box, Field3], rng: np.random.Generator) -> None:
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


def _paint_nodules(canvas: Canvas, lungs: tuple[Box, Field3], rng: np.random.Generator) -> None:
    """Up to four round lesions anywhere in the lungs, solid or ground glass."""
    box, share = lungs
    for _ in range(rng.integers(0, 5)):
        sizes, level = rng.uniform(4, 14) * rng.uniform(0.8, 1.2, 3), rng.choice([rng.uniform(0, 80), -500.0])
        spot = rng.random()
        rows = np.flatnonzero(share > 0.9)
        if not len(rows):
            return
        flat = rows[int(spot * len(rows))]
        centre = np.array([along[box].ravel()[flat] for along in (canvas.x, canvas.y, canvas.z)], float)
        where, part = canvas.ellipsoid(centre, sizes, random_rotation(rng))
        canvas.paint(where, part, level, NODULE)
