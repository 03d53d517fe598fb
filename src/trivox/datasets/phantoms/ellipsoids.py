"""Synthetic scans whose truth is known: an organ with lesions beside a look-alike, in a
textured body.

The organ overlaps with its surroundings in intensity, and a bias field bends the
intensities, so a threshold does not find it; its texture, shape and place do. All sizes
are in millimetres, so the spacing changes the sampling and not the anatomy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivox.datasets.dataset import NOTE
from trivox.datasets.labels import LabelScheme
from trivox.files import write_json, write_text
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Shape, Spacing, Volume, affine_from_spacing

Field3 = NDArray[np.float32]  # (z, y, x)
Unit = Annotated[float, Field(ge=0, le=1)]

BODY, ORGAN, LESION, LOOKALIKE = 1, 2, 3, 4
CONTRASTS = {BODY: 0.0, ORGAN: 1.0, LESION: -0.6, LOOKALIKE: 0.8}
"""Mean of each tissue in the first channel, in standard deviations of the body's
texture.
"""

TEXTURES = {BODY: 12.0, ORGAN: 4.0, LESION: 6.0, LOOKALIKE: 12.0}
"""Size of each tissue's texture in mm."""


DRAWN = "The scans are generated phantoms: figures on them show that a method works, and nothing about patients.\n"
"""What every report on phantoms says."""


