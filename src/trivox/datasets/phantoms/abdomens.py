"""Synthetic abdominal CTs with a pancreas-like organ and one lesion whose subtype is
its texture alone.

The body is made of fat with a ring of muscle, a spine, a liver-like neighbour and bowel
that looks like the organ. The organ is a bent tube, head on the right and tail on the
left. Mean, standard deviation, size and place of the lesion are the same for every
subtype: only the correlation length of its texture differs. Everything around it is a
random patchwork of the textures of all subtypes, so what is pooled over the image, a
window or the organ says nothing; what is pooled over the lesion says it all. A
classifier that works on patients need not work here, nor the reverse: figures on these
phantoms show that a method can find what is there to find, no more.

Sizes are shares of the field of view, textures are in mm. Class frequencies, spacing,
folders and the float noise of masks are those of the pancreas set of a technical
assessment, which `layout="class-folders"` imitates.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from trivox.datasets.dataset import NOTE
from trivox.datasets.phantoms.ellipsoids import (
    DRAWN,
    Field3,
    VoxelCentres,
    random_rotation,
    varied_spacing,
)
from trivox.files import write_json, write_text
from trivox.schema import Frozen
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Shape, Spacing, Volume, affine_from_spacing

Tissues = NDArray[np.uint8]  # (z, y, x)
SplitName = Literal["train", "validation", "test"]

LABELS = {"pancreas": 1, "lesion": 2}
CLASSES = ("subtype0", "subtype1", "subtype2")
FREQUENCIES = (62, 106, 84)
"""Cases of each class in the training set that is imitated: 1 : 1.7 : 1.35."""
TEXTURES_MM = (0.0, 0.6, 1.2)
"""Sigma of the Gaussian that makes each subtype's texture from white noise."""

AIR, FAT, MUSCLE, BONE, LIVER, BOWEL, FLUID, PANCREAS, LESION = range(9)
HU = (-1000.0, -95.0, 55.0, 300.0, 110.0, 75.0, 10.0, 100.0, 40.0)
"""Mean of each tissue."""
ENHANCING = (LIVER, PANCREAS, LESION)
ENHANCEMENT = 8.0
"""Standard deviation in HU of a case's contrast phase."""
TEXTURE = 18.0
"""Standard deviation in HU."""
NOISE = 4.0
"""Standard deviation in HU of the scanner's noise."""
FLOAT_NOISE = np.float32(2.0**-16)
"""What the masks of the imitated set have on top of label 1: 1.0000152587890625."""


class PancreasPhantomSettings(Frozen):
    """What the phantoms look like.

    cases: how many, of which the last `test_cases` form a test set, and
    `validation_cases` before them a declared validation split; each split has the
    classes in the shares of `FREQUENCIES`. shape: voxels `(z, y, x)`, the default shows
    the texture well, (24, 48, 48) is made for tests; spacing: mm, varied by up to
    `spacing_variation` a case. float_masks: masks as float32 with 1.0000152587890625
    for the organ, as in the imitated set. layout: a manifest whose case names do not
    tell the class, or the imitated set's folders, where test cases have neither mask
    nor class.
    """

    cases: int = Field(default=10, ge=1)
    validation_cases: int = Field(default=0, ge=0)
    test_cases: int = Field(default=0, ge=0)
    shape: tuple[int, int, int] = (32, 80, 96)
    spacing: tuple[float, float, float] = (2.0, 0.73, 0.73)
    spacing_variation: float = Field(default=0.04, ge=0, lt=0.5)
    float_masks: bool = False
    layout: Literal["manifest", "class-folders"] = "manifest"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "PancreasPhantomSettings":
        if self.validation_cases + self.test_cases > self.cases:
            raise ValueError(
                "validation_cases and test_cases together may not exceed cases"
            )
        if min(self.shape) < 16:
            raise ValueError(
                "a lesion with texture needs at least 16 voxels along each axis"
            )
        return self

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """Split of each case."""
        training = self.cases - self.validation_cases - self.test_cases
        splits: list[SplitName] = ["train"] * training
        splits += ["validation"] * self.validation_cases
        splits += ["test"] * self.test_cases
        return tuple(splits)

    @property
    def subtypes(self) -> tuple[int, ...]:
        """Class index of each case: exact shares within each split, in random order."""
        rng = np.random.default_rng([self.seed, 2**32 - 1])
        subtypes: list[int] = []
        for split in ("train", "validation", "test"):
            counts = apportion(self.splits.count(split), FREQUENCIES)
            in_order = np.repeat(range(len(CLASSES)), counts)
            subtypes += rng.permutation(in_order).tolist()
        return tuple(subtypes)


