"""Reconstruction by repeated projection: SIRT, its step alone, and total variation."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

SHORTEST = 1e-3
"""Rays and voxels that meet over less than this share of a voxel's edge have no say:
their weight would be noise.
"""


class SirtStep:
    """One step of SIRT towards given X-rays, `x + strength * C A^T R (b - A x)`,
    differentiable in volume and strength.

    R and C are 1 over the row and the column sums of the system matrix A; rows and
    columns without sum, and absent views, have weight 0. Other steps are built of this
    one: `sirt` repeats it, and a network ends with some (data consistency), whose
    strength it may learn: below 2 none moves away from the X-rays. Gregor and Benson
    2008.
    """

    def __init__(self, xrays: Xrays, projector: Projector) -> None:
        self.xrays = xrays
        self.projector = projector
        self.rows, self.columns = projector.shared(xrays.present, self._weights)

    def _weights(self) -> tuple[Tensor, Tensor]:
        """R `(b | 1, v, rows, columns)` and C `(b | 1, z, y, x)`, 1/mm: one for the
        batch where its exams agree.
        """
        images = self.xrays.images
        present = self.xrays.present
        if not self.projector.geometry.batched and _alike(present):
            present = present[:1]
        least = SHORTEST * min(self.projector.grid.spacing)
        lengths = self.projector.lengths(images.dtype, images.device)
        rows = _inverse(lengths, least) * present[:, :, None, None]
        columns = self.projector.backproject(rows.sign())
        return rows, _inverse(columns, least)

    def __call__(self, volume: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """The volume `(b, z, y, x)` in 1/mm a step closer to the X-rays; not clamped."""
        misfit = self.xrays.images - self.projector.project(volume)
        change = self.projector.backproject(self.rows * misfit)
        if isinstance(strength, Tensor):
            return volume + strength * self.columns * change
        return torch.addcmul(volume, self.columns, change, value=strength)


class _Repeated:
    """The steps of `sirt`: those of a `SirtStep`, after which nothing is negative, and
    that may use up the volume that they are given.
    """

    def __init__(self, step: SirtStep) -> None:
        self.step = step
        self.images = step.xrays.images
        self.in_place = step.projector.towards(step.rows, step.columns)

    def __call__(self, volume: Tensor) -> Tensor:
        """The volume `(b, z, y, x)` in 1/mm a step closer to the X-rays."""
        if self.in_place is None:
            return self.step(volume).clamp(min=0)
        if len(self.in_place) == 1:
            self.in_place[0](volume, self.images)
            return volume.clamp_(min=0)
        exams = zip(self.in_place, volume.split(1), self.images.split(1), strict=True)
        for step, exam, images in exams:
            step(exam, images)
        return volume.clamp_(min=0)


def _alike(present: Tensor) -> bool:
    """Whether all exams have the same views; nothing waits for a GPU to say so."""
    return present.device.type == "cpu" and bool((present == present[:1]).all())


def _inverse(sums: Tensor, least: float) -> Tensor:
    return F.threshold(sums, least, math.inf).reciprocal()


@torch.no_grad()
def sirt(
    xrays: Xrays,
    projector: Projector,
    *,
    iterations: int,
    start: Tensor | None = None,
    momentum: bool = True,
) -> Tensor:
    """Attenuation `(b, z, y, x)` in 1/mm, not negative, whose projections approach the
    X-rays; without gradient.

    start: attenuation to begin with, zero if None; without any view it is the answer.
    momentum: Nesterov's, as in FISTA (Beck and Teboulle 2009): ten iterations do the
    work of about twenty-five.
    """
    volume = _empty(xrays, projector) if start is None else start
    if _has_none(xrays):
        return volume
    step = _Repeated(SirtStep(xrays, projector))
    return _fista(volume, step, iterations=iterations, momentum=momentum)


def _has_none(xrays: Xrays) -> bool:
    """Whether there is no view at all, as far as a GPU need not be asked: steps towards
    absent views change nothing.
    """
    absent = xrays.present.device.type == "cpu" and not xrays.present.any()
    return not xrays.views or bool(absent)


def _empty(xrays: Xrays, projector: Projector) -> Tensor:
    """Zeros `(b, z, y, x)`."""
    return xrays.images.new_zeros(len(xrays), *projector.grid.shape)


def _fista(
    volume: Tensor,
    step: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    momentum: bool = True,
) -> Tensor:
    """Repeat a step, each time from a place ahead of the last two volumes: Nesterov's
    momentum as in FISTA (Beck and Teboulle 2009).
    """
    before = volume
    speed = 1.0
    beyond = 0.0
    for _ in range(iterations):
        ahead = torch.lerp(before, volume, 1 + beyond)
        before = volume
        volume = step(ahead)
        following = (1 + (1 + 4 * speed**2) ** 0.5) / 2 if momentum else 1.0
        beyond = (speed - 1) / following
        speed = following
    return volume


# -- total variation -------------------------------------------------------------------
@torch.no_grad()
def tv(
    xrays: Xrays,
    projector: Projector,
    *,
    weight: float = 3e-5,
    iterations: int = 50,
    smoothing: int = 10,
) -> Tensor:
    """Attenuation `(b, z, y, x)` in 1/mm, not negative, of small total variation that
    explains the X-rays.

    Minimises `1/2 |A x - b|^2_R + weight / C' sum |grad x|` by FISTA with SIRT's step,
    R and C as there, C' the median of C: `weight` is an attenuation in 1/mm, and what
    it means depends neither on the number of views nor on the detector. smoothing:
    inner iterations. Beck and Teboulle 2009 (IEEE TIP 18:2419), in the metric of C
    instead of the plain one.
    """
    volume = _empty(xrays, projector)
    if _has_none(xrays):
        return volume
    step = SirtStep(xrays, projector)
    usual = _median_of_positive(step.columns)
    # valid too; the smoothing is slow beside large ones
    step.columns = torch.minimum(step.columns, 2 * usual)
    smooth = _Smoothing(weight / usual, step.columns)
    return _fista(
        volume,
        lambda ahead: smooth(step(ahead), iterations=smoothing),
        iterations=iterations,
    )


def _median_of_positive(columns: Tensor) -> Tensor:
    """Of each exam, `(b | 1, 1, 1, 1)`; 1 for an exam without views."""
    medians: list[Tensor] = []
    for exam in columns:
        positive = exam[exam > 0]
        medians.append(positive.median() if len(positive) else exam.new_ones(()))
    return torch.stack(medians)[:, None, None, None]


class _Smoothing:
    """argmin over x >= 0 of `1/2 |x - z|^2 / C + weight |grad x|`, by projected
    gradient on the dual, warm-started.
    """

    def __init__(self, weight: Tensor, metric: Tensor) -> None:
        self.change = weight * metric
        largest = self.change.amax(dim=(1, 2, 3), keepdim=True)
        self.rate = _inverse(12 * largest, torch.finfo(metric.dtype).tiny)
        self.dual: Tensor | None = None  # (3, b, z, y, x)

    def __call__(self, volume: Tensor, *, iterations: int) -> Tensor:
        dual = volume.new_zeros(3, *volume.shape) if self.dual is None else self.dual
        for _ in range(iterations):
            dual = dual + self.rate * _gradient(self._primal(volume, dual))
            z, y, x = dual
            squares = z * z + y * y + x * x  # norm(dim=0) takes twenty times as long
            dual *= squares.clamp_(min=1).rsqrt_()
        self.dual = dual
        return self._primal(volume, dual)

    def _primal(self, volume: Tensor, dual: Tensor) -> Tensor:
        return (volume - self.change * _gradient_adjoint(dual)).clamp(min=0)


def _gradient(volume: Tensor) -> Tensor:
    """Forward differences along z, y, x `(3, b, z, y, x)`; 0 at the far faces."""
    gradient = volume.new_zeros(3, *volume.shape)
    gradient[0, :, :-1] = volume[:, 1:] - volume[:, :-1]
    gradient[1, :, :, :-1] = volume[:, :, 1:] - volume[:, :, :-1]
    gradient[2, :, :, :, :-1] = volume[..., 1:] - volume[..., :-1]
    return gradient


def _gradient_adjoint(dual: Tensor) -> Tensor:
    """The adjoint of `_gradient`: minus the divergence."""
    volume = torch.zeros_like(dual[0])
    for axis in (1, 2, 3):
        size = volume.shape[axis]
        flow = dual[axis - 1].narrow(axis, 0, size - 1)
        volume.narrow(axis, 1, size - 1).add_(flow)
        volume.narrow(axis, 0, size - 1).sub_(flow)
    return volume
