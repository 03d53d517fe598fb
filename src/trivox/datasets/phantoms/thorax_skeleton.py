"""The bones of a drawn chest: ribs, spine, sternum, shoulder girdle."""

from typing import NamedTuple

import numpy as np

from trivox.datasets.phantoms.thorax_body import BONE, SOFT, Body, Cage
from trivox.datasets.phantoms.thorax_canvas import Box, Canvas, Field3, rotation_about

RIB = 520.0
"""HU at normal bone density, as the next ones."""
CORTEX = 640.0
SPONGIOSA = 190.0
ARCH = 420.0
STERNUM = 280.0
CLAVICLE = 480.0
HUMERUS = 330.0
BLADE = 380.0

CARTILAGE = 110.0
"""HU, as the next ones."""
DISC = 90.0
CANAL = 30.0

BOTH_SIDES = (-1, 1)


def paint_ribs(canvas: Canvas, body: Body, cage: Cage) -> None:
    """Bands of the cage's wall, lower in front; their front ends are cartilage."""
    _, depth = body.cage
    from_wall = np.abs(cage.distance - 3.5)
    shell = canvas.soft(from_wall - 3.5)
    from_back = cage.y + depth
    height = cage.z + body.rib_slope * from_back
    run: Field3 = height * np.float32(1 / body.rib_pitch)
    run -= body.rib_phase
    run -= np.rint(run)
    from_rib: Field3 = np.abs(run) * np.float32(body.rib_pitch)
    band = canvas.soft(from_rib - 6)
    band *= shell
    cartilage = canvas.soft(0.72 * depth - cage.y)
    bone = RIB * body.bone
    softer = CARTILAGE - bone
    canvas.paint(cage.box, band, bone + cartilage * softer, None)
    bony = (band > 0.5) & (cartilage < 0.5)
    canvas.tissues[cage.box][bony] = BONE


class _Column(NamedTuple):
    """The box of the spine. x, y: mm from the middle of the bent column, level: mm from
    the middle of the nearest vertebra.
    """

    box: Box
    x: Field3
    y: Field3
    level: Field3


def paint_spine(canvas: Canvas, body: Body) -> None:
    """Vertebrae with discs between them, the canal, arches and processes, on a curve."""
    column = _column(canvas, body)
    _paint_vertebrae(canvas, body, column)
    _paint_arches(canvas, body, column)
    _paint_processes(canvas, body, column)
    canal = _ellipse(column.x, column.y + 23, 9, 8)
    canvas.paint(column.box, canvas.soft(canal), CANAL, SOFT)


def _column(canvas: Canvas, body: Body) -> _Column:
    _, depth = body.cage
    back = -depth - body.spine_back
    box = canvas.around((0, back, 0), (42, 62, 190))
    x, y, z = canvas.places(box)
    bend = (z - 10) * np.float32(1 / 150)
    y = y + (depth - 16 + body.spine_back)
    y -= body.spine_curve * bend * bend
    pitch = np.float32(body.rib_pitch)
    level = z * (1 / pitch)
    level -= body.rib_phase
    level -= np.rint(level)
    level = np.abs(level) * pitch
    return _Column(box, x, y, level)


def _paint_vertebrae(canvas: Canvas, body: Body, column: _Column) -> None:
    rim = _ellipse(column.x, column.y, 18, 15)
    outer = canvas.soft(-3 - rim)
    harder = (CORTEX - SPONGIOSA) * body.bone
    bone = SPONGIOSA * body.bone + outer * harder
    half_pitch = np.float32(body.rib_pitch) / 2
    half_height = half_pitch - np.float32(3)
    disc = canvas.soft(half_height - column.level)
    hounsfield = bone + disc * (DISC - bone)
    canvas.paint(column.box, canvas.soft(rim), hounsfield, BONE)


def _paint_arches(canvas: Canvas, body: Body, column: _Column) -> None:
    arch = _ellipse(column.x, column.y + 25, 15, 13)
    half_height = 0.36 * body.rib_pitch
    share = canvas.soft(arch)
    share = share * canvas.soft(column.level - half_height)
    canvas.paint(column.box, share, ARCH * body.bone, BONE)


def _paint_processes(canvas: Canvas, body: Body, column: _Column) -> None:
    """One backwards to below the skin, and one to each side."""
    tip = max(38.0, 13 + body.fat + body.muscle)
    middle = 0.5 * (tip + 32)
    half_length = 0.5 * (tip - 32)
    from_middle = np.abs(column.y + middle)
    sideways = np.abs(column.x)
    behind = np.maximum(sideways - 4, from_middle - half_length)
    thickness = np.abs(column.y + 26)
    across = np.maximum(sideways - 33, thickness - 5)
    both = np.minimum(behind, across)
    share = canvas.soft(both)
    share = share * canvas.soft(column.level - 6)
    canvas.paint(column.box, share, ARCH * body.bone, BONE)


def _ellipse(x: Field3, y: Field3, half_width: float, half_depth: float) -> Field3:
    """Signed distance in mm to the border of an elliptic column, to first order."""
    across = x / half_width
    along = y / half_depth
    away = np.sqrt(across**2 + along**2)
    return (away - 1) * np.float32(half_depth)


def paint_front_bones(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Sternum, clavicles, shoulder blades and the heads of the raised arms."""
    _, depth = body.cage
    canvas.paint_ellipsoid(
        centre=(0, 0.97 * depth, 18),
        radii=(17, 6, 75),
        hounsfield=STERNUM * body.bone,
        tissue=BONE,
    )
    for side in BOTH_SIDES:
        _paint_shoulder(canvas, body, rng, side)
        _paint_blade(canvas, body, rng, side)


def _paint_shoulder(
    canvas: Canvas,
    body: Body,
    rng: np.random.Generator,
    side: int,
) -> None:
    """The clavicle, and the head of the arm at its outer end."""
    _, depth = body.cage
    inner = np.array([side * 18.0, 0.72 * depth, 98.0])
    width = 0.74 * body.width
    height = rng.uniform(120, 145)
    outer = np.array([side * width, -4.0, height])
    box, share = canvas.tube(inner, outer, 6.0)
    canvas.paint(box, share, CLAVICLE * body.bone, BONE)
    canvas.paint_ellipsoid(
        centre=outer + np.array([side * 6, -2, 22]),
        radii=(20, 20, 22),
        hounsfield=HUMERUS * body.bone,
        tissue=BONE,
    )


def _paint_blade(
    canvas: Canvas,
    body: Body,
    rng: np.random.Generator,
    side: int,
) -> None:
    width, depth = body.cage
    tilt = np.radians(side * rng.uniform(25, 45))
    height = 75.0 + rng.uniform(-10, 10)
    back = -0.88 * depth - 10
    canvas.paint_ellipsoid(
        centre=(side * 0.72 * width, back, height),
        radii=(34, 4.5, 55),
        hounsfield=BLADE * body.bone,
        tissue=BONE,
        turn=rotation_about(2, -tilt),
    )
