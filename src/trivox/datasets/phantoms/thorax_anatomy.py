"""A chest in HU, drawn from random numbers: toy anatomy with the sizes and densities of
a real one.

Lengths are mm in the patient's own coordinates: +x right, +y anterior, +z superior, the
origin in mid-chest. Densities are those of textbooks (lung -850..-700, fat -100, muscle
50, trabecular bone 200, cortical 900 HU). It is far simpler than a patient: few views
pin it down far better, so that figures on it promise nothing for real chests.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.phantoms.thorax_body import Body, Cage
from trivox.datasets.phantoms.thorax_canvas import Canvas, Field3, Pose, rotation_about
from trivox.datasets.phantoms.thorax_heart import paint_great_vessels, paint_heart
from trivox.datasets.phantoms.thorax_lungs import (
    paint_lungs,
    paint_nodules,
    paint_vessel_trees,
)
from trivox.datasets.phantoms.thorax_skeleton import (
    paint_front_bones,
    paint_ribs,
    paint_spine,
)
from trivox.datasets.phantoms.thorax_trunk import paint_abdomen, paint_trunk
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
    paint_trunk(canvas, body, rng)
    cage = Cage(canvas, body)
    paint_abdomen(canvas, body, cage, rng)
    lungs = paint_lungs(canvas, body, cage, rng)
    paint_ribs(canvas, body, cage)
    paint_spine(canvas, body)
    paint_front_bones(canvas, body, rng)
    heart = paint_heart(canvas, body, rng)
    paint_great_vessels(canvas, body, heart, rng)
    paint_vessel_trees(canvas, body, lungs, rng)
    paint_nodules(canvas, lungs, rng)
    return Thorax(canvas.hounsfield, canvas.tissues)


def _pose(rng: np.random.Generator) -> Pose:
    """A few degrees about each axis, and a shift."""
    angles = np.radians(rng.uniform(-1, 1, 3) * (8, 5, 8))
    about_x, about_y, about_z = (
        rotation_about(axis, angle) for axis, angle in enumerate(angles)
    )
    shift = rng.uniform(-1, 1, 3) * (9, 11, 18)
    return Pose(about_z @ about_y @ about_x, shift)
