"""The trunk of a drawn chest: fat, breasts, muscle, organs of the upper abdomen."""

import numpy as np

from trivox.datasets.phantoms.thorax_body import AIR, FAT, SOFT, Body, Cage
from trivox.datasets.phantoms.thorax_canvas import (
    EVERYWHERE,
    Canvas,
    Field3,
    Vector,
    smooth_field,
)

MUSCLE_HU = 50.0
FAT_HU = -100.0
STOMACH_HU = 25.0
GAS_HU = -950.0


def paint_trunk(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Skin to ribs: fat, with breasts or not, and muscle with shoulders."""
    outside = _outside_skin(canvas, body)
    fat = FAT_HU + 8 * smooth_field(rng, canvas)
    canvas.paint(EVERYWHERE, canvas.soft(outside.copy()), fat, FAT)
    if body.female:
        _paint_breasts(canvas, body, rng)
    muscle = MUSCLE_HU + 8 * smooth_field(rng, canvas)
    inside = canvas.soft(outside + np.float32(body.fat))
    canvas.paint(EVERYWHERE, inside, muscle, SOFT)
    for side in (-1, 1):
        _paint_shoulder_and_back(canvas, body, side)


def _outside_skin(canvas: Canvas, body: Body) -> Field3:
    """Signed distance in mm to a squircle that narrows upwards (Fernandez-Guasti
    1992).
    """
    up = canvas.z * np.float32(1 / 160)
    girth = 1 + up * (body.taper + body.waist * up)
    across = canvas.x / (body.width * girth)
    along = canvas.y / (body.depth * girth)
    across *= across
    along *= along
    corner = body.squareness * np.minimum(across, 1) * np.minimum(along, 1)
    radius = np.sqrt(across + along - corner)
    return (radius - 1) * np.float32(body.depth)


def _paint_shoulder_and_back(canvas: Canvas, body: Body, side: int) -> None:
    """Shoulder of a raised arm, and the long muscle beside the spine."""
    _, depth = body.cage
    canvas.paint_ellipsoid(
        centre=(side * 0.68 * body.width, -8.0, 150.0),
        radii=(35, 42, 60),
        hounsfield=MUSCLE_HU,
        tissue=SOFT,
    )
    canvas.paint_ellipsoid(
        centre=(side * 26.0, -depth - 4, 0.0),
        radii=(26, 20, 400),
        hounsfield=MUSCLE_HU,
        tissue=SOFT,
    )


def _paint_breasts(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    size = rng.uniform(28, 52)
    glandular = rng.uniform(-90, 0)
    for side in (-1, 1):
        across = side * 0.48 * body.width
        centre = np.array([across, 0.78 * body.depth, rng.uniform(-15, 5)])
        box, share = canvas.ellipsoid(centre, (1.1 * size, 0.75 * size, size))
        outside_body = canvas.hounsfield[box] < -500  # the wall behind stays
        canvas.paint(box, share * outside_body, FAT_HU, FAT)
        canvas.paint_ellipsoid(
            centre=centre + np.array([0, 0.12 * size, 0]),
            radii=(0.6 * size, 0.4 * size, 0.6 * size),
            hounsfield=glandular,
            tissue=SOFT if glandular > -50 else FAT,
        )


def paint_abdomen(
    canvas: Canvas,
    body: Body,
    cage: Cage,
    rng: np.random.Generator,
) -> None:
    """Below the diaphragm: liver, spleen, stomach with a bubble of gas, fat between
    them.
    """
    inside = np.maximum(cage.distance, cage.beyond_dome + 3)
    fat = rng.uniform(-90, 20)
    canvas.paint(cage.box, canvas.soft(inside.copy()), fat, FAT)
    _paint_liver(canvas, body, cage, rng, inside)
    width, depth = body.cage
    low = body.diaphragm - 0.6 * body.dome
    canvas.paint_ellipsoid(
        centre=np.array([-0.62 * width, -0.4 * depth, low - 25]) + _shift(rng),
        radii=np.array([28, 22, 40]) * rng.uniform(0.8, 1.2),
        hounsfield=50 + 0.4 * body.blood,
        tissue=SOFT,
    )
    canvas.paint_ellipsoid(
        centre=np.array([-0.42 * width, 0.3 * depth, low - 22]) + _shift(rng),
        radii=np.array([34, 27, 36]) * rng.uniform(0.8, 1.2),
        hounsfield=STOMACH_HU,
        tissue=SOFT,
    )
    if rng.random() < 0.6:
        gas = rng.uniform(10, 20)
        canvas.paint_ellipsoid(
            centre=(-0.42 * width, 0.45 * depth, low - 14),
            radii=(1.3 * gas, 0.8 * gas, gas),
            hounsfield=GAS_HU,
            tissue=AIR,
        )


def _paint_liver(
    canvas: Canvas,
    body: Body,
    cage: Cage,
    rng: np.random.Generator,
    inside: Field3,
) -> None:
    """What lies to the right of a slanting edge in the abdomen."""
    width, _ = body.cage
    end = rng.uniform(-0.3, 0.1) * width
    edge = end - cage.x + 0.35 * (cage.z - body.diaphragm)
    share = canvas.soft(np.maximum(inside, edge))
    canvas.paint(cage.box, share, 55 + 0.5 * body.blood, SOFT)


def _shift(rng: np.random.Generator) -> Vector:
    """Up to 8 mm along each axis."""
    return rng.uniform(-8, 8, 3)
