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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import ndimage

from trivox.datasets.dataset import NOTE
from trivox.datasets.phantoms.ellipsoids import DRAWN, Field3, Grid, random_rotation
from trivox.files import write_json, write_text
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Shape, Spacing, Volume, affine_from_spacing

Tissues = NDArray[np.uint8]  # (z, y, x)
Split = Literal["train", "validation", "test"]

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
ENHANCEMENT, TEXTURE, NOISE = 8.0, 18.0, 4.0
"""Standard deviations in HU: of a case's contrast phase, of the texture, of the
scanner's noise.
"""
FLOAT_NOISE = np.float32(2.0**-16)
"""What the masks of the imitated set have on top of label 1: 1.0000152587890625."""


class PancreasPhantomSettings(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    def splits(self) -> tuple[Split, ...]:
        """Split of each case."""
        training = self.cases - self.validation_cases - self.test_cases
        counts: dict[Split, int] = {
            "train": training,
            "validation": self.validation_cases,
            "test": self.test_cases,
        }
        return tuple(split for split, count in counts.items() for _ in range(count))

    @property
    def subtypes(self) -> tuple[int, ...]:
        """Class index of each case: exact shares within each split, in random order."""
        rng = np.random.default_rng([self.seed, 2**32 - 1])
        sizes = (self.splits.count(split) for split in ("train", "validation", "test"))
        counts = (apportion(size, FREQUENCIES) for size in sizes)
        return tuple(
            int(s)
            for count in counts
            for s in rng.permutation(np.repeat(range(len(CLASSES)), count))
        )


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
            response = ndimage.gaussian_filter1d(
                np.eye(1, shape[axis])[0], width, mode="wrap"
            )
            field = ndimage.gaussian_filter1d(
                field, width, axis, mode="wrap"
            ) / np.float32(np.linalg.norm(response))
    return np.asarray(field)


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
    factors = 1 + settings.spacing_variation * rng.uniform(-1, 1, 3)
    spacing: Spacing = tuple(
        float(s * f) for s, f in zip(settings.spacing, factors, strict=True)
    )  # type: ignore[assignment]
    affine = affine_from_spacing(spacing, tuple(rng.uniform(-100, 100, 3).tolist()))
    grid = Grid.of(settings.shape, spacing)
    tissues = _anatomy(grid, rng)
    image = _means(tissues, rng) + TEXTURE * _texture(
        tissues, grid, spacing, chosen, rng
    )
    image += NOISE * rng.standard_normal(image.shape, dtype=np.float32)
    labels = np.select(
        [tissues == PANCREAS, tissues == LESION], [*LABELS.values()]
    ).astype(np.uint8)
    return Volume(
        image.round().clip(-1024, 3071).astype(np.int16)[None], affine
    ), Volume(labels[None], affine)


def _anatomy(grid: Grid, rng: np.random.Generator) -> Tissues:
    """Tissue of each voxel; x runs to the right, y to the front."""
    extent, size = grid.extent, float(np.prod(grid.extent) ** (1 / 3))
    bumps = 0.25 * grid.smooth_noise(rng, 0.12 * size)
    tissues = np.full(bumps.shape, AIR, np.uint8)
    wall = grid.ellipsoid(
        rng.normal(0, 0.01, 3) * extent,
        np.array([10.0, 0.54, 0.56]) * extent,
        np.eye(3),
    )
    tissues[wall < 1] = FAT
    tissues[(wall < 0.86) & (wall > 0.76)] = MUSCLE

    def blob(tissue: int, place: Sequence[float], radii: Sequence[float]) -> None:
        centre = (np.array(place) + rng.uniform(-0.03, 0.03, 3)) * extent
        shape = grid.ellipsoid(
            centre,
            np.array(radii) * rng.uniform(0.9, 1.1, 3) * size,
            random_rotation(rng),
        )
        tissues[(shape < 1 + bumps) & (wall < 0.76)] = tissue

    spine = grid.ellipsoid(
        np.array([0, -0.36, 0]) * extent,
        np.array([10 * size, 0.11 * size, 0.13 * size]),
        np.eye(3),
    )
    tissues[spine < 1] = BONE
    blob(LIVER, (0.12, 0.18, 0.36), (0.26, 0.22, 0.26))
    for side in (
        -0.15,
        0.15,
    ):  # two loops of bowel in front of the organ, fluid in one of them
        blob(BOWEL, (-0.5 * side, 0.27, side), (0.13, 0.11, 0.15))
    blob(FLUID, (0.07, 0.27, -0.15), (0.07, 0.06, 0.07))
    places, radii = _course(grid, rng)
    organ = np.minimum.reduce(
        [
            grid.ellipsoid(p, np.full(3, r), np.eye(3))
            for p, r in zip(places, radii, strict=True)
        ]
    )
    tissues[(organ < 1 + bumps) & (wall < 0.76)] = PANCREAS
    centre = (
        places[rng.integers(1, len(places) - 1)] + rng.uniform(-0.03, 0.03, 3) * size
    )
    lesion = grid.ellipsoid(
        centre, rng.uniform(0.13, 0.17, 3) * size, random_rotation(rng)
    )
    tissues[lesion < 1 + 0.6 * bumps] = LESION
    return tissues


def _course(
    grid: Grid, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points `(n, 3)` along the middle of the organ in mm and its radius there: bent
    over the spine, thinner to the tail.
    """
    along = np.linspace(-1, 1, 11)  # tail (left) to head (right)
    bend, rise = rng.uniform(0.1, 0.2), rng.uniform(-0.12, 0.0)
    shares = np.stack(
        [rise * along, bend * (1 - along**2) - 0.12, 0.27 * along], axis=1
    )
    shift = rng.uniform(-0.04, 0.04, 3)
    size = float(np.prod(grid.extent) ** (1 / 3))
    return (shares + shift) * grid.extent, (0.115 + 0.03 * along) * rng.uniform(
        0.9, 1.1
    ) * size


def _means(tissues: Tissues, rng: np.random.Generator) -> Field3:
    """Mean HU of each voxel's tissue, with the soft edges of partial volume; the
    lesion's own edge is as soft.
    """
    means = np.array(HU, np.float32)
    means[list(ENHANCING)] += np.float32(ENHANCEMENT * rng.standard_normal())
    return np.asarray(ndimage.gaussian_filter(means[tissues], 0.5, truncate=2.0))


def _texture(
    tissues: Tissues,
    grid: Grid,
    spacing: Spacing,
    subtype: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Unit-variance texture: a patchwork of all subtypes, in the lesion the one of
    `subtype`, standardised; none in air.
    """
    shape = (len(grid.axes[0]), len(grid.axes[1]), len(grid.axes[2]))
    fields = [
        texture_field(rng, shape, [mm / s for s in spacing]) for mm in TEXTURES_MM
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
    content = {
        "name": folder.name,
        "channels": ["CT"],
        "labels": LABELS,
        "classes": CLASSES,
        "cases": [
            _write_listed(folder, settings, index) for index in range(settings.cases)
        ],
    }
    write_json(folder / "manifest.json", content)
    return folder


def _write_listed(
    folder: Path, settings: PancreasPhantomSettings, index: int
) -> dict[str, Any]:
    """Write the case's files; returns its entry in the manifest."""
    name = f"pancreas_{index:03d}"
    image, label = f"images/{name}.nii.gz", f"labels/{name}.nii.gz"
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
    split, subtype = settings.splits[index], settings.subtypes[index]
    if split == "test":
        _write(
            settings, index, folder / split / f"quiz_{index + 1:03d}_0000.nii.gz", None
        )
        return
    stem = folder / split / CLASSES[subtype] / f"quiz_{subtype}_{index + 1:03d}"
    _write(
        settings,
        index,
        stem.with_name(f"{stem.name}_0000.nii.gz"),
        stem.with_name(f"{stem.name}.nii.gz"),
    )


def _write(
    settings: PancreasPhantomSettings,
    index: int,
    image_file: Path,
    label_file: Path | None,
) -> None:
    image, label = pancreas_phantom(settings, index)
    write_volume(image_file, image)
    if label_file is not None:
        noisy = label.array + FLOAT_NOISE * (label.array == LABELS["pancreas"])
        write_volume(
            label_file, label.with_array(noisy) if settings.float_masks else label
        )