def apportion(total: int, shares: Sequence[int]) -> tuple[int, ...]:
    """`total` items in proportion to `shares` by the method of largest remainders; ties
    go to the first.
    """
    exact = np.array(shares) * total / sum(shares)
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return tuple(counts.tolist())


def texture_field(
    rng: np.random.Generator, shape: Shape, sigma: Sequence[float]
) -> Field3:
    """Gaussian random field of unit variance in every voxel: white noise blurred by
    `sigma` voxels `(z, y, x)`, cyclic.
    """
    field = rng.standard_normal(shape, dtype=np.float32)
    for axis, width in enumerate(sigma):
        if width > 0.1:  # a narrower one reaches no neighbour
            impulse = np.eye(1, shape[axis])[0]
            response = ndimage.gaussian_filter1d(impulse, width, mode="wrap")
            field = ndimage.gaussian_filter1d(field, width, axis, mode="wrap")
            field /= np.float32(np.linalg.norm(response))
    return np.asarray(field)


def widths_in_voxels(sigma_mm: float, spacing: Spacing) -> list[float]:
    """A width in mm as voxels `(z, y, x)`."""
    return [sigma_mm / step for step in spacing]


def standardised(field: Field3, inside: NDArray[np.bool_]) -> Field3:
    """`field` with mean 0 and standard deviation 1 of the voxels `inside`, exactly:
    nothing but its texture is left.
    """
    values = field[inside]
    return np.asarray((field - values.mean()) / max(float(values.std()), 1e-6))


def pancreas_phantom(
    settings: PancreasPhantomSettings, index: int, *, subtype: int | None = None
) -> tuple[Volume, Volume]:
    """Image in HU, int16, and uint8 label map of case `index`, by seed and index only.

    subtype: another than the case's own; nothing but the voxels of the lesion changes
    with it.
    """
    chosen = settings.subtypes[index] if subtype is None else subtype
    rng = np.random.default_rng([settings.seed, index])
    spacing = varied_spacing(settings.spacing, settings.spacing_variation, rng)
    affine = affine_from_spacing(spacing, tuple(rng.uniform(-100, 100, 3).tolist()))
    grid = VoxelCentres.of(settings.shape, spacing)
    tissues = _anatomy(grid, rng)
    image = _means(tissues, rng)
    image = image + TEXTURE * _texture(tissues, grid, spacing, chosen, rng)
    image += NOISE * rng.standard_normal(image.shape, dtype=np.float32)
    whole = image.round().clip(-1024, 3071).astype(np.int16)
    labels = np.zeros(tissues.shape, np.uint8)
    labels[tissues == PANCREAS] = LABELS["pancreas"]
    labels[tissues == LESION] = LABELS["lesion"]
    return Volume(whole[None], affine), Volume(labels[None], affine)