class PhantomSettings(BaseModel):
    """What the phantoms look like.

    shape: voxels `(z, y, x)`; spacing: mm `(z, y, x)`, varied by up to
    `spacing_variation` a case; lesions: most lesions in a case (each has at least one,
    unless this is 0); neighbour: label the look-alike too; texture, noise: in units of
    the organ's contrast; bias: relative; label_values: one for each of `label_names`,
    default 1..n; test_cases: how many of the cases, the last ones, form a test set;
    suffix: file format.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int = Field(default=10, ge=1)
    shape: tuple[int, int, int] = (32, 64, 64)
    spacing: tuple[float, float, float] = (2.5, 1.0, 1.0)
    spacing_variation: Unit = 0.15
    channels: int = Field(default=1, ge=1)
    lesions: int = Field(default=2, ge=0)
    neighbour: bool = False
    texture: float = Field(default=0.35, ge=0)
    noise: float = Field(default=0.3, ge=0)
    bias: float = Field(default=0.15, ge=0)
    label_values: tuple[int, ...] = ()
    test_cases: int = Field(default=0, ge=0)
    suffix: str = ".nii.gz"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "PhantomSettings":
        if self.label_values and len(self.label_values) != len(self.label_names):
            raise ValueError(
                f"label_values needs one value for each of {self.label_names}"
            )
        if self.test_cases > self.cases or min(self.shape) < 8:
            raise ValueError(
                "test_cases may not exceed cases, and a phantom needs at least 8 voxels along each axis"
            )
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels: the organ, lesions and the look-alike, as far as they
        are wanted.
        """
        return (
            "organ",
            *(["lesion"] if self.lesions else []),
            *(["neighbour"] if self.neighbour else []),
        )

    @property
    def scheme(self) -> LabelScheme:
        """The labels and their values."""
        values = self.label_values or tuple(range(1, len(self.label_names) + 1))
        return LabelScheme(labels=dict(zip(self.label_names, values, strict=True)))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """`contrast_0`, `contrast_1`..."""
        return tuple(f"contrast_{i}" for i in range(self.channels))


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm from the middle of the volume, one vector an axis."""

    axes: tuple[Field3, Field3, Field3]

    @classmethod
    def of(cls, shape: Shape, spacing: Spacing) -> "Grid":
        """The grid of `shape` voxels `spacing` mm apart."""
        z, y, x = (
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(s)
            for n, s in zip(shape, spacing, strict=True)
        )
        return cls((z, y, x))

    @property
    def extent(self) -> NDArray[np.float64]:
        """Mm from the first to the last voxel centre, `(z, y, x)`."""
        return np.array([axis[-1] - axis[0] for axis in self.axes], dtype=float)

    def smooth_noise(self, rng: np.random.Generator, size: float) -> Field3:
        """Gaussian random field of unit variance and correlation length `size` mm:
        white knots blurred along each axis.

        Rows of each blur have unit norm, so the variance is 1 in every voxel; three
        small products, no filtering.
        """
        blurs = [_blur(axis, size) for axis in self.axes]
        z, y, x = blurs
        knots = rng.standard_normal([len(blur.T) for blur in blurs], dtype=np.float32)
        field = (z @ knots.reshape(len(z.T), -1)).reshape(
            len(z), len(y.T), len(x.T)
        ) @ x.T
        return np.asarray(y @ field)

    def ellipsoid(
        self,
        centre: NDArray[np.float64],
        radii: NDArray[np.float64],
        rotation: NDArray[np.float64],
    ) -> Field3:
        """Squared distance from `centre` in units of the radii: 1 on the surface."""
        matrix = rotation / radii[:, None]
        z, y, x = (
            axis - np.float32(c) for axis, c in zip(self.axes, centre, strict=True)
        )
        total = np.zeros((len(z), len(y), len(x)), np.float32)
        for a, b, c in matrix.astype(np.float32):
            total += ((a * z)[:, None, None] + (b * y)[:, None] + c * x) ** 2
        return total


def _blur(axis: Field3, size: float) -> Field3:
    """Weights `(voxel, knot)` of a Gaussian with sigma `size` / 2 on knots as far
    apart.
    """
    sigma = max(size / 2, 1e-3)
    knots = np.arange(
        axis[0] - 2 * sigma, axis[-1] + 3 * sigma, sigma, dtype=np.float32
    )
    weights = np.exp(-((axis[:, None] - knots) ** 2) / (2 * sigma**2))
    return np.asarray(
        weights / np.linalg.norm(weights, axis=1, keepdims=True), dtype=np.float32
    )


def phantom_case(settings: PhantomSettings, index: int) -> tuple[Volume, Volume]:
    """Image `(channel, z, y, x)`, int16, and label map of case `index`; depends on
    `settings.seed` and `index` only.
    """
    rng = np.random.default_rng([settings.seed, index])
    factors = 1 + settings.spacing_variation * rng.uniform(-1, 1, 3)
    spacing: Spacing = tuple(
        float(s * f) for s, f in zip(settings.spacing, factors, strict=True)
    )  # type: ignore[assignment]
    origin: Spacing = tuple(rng.uniform(-100, 100, 3).tolist())
    affine = affine_from_spacing(spacing, origin)
    grid = Grid.of(settings.shape, spacing)
    tissues = _anatomy(grid, settings, rng)
    textures = {
        tissue: grid.smooth_noise(rng, size) for tissue, size in TEXTURES.items()
    }
    bias = np.exp(settings.bias * grid.smooth_noise(rng, float(grid.extent.max())))
    contrasts = _contrasts(settings)
    image = np.stack(
        [
            _channel(tissues, textures, bias, contrast, settings, rng)
            for contrast in contrasts
        ]
    )
    return Volume(image, affine), Volume(_label_map(tissues, settings)[None], affine)


def _anatomy(
    grid: Grid, settings: PhantomSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Tissue of each voxel `(z, y, x)`; 0 outside the body."""
    extent, side = grid.extent, np.array([0, 0, 1.0])
    tissues = (
        grid.ellipsoid(rng.normal(0, 0.01, 3) * extent, 0.48 * extent, np.eye(3)) < 1
    ).astype(np.uint8)
    for tissue, direction in ((LOOKALIKE, -side), (ORGAN, side)):
        centre = (0.2 * direction + rng.uniform(-0.05, 0.05, 3)) * extent
        radii = rng.uniform(0.18, 0.26, 3) * extent.mean()
        bumps = 0.15 * grid.smooth_noise(rng, float(radii.mean()))
        inside = grid.ellipsoid(centre, radii, random_rotation(rng)) < 1 + bumps
        tissues[inside & (tissues > 0)] = tissue
    for _ in range(rng.integers(1, settings.lesions + 1) if settings.lesions else 0):
        size = np.maximum(
            rng.uniform(0.3, 0.5, 3) * radii.min(),
            1.2 * extent.max() / max(settings.shape),
        )
        where = centre + random_rotation(rng)[0] * rng.uniform(0, 0.6) * radii.min()
        tissues[
            (grid.ellipsoid(where, size, random_rotation(rng)) < 1) & (tissues == ORGAN)
        ] = LESION
    return tissues


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """An orthogonal 3x3 matrix, uniformly drawn."""
    return np.asarray(np.linalg.qr(rng.standard_normal((3, 3)))[0])


