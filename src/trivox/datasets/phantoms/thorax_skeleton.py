"""The bones of a drawn chest: ribs, spine, sternum, shoulder girdle."""

import numpy as np

from trivox.datasets.phantoms.thorax_body import BONE, SOFT, Body, Cage
from trivox.datasets.phantoms.thorax_canvas import Canvas


def paint_ribs(canvas: Canvas, body: Body, cage: Cage) -> None:
    """Bands of the cage's wall, lower in front; their front ends are cartilage."""
    _, depth = body.cage
    shell = canvas.soft(np.abs(cage.distance - np.float32(3.5)) - np.float32(3.5))
    run = (
        cage.z + np.float32(body.rib_slope) * (cage.y + np.float32(depth))
    ) * np.float32(1 / body.rib_pitch)
    run -= np.float32(body.rib_phase)
    run -= np.rint(run)
    band = canvas.soft(np.abs(run) * np.float32(body.rib_pitch) - np.float32(6))
    band *= shell
    cartilage = canvas.soft(np.float32(0.72 * depth) - cage.y)
    bone = 520 * body.bone
    canvas.paint(cage.box, band, bone + cartilage * np.float32(110 - bone), None)
    canvas.tissues[cage.box][(band > 0.5) & (cartilage < 0.5)] = BONE


def paint_spine(canvas: Canvas, body: Body) -> None:
    """Vertebrae with discs between them, the canal, arches and processes, on a curve."""
    _, depth = body.cage
    box = canvas.around((0, -depth - body.spine_back, 0), (42, 62, 190))
    x, y, z = canvas.places(box)
    bend = (z - np.float32(10)) * np.float32(1 / 150)
    y = (
        y
        + np.float32(depth - 16 + body.spine_back)
        - np.float32(body.spine_curve) * bend * bend
    )
    pitch = np.float32(body.rib_pitch)
    level = z * (1 / pitch) - np.float32(body.rib_phase)
    level = np.abs(level - np.rint(level)) * pitch  # mm from the middle of a vertebra
    rim = (np.sqrt((x / 18) ** 2 + (y / 15) ** 2) - 1) * np.float32(15)
    bone = body.bone
    inner = 190 * bone + canvas.soft(-3 - rim) * np.float32(450 * bone)
    disc = canvas.soft(pitch / 2 - np.float32(3) - level)
    canvas.paint(box, canvas.soft(rim.copy()), inner + disc * (90 - inner), BONE)
    arch = (np.sqrt((x / 15) ** 2 + ((y + 25) / 13) ** 2) - 1) * np.float32(13)
    body_of_level = canvas.soft(level - np.float32(0.36 * body.rib_pitch))
    canvas.paint(box, canvas.soft(arch) * body_of_level, 420 * bone, BONE)
    tip = max(38.0, 13 + body.fat + body.muscle)  # under the skin
    behind = np.maximum(
        np.abs(x) - 4,
        np.abs(y + np.float32(0.5 * (tip + 32))) - np.float32(0.5 * (tip - 32)),
    )
    across = np.maximum(np.abs(x) - 33, np.abs(y + 26) - 5)
    canvas.paint(
        box,
        canvas.soft(np.minimum(behind, across)) * canvas.soft(level - 6),
        420 * bone,
        BONE,
    )
    canal = (np.sqrt((x / 9) ** 2 + ((y + 23) / 8) ** 2) - 1) * np.float32(8)
    canvas.paint(box, canvas.soft(canal), 30.0, SOFT)


def paint_front_bones(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
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
        box, share = canvas.ellipsoid(
            outer + np.array([side * 6, -2, 22]), (20, 20, 22)
        )
        canvas.paint(box, share, 330 * bone, BONE)
        tilt = np.radians(side * rng.uniform(25, 45))
        plate = np.array(
            [
                [np.cos(tilt), np.sin(tilt), 0],
                [-np.sin(tilt), np.cos(tilt), 0],
                [0, 0, 1],
            ]
        )
        blade = np.array(
            [side * 0.72 * width, -0.88 * depth - 10, 75.0 + rng.uniform(-10, 10)]
        )
        box, share = canvas.ellipsoid(blade, (34, 4.5, 55), plate)
        canvas.paint(box, share, 380 * bone, BONE)