class _Abdomen:
    """Tissues `(z, y, x)` to paint on: x runs to the right, y to the front. places:
    shares of the extent, `(z, y, x)` from the middle; radii: shares of the edge of a
    cube as large as the volume.
    """

    def __init__(self, grid: VoxelCentres, rng: np.random.Generator) -> None:
        self.grid = grid
        self.rng = rng
        self.size = _cube_edge(grid)
        self.bumps = 0.25 * grid.smooth_noise(rng, 0.12 * self.size)
        self.tissues = np.full(self.bumps.shape, AIR, np.uint8)
        wall = grid.ellipsoid(
            rng.normal(0, 0.01, 3) * grid.extent,
            np.array([10.0, 0.54, 0.56]) * grid.extent,
            np.eye(3),
        )
        self.inside = wall < 0.76
        self.tissues[wall < 1] = FAT
        self.tissues[(wall < 0.86) & (wall > 0.76)] = MUSCLE

    def paint_spine(self) -> None:
        """A column through the whole volume."""
        centre = np.array([0, -0.36, 0]) * self.grid.extent
        radii = np.array([10 * self.size, 0.11 * self.size, 0.13 * self.size])
        spine = self.grid.ellipsoid(centre, radii, np.eye(3))
        self.tissues[spine < 1] = BONE

    def paint(
        self, tissue: int, place: Sequence[float], radii: Sequence[float]
    ) -> None:
        """A bumpy ellipsoid about there, within the wall."""
        shares = np.array(place) + self.rng.uniform(-0.03, 0.03, 3)
        half_axes = np.array(radii) * self.rng.uniform(0.9, 1.1, 3) * self.size
        turn = random_rotation(self.rng)
        shape = self.grid.ellipsoid(shares * self.grid.extent, half_axes, turn)
        self.tissues[(shape < 1 + self.bumps) & self.inside] = tissue

    def paint_pancreas(self) -> NDArray[np.float64]:
        """A bent tube; returns points `(n, 3)` along its middle in mm."""
        places, radii = _course(self.grid, self.rng)
        balls = [
            self.grid.ellipsoid(place, np.full(3, radius), np.eye(3))
            for place, radius in zip(places, radii, strict=True)
        ]
        organ = np.minimum.reduce(balls)
        self.tissues[(organ < 1 + self.bumps) & self.inside] = PANCREAS
        return places

    def paint_lesion(self, places: NDArray[np.float64]) -> None:
        """A rougher ellipsoid at one of these places, none of the ends."""
        place = places[self.rng.integers(1, len(places) - 1)]
        centre = place + self.rng.uniform(-0.03, 0.03, 3) * self.size
        radii = self.rng.uniform(0.13, 0.17, 3) * self.size
        lesion = self.grid.ellipsoid(centre, radii, random_rotation(self.rng))
        self.tissues[lesion < 1 + 0.6 * self.bumps] = LESION


def _anatomy(grid: VoxelCentres, rng: np.random.Generator) -> Tissues:
    """Tissue of each voxel; two loops of bowel lie in front of the organ, one of them
    with fluid.
    """
    abdomen = _Abdomen(grid, rng)
    abdomen.paint_spine()
    abdomen.paint(LIVER, (0.12, 0.18, 0.36), (0.26, 0.22, 0.26))
    abdomen.paint(BOWEL, (0.075, 0.27, -0.15), (0.13, 0.11, 0.15))
    abdomen.paint(BOWEL, (-0.075, 0.27, 0.15), (0.13, 0.11, 0.15))
    abdomen.paint(FLUID, (0.07, 0.27, -0.15), (0.07, 0.06, 0.07))
    places = abdomen.paint_pancreas()
    abdomen.paint_lesion(places)
    return abdomen.tissues