def _contrasts(settings: PhantomSettings) -> list[dict[int, float]]:
    """Tissue means of each channel: the first as in `CONTRASTS`, the others drawn once
    for the whole dataset.
    """
    rng = np.random.default_rng([settings.seed, 2**32 - 1])
    drawn = rng.uniform(-1, 1, (settings.channels - 1, len(CONTRASTS)))
    return [
        CONTRASTS,
        *(dict(zip(CONTRASTS, map(float, row), strict=True)) for row in drawn),
    ]


def _channel(
    tissues: NDArray[np.uint8],
    textures: dict[int, Field3],
    bias: Field3,
    contrast: dict[int, float],
    settings: PhantomSettings,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """One channel, int16, body around 500 and air around 0."""
    image = np.full(tissues.shape, -5, np.float32)
    for tissue, texture in textures.items():
        inside = tissues == tissue
        image[inside] = contrast[tissue] + settings.texture * texture[inside]
    image = (5 + image) * bias + settings.noise * rng.standard_normal(
        image.shape, dtype=np.float32
    )
    return (100 * image).round().clip(-32768, 32767).astype(np.int16)


def _label_map(tissues: NDArray[np.uint8], settings: PhantomSettings) -> NDArray[Any]:
    """Label values in the smallest type that holds them; lesions belong to the organ
    where they have no label.
    """
    labels = settings.scheme.labels
    values = {
        ORGAN: labels["organ"],
        LESION: labels.get("lesion", labels["organ"]),
        LOOKALIKE: labels.get("neighbour", 0),
    }
    small = max(labels.values()) < 256 and min(labels.values()) >= 0
    table = np.array(
        [0, 0, values[ORGAN], values[LESION], values[LOOKALIKE]],
        dtype=np.uint8 if small else np.int32,
    )
    return np.asarray(table[tissues])


def write_phantoms(folder: Path, settings: PhantomSettings) -> Path:
    """Write a dataset of phantoms with `manifest.json`; returns `folder`, which
    `load_dataset` reads.
    """
    entries = [_write_case(folder, settings, index) for index in range(settings.cases)]
    content = {
        "name": folder.name,
        "channels": settings.channel_names,
        "labels": settings.scheme.labels,
        "cases": entries,
    }
    write_json(folder / "manifest.json", content)
    write_text(folder / NOTE, DRAWN)
    return folder


def _write_case(folder: Path, settings: PhantomSettings, index: int) -> dict[str, Any]:
    name = f"phantom_{index:03d}"
    image, label = phantom_case(settings, index)
    files = _image_names(name, settings)
    for file, channel in zip(files, image.array, strict=True):
        write_volume(folder / file, image.with_array(channel))
    write_volume(folder / "labels" / f"{name}{settings.suffix}", label)
    split = "test" if index >= settings.cases - settings.test_cases else "train"
    return {
        "case": name,
        "images": files,
        "label": f"labels/{name}{settings.suffix}",
        "patient": name,
        "split": split,
    }


def _image_names(name: str, settings: PhantomSettings) -> Sequence[str]:
    if settings.channels == 1:
        return [f"images/{name}{settings.suffix}"]
    return [f"images/{name}_{i:04d}{settings.suffix}" for i in range(settings.channels)]
