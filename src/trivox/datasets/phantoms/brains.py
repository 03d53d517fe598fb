"""Synthetic brains with a glioma in four MRI sequences, named as any family of BraTS
names its cases.

The head is an ellipsoid without skull: grey matter folded round white matter,
ventricles, fluid in the sulci. The tumour is nested as in patients: oedema (or
infiltration) round a core, in the core an enhancing rim round necrosis; one in eight
has no enhancing part. Contrasts are as radiologists know them: oedema bright on FLAIR
and T2, the rim bright on T1ce alone, necrosis dark on T1ce, all of it dark on T1. All
sizes are shares of the head's, so the shape changes the sampling and not the anatomy;
texture and bias field keep a threshold from finding the tumour.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from trivox.datasets.dataset import NOTE
from trivox.datasets.layouts.brats import FAMILIES, LABEL, SEQUENCES, BratsFamily
from trivox.datasets.phantoms.ellipsoids import DRAWN, VoxelCentres, random_rotation
from trivox.files import write_text
from trivox.schema import Frozen
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

Tissues = NDArray[np.uint8]  # (z, y, x)
Sequence = Literal["T1", "T1ce", "T2", "FLAIR"]
FLUID, GREY, WHITE, NECROSIS, OEDEMA, RIM, CAVITY = range(1, 8)
Contrast = tuple[float, float, float, float, float, float, float]
CONTRASTS: dict[str, Contrast] = {
    "T1": (2.2, 4.6, 6.0, 3.2, 4.0, 4.2, 2.2),
    "T1ce": (2.3, 4.8, 6.2, 2.9, 4.2, 9.0, 2.3),
    "T2": (9.5, 6.2, 4.8, 8.2, 8.4, 6.6, 9.6),
    "FLAIR": (2.0, 5.6, 4.8, 6.2, 8.6, 7.0, 2.3),
}
"""Mean of fluid, grey and white matter, necrosis, oedema, rim and cavity."""

LABELLED = {NECROSIS: "NCR", OEDEMA: "ED", RIM: "ET", CAVITY: "RC"}
"""Tissue -> name of its label."""

NAMES = {
    "2020": "BraTS20_Training_{number:03d}",
    "2021": "BraTS2021_{patient:05d}",
    "2023": "BraTS-GLI-{patient:05d}-{time:03d}",
    "post-treatment": "BraTS-GLI-{patient:05d}-{after:03d}",
}
WITHOUT_RIM = 1 / 8
GROWTH = 0.08
"""Of every radius from one time point to the next."""


class BrainPhantomSettings(Frozen):
    """What the brains look like.

    cases: how many, `timepoints` of them one after the other from one patient (only
    2023 and later); test_cases: how many, the last ones, lie in a folder `test`; shape:
    voxels `(z, y, x)`, BraTS has (155, 240, 240); spacing: mm; family: key of
    `FAMILIES`; missing: (case number, sequence) without file; labelled: write label
    maps; texture, noise: in units of `CONTRASTS`; bias: relative.
    """

    cases: int = Field(default=10, ge=1)
    test_cases: int = Field(default=0, ge=0)
    timepoints: int = Field(default=1, ge=1, le=100)
    shape: tuple[int, int, int] = (48, 60, 52)
    spacing: float = Field(default=1.0, gt=0)
    family: Literal["2020", "2021", "2023", "post-treatment"] = "2020"
    missing: tuple[tuple[int, Sequence], ...] = ()
    labelled: bool = True
    texture: float = Field(default=0.35, ge=0)
    noise: float = Field(default=0.3, ge=0)
    bias: Annotated[float, Field(ge=0, le=1)] = 0.15
    suffix: Literal[".nii.gz", ".nii"] = ".nii.gz"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "BrainPhantomSettings":
        if self.timepoints > 1 and self.family not in ("2023", "post-treatment"):
            raise ValueError(
                f"family {self.family} names no time points; "
                "choose 2023 or post-treatment"
            )
        halved = self.cases % self.timepoints or self.test_cases % self.timepoints
        if halved or self.test_cases > self.cases:
            raise ValueError(
                "cases and test_cases must be whole patients, "
                "and test_cases may not exceed cases"
            )
        if min(self.shape) < 16:
            raise ValueError("a brain needs at least 16 voxels along each axis")
        return self

    def case_name(self, index: int) -> str:
        """Name of case `index` in the family."""
        patient, time = divmod(index, self.timepoints)
        return NAMES[self.family].format(
            number=index + 1, patient=patient, time=time, after=100 + time
        )


def brain_phantom(
    settings: BrainPhantomSettings, index: int
) -> tuple[dict[str, Volume], Volume]:
    """Sequences by name, int16 and 0 outside the brain, and the label map of case
    `index`.

    Depends on seed, shape and index only: the same patient in two families has the same
    regions WT, TC and ET.
    """
    patient, time = divmod(index, settings.timepoints)
    grid = VoxelCentres.of(settings.shape, (settings.spacing,) * 3)
    anatomy = np.random.default_rng([settings.seed, patient])
    tissues, depth = _brain(grid, anatomy)
    treated = settings.family == "post-treatment"
    _grow_tumour(tissues, depth, grid, anatomy, 1 + GROWTH * time, cavity=treated)
    scan = np.random.default_rng([settings.seed, patient, time])
    fine = grid.smooth_noise(scan, 0.04 * _size(grid))
    coarse = grid.smooth_noise(scan, 0.12 * _size(grid))
    texture = (fine + coarse) / np.float32(np.sqrt(2))
    affine = _affine(settings)
    images = {}
    for sequence in SEQUENCES:
        contrast = CONTRASTS[sequence]
        image = _image(tissues, texture, grid, contrast, settings, scan)
        images[sequence] = Volume(image[None], affine)
    labels = _labels(tissues, FAMILIES[settings.family])
    return images, Volume(labels[None], affine)


def _size(grid: VoxelCentres) -> float:
    return float(grid.extent.mean())


def _affine(settings: BrainPhantomSettings) -> NDArray[np.float64]:
    """As in BraTS: x runs to the left, y to the back, z upwards."""
    affine = np.diag([-settings.spacing, -settings.spacing, settings.spacing, 1.0])
    affine[1, 3] = (settings.shape[1] - 1) * settings.spacing
    return affine


def _brain(
    grid: VoxelCentres, rng: np.random.Generator
) -> tuple[Tissues, NDArray[np.float32]]:
    """Tissues without tumour, 0 outside the brain, and the squared depth: 0 in the
    middle, 1 on the surface.
    """
    extent = grid.extent
    size = _size(grid)
    depth = grid.ellipsoid(
        rng.normal(0, 0.01, 3) * extent, rng.uniform(0.42, 0.46, 3) * extent, np.eye(3)
    )
    folds = grid.smooth_noise(rng, 0.07 * size)
    tissues = np.zeros(depth.shape, np.uint8)
    tissues[depth < 1] = GREY
    tissues[(depth < 1) & (depth > 0.9 + 0.12 * folds)] = FLUID
    tissues[depth + 0.18 * folds < 0.6] = WHITE
    bumps = 0.2 * grid.smooth_noise(rng, 0.1 * size)
    for side in (-1, 1):
        ventricle = grid.ellipsoid(
            np.array([0.02, 0.03, side * 0.06]) * extent,
            np.array([0.06, 0.14, 0.035]) * extent,
            np.eye(3),
        )
        tissues[ventricle < 1 + bumps] = FLUID
    return tissues, depth


def _grow_tumour(
    tissues: Tissues,
    depth: NDArray[np.float32],
    grid: VoxelCentres,
    rng: np.random.Generator,
    growth: float,
    *,
    cavity: bool,
) -> None:
    """Paint the tumour over the brain, in place; a resection cavity lies beside it and
    takes none of its voxels.
    """
    size = _size(grid)
    brain = depth < 0.97
    side = np.array([0, 0, rng.choice([-1, 1])])
    centre = (0.17 * side + rng.uniform(-0.09, 0.09, 3)) * grid.extent
    core = rng.uniform(0.07, 0.13, 3) * growth * size
    spread = core * rng.uniform(1.35, 1.9) + 0.02 * size
    rough = grid.smooth_noise(rng, 0.14 * size)
    fine = grid.smooth_noise(rng, 0.06 * size)
    from_core = np.sqrt(grid.ellipsoid(centre, core, random_rotation(rng)))
    inside = from_core + 0.12 * rough + 0.06 * fine
    middle = centre + rng.normal(0, 0.015, 3) * size
    from_middle = np.sqrt(grid.ellipsoid(middle, spread, random_rotation(rng)))
    whole = from_middle + 0.2 * rough + 0.12 * fine
    thickness = rng.uniform(0.3, 0.5)
    rimless = rng.random() < WITHOUT_RIM
    tissues[brain & ((whole < 1) | (inside < 1))] = OEDEMA
    tissues[brain & (inside < 1)] = NECROSIS
    if not rimless:
        border = 1 - thickness * (1 + 0.5 * fine)
        tissues[brain & (inside < 1) & (inside > border)] = RIM
    if cavity:
        place = centre + 1.1 * rng.permutation(core)
        hole = grid.ellipsoid(place, 1.1 * core, random_rotation(rng))
        tissues[brain & (tissues < NECROSIS) & (hole < 1 + 0.15 * fine)] = CAVITY


def _image(
    tissues: Tissues,
    texture: NDArray[np.float32],
    grid: VoxelCentres,
    contrast: Contrast,
    settings: BrainPhantomSettings,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """One sequence: tissue means with soft edges, texture, bias field and noise; at
    least 1 inside the brain.
    """
    image = np.array((0.0, *contrast), np.float32)[tissues]
    image = ndimage.gaussian_filter(image, 0.6, truncate=2.0)  # partial volume
    image += settings.texture * texture
    image *= np.exp(settings.bias * grid.smooth_noise(rng, 0.8 * _size(grid)))
    image += settings.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.where(tissues > 0, (100 * image).clip(1, 32767), 0).astype(np.int16)


def _labels(tissues: Tissues, family: BratsFamily) -> NDArray[np.uint8]:
    values: Mapping[str, int] = family.labels.labels
    table = np.zeros(CAVITY + 1, np.uint8)
    for tissue, name in LABELLED.items():
        table[tissue] = values.get(name, 0)
    return np.asarray(table[tissues])


def write_brain_phantoms(folder: Path, settings: BrainPhantomSettings) -> Path:
    """Write the cases in BraTS folders below `folder`; returns it, `load_dataset` reads
    it.
    """
    for index in range(settings.cases):
        name = settings.case_name(index)
        held_out = index >= settings.cases - settings.test_cases
        parent = folder / "test" if held_out else folder
        _write_case(parent / name, settings, index)
    write_text(folder / NOTE, DRAWN)
    return folder


def _write_case(folder: Path, settings: BrainPhantomSettings, index: int) -> None:
    images, label = brain_phantom(settings, index)
    if settings.labelled:
        images[LABEL] = label
    family = FAMILIES[settings.family]
    for content, volume in images.items():
        if (index, content) not in settings.missing:
            name = family.file_name(folder.name, content, suffix=settings.suffix)
            write_volume(folder / name, volume)