def _course(
    grid: VoxelCentres, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points `(n, 3)` along the middle of the organ in mm and its radius there: bent
    over the spine, thinner to the tail.
    """
    along = np.linspace(-1, 1, 11)  # tail (left) to head (right)
    bend = rng.uniform(0.1, 0.2)
    rise = rng.uniform(-0.12, 0.0)
    forward = bend * (1 - along**2) - 0.12
    shares = np.stack([rise * along, forward, 0.27 * along], axis=1)
    shares += rng.uniform(-0.04, 0.04, 3)
    radii = (0.115 + 0.03 * along) * rng.uniform(0.9, 1.1)
    return shares * grid.extent, radii * _cube_edge(grid)


def _cube_edge(grid: VoxelCentres) -> float:
    """Mm along the edge of a cube as large as the volume."""
    return float(np.prod(grid.extent) ** (1 / 3))


def _means(tissues: Tissues, rng: np.random.Generator) -> Field3:
    """Mean HU of each voxel's tissue, with the soft edges of partial volume; the
    lesion's own edge is as soft.
    """
    means = np.array(HU, np.float32)
    means[list(ENHANCING)] += np.float32(ENHANCEMENT * rng.standard_normal())
    return np.asarray(ndimage.gaussian_filter(means[tissues], 0.5, truncate=2.0))


def _texture(
    tissues: Tissues,
    grid: VoxelCentres,
    spacing: Spacing,
    subtype: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Unit-variance texture: a patchwork of all subtypes, in the lesion the one of
    `subtype`, standardised; none in air.
    """
    z, y, x = tissues.shape
    fields = [
        texture_field(rng, (z, y, x), widths_in_voxels(mm, spacing))
        for mm in TEXTURES_MM
    ]
    size = 0.25 * float(grid.extent.mean())
    patches = np.argmax([grid.smooth_noise(rng, size) for _ in fields], axis=0)
    texture = np.choose(patches, fields)
    inside = tissues == LESION
    texture[inside] = standardised(fields[subtype], inside)[inside]
    texture[tissues == AIR] = 0
    return np.asarray(texture)


def write_pancreas_phantoms(folder: Path, settings: PancreasPhantomSettings) -> Path:
    """Write the cases in the layout that `settings` name; returns `folder`, which
    `load_dataset` reads.
    """
    write_text(folder / NOTE, DRAWN)
    if settings.layout == "class-folders":
        for index in range(settings.cases):
            _write_in_class_folders(folder, settings, index)
        return folder
    entries = [
        _write_listed(folder, settings, index) for index in range(settings.cases)
    ]
    content = {
        "name": folder.name,
        "channels": ["CT"],
        "labels": LABELS,
        "classes": CLASSES,
        "cases": entries,
    }
    write_json(folder / "manifest.json", content)
    return folder


def _write_listed(
    folder: Path, settings: PancreasPhantomSettings, index: int
) -> dict[str, object]:
    """Write the case's files; returns its entry in the manifest."""
    name = f"pancreas_{index:03d}"
    image = f"images/{name}.nii.gz"
    label = f"labels/{name}.nii.gz"
    _write(settings, index, folder / image, folder / label)
    return {
        "case": name,
        "images": [image],
        "label": label,
        "patient": name,
        "split": settings.splits[index],
        "class": CLASSES[settings.subtypes[index]],
    }


def _write_in_class_folders(
    folder: Path, settings: PancreasPhantomSettings, index: int
) -> None:
    """The file names of the imitated set: quiz_SUBTYPE_NUMBER, and quiz_NUMBER for test
    cases.
    """
    split = settings.splits[index]
    number = f"{index + 1:03d}"
    if split == "test":
        image = folder / split / f"quiz_{number}_0000.nii.gz"
        _write(settings, index, image, None)
        return
    subtype = settings.subtypes[index]
    subfolder = folder / split / CLASSES[subtype]
    image = subfolder / f"quiz_{subtype}_{number}_0000.nii.gz"
    label = subfolder / f"quiz_{subtype}_{number}.nii.gz"
    _write(settings, index, image, label)


def _write(
    settings: PancreasPhantomSettings,
    index: int,
    image_file: Path,
    label_file: Path | None,
) -> None:
    image, label = pancreas_phantom(settings, index)
    write_volume(image_file, image)
    if label_file is None:
        return
    if settings.float_masks:
        organ = label.array == LABELS["pancreas"]
        label = label.with_array(label.array + FLOAT_NOISE * organ)
    write_volume(label_file, label)
