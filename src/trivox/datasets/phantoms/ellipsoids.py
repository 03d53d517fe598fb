"""Synthetic scans whose truth is known: an organ with lesions beside a look-alike, in a
textured body.

The organ overlaps with its surroundings in intensity, and a bias field bends the
intensities, so a threshold does not find it; its texture, shape and place do. All sizes
are in millimetres, so the spacing changes the sampling and not the anatomy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from trivox.datasets.dataset import NOTE
from trivox.datasets.labels import LabelScheme
from trivox.files import write_json, write_text
from trivox.schema import Frozen
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Shape, Spacing, Volume, affine_from_spacing

Field3 = NDArray[np.float32]  # (z, y, x)
Unit = Annotated[float, Field(ge=0, le=1)]

BODY = 1
ORGAN = 2
LESION = 3
LOOKALIKE = 4
CONTRASTS = {BODY: 0.0, ORGAN: 1.0, LESION: -0.6, LOOKALIKE: 0.8}
"""Mean of each tissue in the first channel, in standard deviations of the body's
texture.
"""

TEXTURES = {BODY: 12.0, ORGAN: 4.0, LESION: 6.0, LOOKALIKE: 12.0}
"""Size of each tissue's texture in mm."""

DRAWN = (
    "The scans are generated phantoms: figures on them show that a method works, "
    "and nothing about patients.\n"
)
"""What every report on phantoms says."""


class PhantomSettings(Frozen):
    """What the phantoms look like.

    shape: voxels `(z, y, x)`; spacing: mm `(z, y, x)`, varied by up to
    `spacing_variation` a case; lesions: most lesions in a case (each has at least one,
    unless this is 0); neighbour: label the look-alike too; texture, noise: in units of
    the organ's contrast; bias: relative; label_values: one for each of `label_names`,
    default 1..n; test_cases: how many of the cases, the last ones, form a test set;
    suffix: file format.
    """

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
                "test_cases may not exceed cases, "
                "and a phantom needs at least 8 voxels along each axis"
            )
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels: the organ, lesions and the look-alike, as far as they
        are wanted.
        """
        names = ["organ"]
        if self.lesions:
            names.append("lesion")
        if self.neighbour:
            names.append("neighbour")
        return tuple(names)

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
class VoxelCentres:
    """Voxel centres in mm from the middle of the volume, one vector an axis."""

    axes: tuple[Field3, Field3, Field3]

    @classmethod
    def of(cls, shape: Shape, spacing: Spacing) -> "VoxelCentres":
        """The grid of `shape` voxels `spacing` mm apart."""
        z, y, x = (
            _centres(count, step) for count, step in zip(shape, spacing, strict=True)
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
        counts = [blur.shape[1] for blur in blurs]
        knots = rng.standard_normal(counts, dtype=np.float32)
        along_z = z @ knots.reshape(counts[0], -1)
        field = along_z.reshape(len(z), *counts[1:]) @ x.T
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
            axis - np.float32(middle)
            for axis, middle in zip(self.axes, centre, strict=True)
        )
        total = np.zeros((len(z), len(y), len(x)), np.float32)
        for turn_z, turn_y, turn_x in matrix.astype(np.float32):
            along_z = (turn_z * z)[:, None, None]
            along_y = (turn_y * y)[:, None]
            total += (along_z + along_y + turn_x * x) ** 2
        return total


def _centres(count: int, step: float) -> Field3:
    """Coordinates of `count` voxels, `step` mm apart, about 0."""
    numbers = np.arange(count, dtype=np.float32)
    return (numbers - (count - 1) / 2) * np.float32(step)


def _blur(axis: Field3, size: float) -> Field3:
    """Weights `(voxel, knot)` of a Gaussian with sigma `size` / 2 on knots as far
    apart.
    """
    sigma = max(size / 2, 1e-3)
    first = axis[0] - 2 * sigma
    end = axis[-1] + 3 * sigma
    knots = np.arange(first, end, sigma, dtype=np.float32)
    distance = axis[:, None] - knots
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    norm = np.linalg.norm(weights, axis=1, keepdims=True)
    return np.asarray(weights / norm, dtype=np.float32)


def phantom_case(settings: PhantomSettings, index: int) -> tuple[Volume, Volume]:
    """Image `(channel, z, y, x)`, int16, and label map of case `index`; depends on
    `settings.seed` and `index` only.
    """
    rng = np.random.default_rng([settings.seed, index])
    spacing = varied_spacing(settings.spacing, settings.spacing_variation, rng)
    origin: Spacing = tuple(rng.uniform(-100, 100, 3).tolist())
    affine = affine_from_spacing(spacing, origin)
    grid = VoxelCentres.of(settings.shape, spacing)
    tissues = _anatomy(grid, settings, rng)
    textures = {
        tissue: grid.smooth_noise(rng, size) for tissue, size in TEXTURES.items()
    }
    bias = np.exp(settings.bias * grid.smooth_noise(rng, float(grid.extent.max())))
    channels = [
        _channel(tissues, textures, bias, contrast, settings, rng)
        for contrast in _contrasts(settings)
    ]
    labels = _label_map(tissues, settings)[None]
    return Volume(np.stack(channels), affine), Volume(labels, affine)


def varied_spacing(
    spacing: Spacing, variation: float, rng: np.random.Generator
) -> Spacing:
    """`spacing` with each axis made up to `variation` wider or narrower."""
    factors = 1 + variation * rng.uniform(-1, 1, 3)
    z, y, x = (np.array(spacing) * factors).tolist()
    return z, y, x


def _anatomy(
    grid: VoxelCentres, settings: PhantomSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Tissue of each voxel `(z, y, x)`; 0 outside the body."""
    extent = grid.extent
    centre = rng.normal(0, 0.01, 3) * extent
    body = grid.ellipsoid(centre, 0.48 * extent, np.eye(3)) < 1
    tissues = body.astype(np.uint8)
    _paint_organ(tissues, LOOKALIKE, -0.2, grid, rng)
    organ = _paint_organ(tissues, ORGAN, 0.2, grid, rng)
    if settings.lesions:
        smallest = 1.2 * extent.max() / max(settings.shape)
        for _ in range(rng.integers(1, settings.lesions + 1)):
            _paint_lesion(tissues, organ, smallest, grid, rng)
    return tissues


