"""Batches of X-ray exams with the volume that they show: views as they were taken, or
rendered anew in each step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from trivox.config.volumes import ReconstructionOptions
from trivox.errors import DataError
from trivox.planning.volumes import VolumePlan
from trivox.preparation.exam_store import ExamStore
from trivox.preparation.sampler import sample_rng
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Geometry, even_angles
from trivox.projection.noise import add_noise
from trivox.projection.projector import project
from trivox.projection.rays import follow
from trivox.projection.xrays import Xrays, follow_ahead
from trivox.uploads import sent, sent_together
from trivox.volumes.volume import Array

WHOLE_STEP = 1 << 20
"""Position of draws that all samples of a step share."""


@dataclass(frozen=True, eq=False)
class VolumeTargets:
    """What X-rays show: normalised HU `(b, 1, z, y, x)`, and the X-rays, which a volume
    has to agree with.
    """

    volume: Tensor
    xrays: Xrays

    def __len__(self) -> int:
        return len(self.volume)

    def __getitem__(self, part: slice) -> "VolumeTargets":
        return VolumeTargets(self.volume[part], self.xrays[part])


@dataclass(frozen=True, eq=False)
class RawExams:
    """Exams as read: CTs on the rendering grid `(b, z, y, x)` int16 HU, and the views
    or where they are to be taken from.

    gain: factors `(b, v)` on the views, 0 for one that is missing; photons: of the
    noise, None for none.
    """

    plan: VolumePlan
    volumes: Tensor
    views: Xrays | Geometry
    gain: Tensor
    photons: float | None
    seed: int

    @torch.no_grad()
    def finish(self, device: torch.device) -> tuple[Xrays, VolumeTargets]:
        """Render, add noise, drop views, bring the volumes to the network's grid and
        window.
        """
        volumes, gain = sent_together((self.volumes, self.gain), device)
        hounsfield = volumes.float()
        if isinstance(self.views, Geometry):
            geometry = self.views
            images = self._rendered(hounsfield, geometry)
        else:
            geometry = self.views.geometry
            images = sent(self.views.images, device)
        xrays = Xrays(images * gain[:, :, None, None], geometry, gain > 0)
        targets = to_window(coarser(hounsfield, self.plan), self.plan.window)
        return xrays, VolumeTargets(targets, xrays)

    def _rendered(self, hounsfield: Tensor, geometry: Geometry) -> Tensor:
        attenuation = attenuation_of(hounsfield, water=self.plan.water_per_mm)
        images = project(attenuation, geometry, self.plan.render_grid)
        if self.photons is not None:
            device = hounsfield.device
            where = "cpu" if device.type == "mps" else device
            generator = torch.Generator(where).manual_seed(self.seed)
            images = add_noise(images, self.photons, generator=generator)
        return images


def coarser(volumes: Tensor, plan: VolumePlan) -> Tensor:
    """Volumes on the rendering grid `(b, z, y, x)` averaged onto the network's, `(b, 1,
    z, y, x)`.
    """
    factor = plan.render_shape[0] // plan.shape[0]
    return avg_pool3d(volumes[:, None], factor) if factor > 1 else volumes[:, None]


def to_window(hounsfield: Tensor, window: tuple[float, float]) -> Tensor:
    """HU with the window's ends at 0 and 1, clipped to it."""
    low, high = window
    return ((hounsfield - low) / (high - low)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class ExamSource:
    """Batches as a pure function of the step; `positions` are this rank's places in the
    global batch of `batch_size`.

    One step has one number of views, and one geometry where views are rendered: a
    single projector then serves all samples. Without `training` angles are even,
    nothing is dropped and there is no noise; steps go through the numbers of views.
    """

    store: ExamStore
    names: Sequence[str]
    plan: VolumePlan
    options: ReconstructionOptions
    seed: int
    positions: Sequence[int]
    batch_size: int
    training: bool

    @property
    def _stream(self) -> int:
        return 0 if self.training else 1

    def read(self, step: int) -> RawExams:
        """Draw and read the exams of a step; touches no device and no shared state."""
        rng = sample_rng(self.seed, step, WHOLE_STEP, stream=self._stream)
        counts = self.options.view_counts
        count = int(rng.choice(counts)) if self.training else counts[step % len(counts)]
        names = [self.name_of(step, position) for position in self.positions]
        views: Geometry | Xrays
        if self.options.views == "random":
            views = geometry = self._geometry(rng, count)
            photons = self._photons(rng)
            follow(geometry, self.plan.render_grid)
        else:
            views = self._stored(names, rng, count)
            geometry = views.geometry
            photons = None
        follow_ahead(geometry, self.plan.grid)
        gains = [self._gain(step, place, views.views) for place in self.positions]
        volumes = np.stack([self.store.volume(name) for name in names])
        return RawExams(
            plan=self.plan,
            volumes=torch.from_numpy(volumes),
            views=views,
            gain=torch.from_numpy(np.stack(gains)),
            photons=photons,
            seed=int(rng.integers(2**31)),
        )

    def name_of(self, step: int, position: int) -> str:
        """The case at a position of the global batch: every case comes once before any
        comes again.
        """
        sweep, place = divmod(step * self.batch_size + position, len(self.names))
        rng = sample_rng(self.seed, sweep, WHOLE_STEP + 1, stream=self._stream)
        order = rng.permutation(len(self.names))
        return self.names[int(order[place])]

    def _photons(self, rng: np.random.Generator) -> float | None:
        if not self.training or self.options.photons is None:
            return None
        low, high = (math.log(value) for value in self.options.photons)
        return math.exp(rng.uniform(low, high))

    def _gain(self, step: int, position: int, views: int) -> Array:
        """Factor on each view of a sample `(v,)`, 0 for one that is missing."""
        if not self.training:
            return np.ones(views, np.float32)
        options = self.options
        rng = sample_rng(self.seed, step, position, stream=self._stream)
        dropped = rng.random(views) < options.drop_view
        if views and dropped.all():
            dropped[rng.integers(views)] = False
        if rng.random() < options.no_views:
            dropped[:] = True
        gain = np.float32(1.0 + options.gain_jitter * rng.uniform(-1, 1))
        return np.where(dropped, np.float32(0), gain)

    def _geometry(self, rng: np.random.Generator, count: int) -> Geometry:
        jitter = self.options.angle_jitter if self.training else 0.0
        distance = self.options.distance_jitter if self.training else 0.0
        return even_views(
            self.plan,
            count,
            turned=rng.uniform(-jitter, jitter, count),
            stretched=1 + distance * rng.uniform(-1, 1),
        )

    def _stored(
        self, names: Sequence[str], rng: np.random.Generator, count: int
    ) -> Xrays:
        exams = [self.store.views(name) for name in names]
        count = min(count, *(exam.views for exam in exams))
        sizes = sorted({exam.geometry.detector for exam in exams})
        if len(sizes) > 1:
            listed = " and ".join(f"{rows} x {columns}" for rows, columns in sizes)
            raise DataError(
                f"{self.store.folder}: detectors of {listed} pixels cannot share a "
                "batch; set batch_size=1, or bring the views to one size"
            )
        exams = [exam.select(self._choice(exam.views, rng, count)) for exam in exams]
        images = torch.cat([exam.images for exam in exams])
        return Xrays.of(images, shared([exam.geometry for exam in exams]))

    def _choice(self, views: int, rng: np.random.Generator, count: int) -> list[int]:
        """The first ones, or in training any."""
        if not self.training:
            return list(range(count))
        chosen: list[int] = rng.permutation(views)[:count].tolist()
        return chosen


def even_views(
    plan: VolumePlan,
    count: int,
    *,
    turned: Sequence[float] | Array | None = None,
    stretched: float = 1.0,
) -> Geometry:
    """`count` views evenly spaced over 180 degrees, from AP on; turned: degrees added;
    stretched: factor on distances.
    """
    angles = list(even_angles(count))
    if turned is not None:
        angles = [even + float(by) for even, by in zip(angles, turned, strict=True)]
    return Geometry.orbit(
        angles,
        detector=plan.detector,
        pixel_mm=plan.pixel_mm,
        sod=plan.sod_mm * stretched,
        sdd=plan.sdd_mm * stretched,
    )


def shared(geometries: Sequence[Geometry]) -> Geometry:
    """One geometry if all exams were taken alike, else a batch of them: a shared one is
    projected many times faster.
    """
    stacked = Geometry.stack(geometries)
    alike = all(bool((part == part[:1]).all()) for part in stacked.tensors().values())
    return geometries[0] if alike else stacked
