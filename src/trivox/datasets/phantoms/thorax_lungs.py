"""The lungs of a drawn chest, the vessels that fork in them, and nodules."""

from typing import NamedTuple

import numpy as np

from trivox.datasets.phantoms.ellipsoids import random_rotation
from trivox.datasets.phantoms.thorax_body import LUNG, NODULE, VESSEL, Body, Cage
from trivox.datasets.phantoms.thorax_canvas import (
    Box,
    Canvas,
    Field3,
    Vector,
    smooth_field,
)

GROUND_GLASS_HU = -500.0
MOST_NODULES = 4


class Lungs(NamedTuple):
    """Where the lungs are: a box, and their share of each of its voxels."""

    box: Box
    share: Field3


def paint_lungs(
    canvas: Canvas,
    body: Body,
    cage: Cage,
    rng: np.random.Generator,
) -> Lungs:
    """Both lungs, denser at the back where blood sinks to; returns where they are."""
    _, depth = body.cage
    shift = np.float32(rng.uniform(-6, 6))
    front = np.clip(cage.y * np.float32(1 / depth), 0, 1)
    half_width = np.float32(body.mediastinum) * (1 - np.float32(0.55) * front)
    middle = half_width - np.abs(cage.x - shift)
    below_dome = cage.beyond_dome * np.float32(-0.8)
    outside = np.maximum(cage.distance + 2, middle)
    share = canvas.soft(np.maximum(outside, below_dome))
    slope = np.float32(rng.uniform(0.2, 0.8))
    texture = 22 * smooth_field(rng, canvas, 30.0)[cage.box]
    canvas.paint(cage.box, share, body.lung - cage.y * slope + texture, LUNG)
    return Lungs(cage.box, share)


class _Generation(NamedTuple):
    """Branches of one order: mm; forks: branches that grow from each end; turn:
    standard deviation of their headings.
    """

    radius: float
    length: float
    forks: int
    turn: float


GENERATIONS = (
    _Generation(radius=5.5, length=40, forks=5, turn=0.95),
    _Generation(radius=3.6, length=36, forks=2, turn=0.5),
    _Generation(radius=2.4, length=30, forks=2, turn=0.5),
)


class _End(NamedTuple):
    """Where a branch ends, and the direction that it has there."""

    place: Vector
    heading: Vector


def paint_vessel_trees(
    canvas: Canvas,
    body: Body,
    lungs: Lungs,
    rng: np.random.Generator,
) -> None:
    """Arteries and veins that fork three times from each hilum, inside the lungs only."""
    inside = np.zeros(canvas.grid.shape, np.float32)
    inside[lungs.box] = lungs.share
    for side in (-1, 1):
        hilum = np.array([side * 36.0, -6.0, 28.0])
        ends = [_End(hilum, np.array([side, 0.0, 0.0]))]
        for generation in GENERATIONS:
            grown = []
            for end in ends:
                for _ in range(generation.forks):
                    tip = _grown(end, generation, rng)
                    radius = generation.radius
                    box, share = canvas.tube(end.place, tip.place, radius, 0.7 * radius)
                    canvas.paint(box, share * inside[box], body.blood, VESSEL)
                    grown.append(tip)
            ends = grown


def _grown(end: _End, generation: _Generation, rng: np.random.Generator) -> _End:
    """The end of a branch that grows from `end`."""
    heading = end.heading + rng.normal(0, generation.turn, 3)
    heading /= np.linalg.norm(heading)
    run = heading * generation.length * rng.uniform(0.75, 1.2)
    return _End(end.place + run, heading)


def paint_nodules(canvas: Canvas, lungs: Lungs, rng: np.random.Generator) -> None:
    """Up to four round lesions anywhere in the lungs, solid or ground glass."""
    for _ in range(rng.integers(0, MOST_NODULES + 1)):
        radii = rng.uniform(4, 14) * rng.uniform(0.8, 1.2, 3)
        level = rng.choice([rng.uniform(0, 80), GROUND_GLASS_HU])
        spot = rng.random()
        voxels = np.flatnonzero(lungs.share > 0.9)
        if not len(voxels):
            return
        voxel = voxels[int(spot * len(voxels))]
        places = canvas.places(lungs.box)
        centre = np.array([along.ravel()[voxel] for along in places], float)
        canvas.paint_ellipsoid(
            centre=centre,
            radii=radii,
            hounsfield=level,
            tissue=NODULE,
            turn=random_rotation(rng),
        )