class _Organ(NamedTuple):
    """Mm from the middle of the volume, `(z, y, x)`; radius: the smallest one."""

    centre: NDArray[np.float64]
    radius: float


def _paint_organ(
    tissues: NDArray[np.uint8],
    tissue: int,
    side: float,
    grid: VoxelCentres,
    rng: np.random.Generator,
) -> _Organ:
    """A bumpy ellipsoid `side` of the extent along x; painted in place, in the body."""
    shares = np.array([0, 0, side]) + rng.uniform(-0.05, 0.05, 3)
    centre = shares * grid.extent
    radii = rng.uniform(0.18, 0.26, 3) * grid.extent.mean()
    bumps = 0.15 * grid.smooth_noise(rng, float(radii.mean()))
    inside = grid.ellipsoid(centre, radii, random_rotation(rng)) < 1 + bumps
    tissues[inside & (tissues > 0)] = tissue
    return _Organ(centre, radii.min())


def _paint_lesion(
    tissues: NDArray[np.uint8],
    organ: _Organ,
    smallest: float,
    grid: VoxelCentres,
    rng: np.random.Generator,
) -> None:
    """A small ellipsoid somewhere in the organ, painted in place."""
    radii = np.maximum(rng.uniform(0.3, 0.5, 3) * organ.radius, smallest)
    direction = random_rotation(rng)[0]
    centre = organ.centre + direction * rng.uniform(0, 0.6) * organ.radius
    inside = grid.ellipsoid(centre, radii, random_rotation(rng)) < 1
    tissues[inside & (tissues == ORGAN)] = LESION


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """An orthogonal 3x3 matrix, uniformly drawn."""
    return np.asarray(np.linalg.qr(rng.standard_normal((3, 3)))[0])


def _contrasts(settings: PhantomSettings) -> list[dict[int, float]]:
    """Tissue means of each channel: the first as in `CONTRASTS`, the others drawn once
    for the whole dataset.
    """
    rng = np.random.default_rng([settings.seed, 2**32 - 1])
    drawn = rng.uniform(-1, 1, (settings.channels - 1, len(CONTRASTS)))
    others = [dict(zip(CONTRASTS, row, strict=True)) for row in drawn.tolist()]
    return [CONTRASTS, *others]


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
    image = (5 + image) * bias
    image += settings.noise * rng.standard_normal(image.shape, dtype=np.float32)
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
    table = np.zeros(LOOKALIKE + 1, np.uint8 if small else np.int32)
    for tissue, value in values.items():
        table[tissue] = value
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


def _write_case(
    folder: Path, settings: PhantomSettings, index: int
) -> dict[str, object]:
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
