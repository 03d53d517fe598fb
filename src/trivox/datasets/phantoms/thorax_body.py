"""The sizes of a drawn chest, and the space inside its ribs.

Lengths are mm, densities HU; see `thorax_anatomy`.
"""

from dataclasses import dataclass

import numpy as np

from trivox.datasets.phantoms.thorax_canvas import Canvas, Field3

TISSUES = ("air", "soft", "fat", "lung", "bone", "heart", "vessel", "nodule")
AIR, SOFT, FAT, LUNG, BONE, HEART, VESSEL, NODULE = range(len(TISSUES))
TOP = 135.0
"""Height of the lungs' apex."""


@dataclass(frozen=True)
class Body:
    """Sizes of one patient in mm, densities in HU; bone: factor on the density of
    bones.
    """

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
    def drawn(cls, rng: np.random.Generator) -> "Body":
        """A patient by chance."""
        size = rng.uniform(0.8, 1.06)
        stout = rng.uniform(-1, 1)
        return cls(
            width=size * (136 + 8 * stout + rng.uniform(-4, 4)),
            depth=size * (93 + 12 * stout + rng.uniform(-5, 5)),
            squareness=rng.uniform(0.15, 0.5),
            taper=rng.uniform(-0.1, 0.02),
            waist=rng.uniform(-0.12, 0.0),
            fat=14 + 8 * stout + rng.uniform(-2, 2),
            muscle=rng.uniform(9, 16),
            rib_slope=rng.uniform(0.25, 0.55),
            rib_pitch=size * rng.uniform(23, 28),
            rib_phase=rng.uniform(0, 1),
            diaphragm=rng.uniform(-95, -20),
            dome=rng.uniform(30, 60),
            mediastinum=rng.uniform(18, 28),
            spine_back=rng.uniform(-2, 4),
            spine_curve=rng.uniform(4, 18),
            lung=rng.uniform(-850, -700),
            blood=rng.choice([45.0, rng.uniform(50, 150)]),
            bone=rng.uniform(0.75, 1.25),
            female=bool(rng.random() < 0.5),
        )

    @property
    def cage(self) -> tuple[float, float]:
        """Half width and half depth of the space inside the ribs."""
        wall = self.fat + self.muscle + 8
        return self.width - wall, self.depth - wall


class Cage:
    """The inside of the ribs: an elliptic tube with a rounded top; fields in its
    bounding box, signed distances in mm.
    """

    def __init__(self, canvas: Canvas, body: Body) -> None:
        width, depth = body.cage
        middle = (TOP - 200) / 2
        half = (TOP + 200) / 2
        self.box = canvas.around((0, 0, middle), (width + 9, depth + 9, half + 9))
        self.x, self.y, self.z = canvas.places(self.box)
        across = self.x * np.float32(1 / width)
        along = self.y * np.float32(1 / depth)
        above = np.maximum(self.z - 15, 0) * np.float32(1 / (TOP - 15))
        away = np.sqrt(across * across + along * along + above * above)
        self.distance = (away - 1) * np.float32(depth)
        self.beyond_dome = self.z - self._dome(body)

    def _dome(self, body: Body) -> Field3:
        """Height of the diaphragm: two domes, the right one (over the liver) higher."""
        width, depth = body.cage
        from_middle = np.abs(self.x) - np.float32(0.48 * width)
        across = from_middle * np.float32(1.5 / width)
        along = (self.y - np.float32(0.15 * depth)) * np.float32(1.1 / depth)
        right = np.float32(body.diaphragm + 7)
        left = np.float32(body.diaphragm - 7)
        top = np.where(self.x > 0, right, left)
        drop = np.float32(body.dome) * (across * across + along * along)
        return np.asarray(top - drop)
