"""Datasets of drawn chests with X-rays of them, in the layout that
`trivox.datasets.layouts.exams` reads.

A patient is a function of seed and index alone. X-rays are rendered from the voxels
that are stored; a network whose grid is coarser therefore never inverts its own
projector (no inverse crime): 64^3 phantoms go with a grid of 32^3.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator

from trivox.datasets.dataset import NOTE
from trivox.datasets.exams import write_exam, write_patients
from trivox.datasets.layouts.exams import PATIENTS
from trivox.datasets.phantoms.abdomens import SplitName
from trivox.datasets.phantoms.ellipsoids import DRAWN
from trivox.datasets.phantoms.thorax_anatomy import Thorax, draw_thorax
from trivox.files import write_text
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import SDD_MM, SOD_MM, Geometry, Grid, even_angles
from trivox.projection.grids import placed
from trivox.projection.noise import add_noise
from trivox.projection.projector import Projector
from trivox.schema import Frozen

ANGLES = even_angles(8)
"""Eight views, ordered so that the first 2, 4 and 8 are evenly spaced over 180 degrees.
"""
BODY_RADIUS_MM = 176.0
"""No phantom reaches further from its long axis; posed and with shoulders."""
Positive = Annotated[float, Field(gt=0)]


class ThoraxSettings(Frozen):
    """What the phantoms and their X-rays look like.

    cases: how many patients, of which the last `test_cases` form a test set, and
    `validation_cases` before them a declared validation split. size: voxels along an
    edge of the cube of `field_of_view_mm`; a phantom is drawn anew at any size. angles:
    degrees; detector: pixels along an edge, None: `size`; pixel_mm: None: no phantom is
    truncated; photons: unattenuated ones a pixel, for Poisson noise, None: no noise.
    """

    cases: int = Field(10, ge=1)
    validation_cases: int = Field(0, ge=0)
    test_cases: int = Field(0, ge=0)
    size: int = Field(64, ge=8)
    field_of_view_mm: Positive = 320.0
    angles: tuple[float, ...] = ANGLES
    detector: int | None = Field(None, ge=1)
    pixel_mm: Positive | None = None
    sod_mm: Positive = SOD_MM
    sdd_mm: Positive = SDD_MM
    photons: Positive | None = None
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "ThoraxSettings":
        if self.validation_cases + self.test_cases > self.cases:
            raise ValueError(
                "validation_cases and test_cases together may not exceed cases"
            )
        if not BODY_RADIUS_MM < self.sod_mm < self.sdd_mm:
            raise ValueError(
                f"sod_mm must lie between the patient ({BODY_RADIUS_MM:g} mm) and sdd_mm"
            )
        return self

    @property
    def grid(self) -> Grid:
        """The voxels that phantoms are drawn on."""
        step = self.field_of_view_mm / self.size
        return Grid((self.size, self.size, self.size), (step, step, step))

    @property
    def geometry(self) -> Geometry:
        """The views of every patient."""
        edge = self.detector or self.size
        orbit = partial(
            Geometry.orbit,
            self.angles,
            detector=(edge, edge),
            sod=self.sod_mm,
            sdd=self.sdd_mm,
        )
        if self.pixel_mm is not None:
            return orbit(pixel_mm=self.pixel_mm)
        tall = self.field_of_view_mm * self.sdd_mm / (self.sod_mm - BODY_RADIUS_MM)
        wide = self.field_of_view_mm
        if self.angles:
            wide = float(orbit(pixel_mm=1.0).width_needed(BODY_RADIUS_MM).max())
        pixel = max(wide, tall) / edge
        return orbit(pixel_mm=float(np.ceil(10 * pixel) / 10))

    def split_of(self, index: int) -> SplitName:
        """Split of patient `index`."""
        before_test = self.cases - self.test_cases
        if index >= before_test:
            return "test"
        if index >= before_test - self.validation_cases:
            return "validation"
        return "train"


def thorax_phantom(
    settings: ThoraxSettings, index: int, *, grid: Grid | None = None
) -> Thorax:
    """Patient `index` on the settings' grid or another; the same patient on each."""
    rng = np.random.default_rng([settings.seed, index])
    return draw_thorax(rng, grid or settings.grid)


def write_thoraxes(root: Path, settings: ThoraxSettings) -> Path:
    """Write patients with X-rays, `patients.csv` and the note that they are drawn;
    returns `root`.
    """
    projector = Projector(settings.geometry, settings.grid)
    write_text(root / NOTE, DRAWN)
    rows = []
    for index in range(settings.cases):
        name = f"thorax_{index:04d}"
        _write_patient(root / PATIENTS / name, settings, index, projector)
        rows.append((name, name, settings.split_of(index)))
    write_patients(root, rows)
    return root


def _write_patient(
    folder: Path, settings: ThoraxSettings, index: int, projector: Projector
) -> None:
    """One exam, somewhere in the world as scans are; the X-rays see the whole numbers
    of HU that are stored.
    """
    rng = np.random.default_rng([settings.seed, index, 1])
    x, y, z = rng.uniform(-150, 150, 3).round(1).tolist()
    isocentre = (x, y, z)
    hounsfield = thorax_phantom(settings, index).hounsfield.round().astype(np.int16)
    stored = torch.from_numpy(hounsfield.astype(np.float32))
    images = projector.project(attenuation_of(stored)[None])
    if settings.photons is not None:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        images = add_noise(images, settings.photons, generator=generator)
    volume = placed(hounsfield, settings.grid, isocentre=isocentre)
    write_exam(
        folder,
        images[0].numpy(),
        projector.geometry,
        isocentre=isocentre,
        volume=volume,
    )
