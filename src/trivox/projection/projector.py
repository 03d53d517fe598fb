"""Line integrals of a volume along X-rays, and the exact adjoint."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from trivox.errors import GeometryError, RecipeError
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.joseph import joseph
from trivox.projection.ray_table import RayTable, Towards
from trivox.projection.siddon import siddon
from trivox.projection.system_matrix import SystemMatrix
from trivox.projection.tracing import Tracing

Made = TypeVar("Made")
Method = Literal["auto", "joseph", "siddon", "matrix"]

MATRIX_ENTRIES = 1 << 23
"""Entries up to which "auto" builds the matrix: at most 134 MB with its transpose
(eight views of 64^2 on 32^3: 67 MB).
"""
GPU_ENTRIES = 1 << 25
"""Entries up to which "auto" keeps the matrix on a GPU, at most 268 MB."""


Operator = Tracing | SystemMatrix | RayTable
"""A linear map of volumes to images, `forward`, and its `adjoint`."""


class Projector:
    """Projects volumes on a grid along the rays of a geometry; project and backproject
    are each other's derivative.

    geometry: `(v,)` for all exams, or `(b, v)` for a batch of exactly that many; any
    number of views, none included. method: "joseph" (interpolation in every plane),
    "siddon" (exact lengths in voxels), "matrix" (Joseph's weights as a sparse matrix,
    made at the first use and kept) or "auto": the matrix while it is small, otherwise
    "joseph". What is kept, the geometry keeps, for all its projectors. Derivatives of
    any order keep no more than the result; none is taken with respect to the geometry.
    Computed in float32, or in float64 if given that; raises `GeometryError` for shapes
    that do not fit or a grid that reaches behind a source.
    """

    def __init__(
        self, geometry: Geometry, grid: Grid, *, method: Method = "auto"
    ) -> None:
        if method not in get_args(Method):
            raise RecipeError(
                f"projection method {method!r}: "
                f"choose one of {', '.join(get_args(Method))}"
            )
        self.geometry = geometry
        self.grid = grid
        self.method = method
        self._shared: tuple[Tensor, Any] | None = None

    def shared(self, of: Tensor, make: Callable[[], Made]) -> Made:
        """What `make` gives for a tensor, kept until another tensor is asked for."""
        if self._shared is None or self._shared[0] is not of:
            # of use in training whatever mode it was made in
            with torch.inference_mode(False), torch.no_grad():
                self._shared = (of, make())
        made: Made = self._shared[1]
        return made

    def project(self, volumes: Tensor) -> Tensor:
        """Line integrals `(b, v, rows, columns)` of attenuation `(b, z, y, x)` in 1/mm;
        zero outside the grid. Rays are not ended at the detector.
        """
        return self._apply(volumes, self.grid.shape, adjoint=False)

    def backproject(self, images: Tensor) -> Tensor:
        """The adjoint of `project`: `(b, v, rows, columns)` to `(b, z, y, x)`."""
        shape = (self.geometry.views, *self.geometry.detector)
        return self._apply(images, shape, adjoint=True)

    def lengths(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """How far each ray runs within the grid, mm: line integrals of ones, of each
        exam, or of one for all, `(b | 1, v, rows, columns)`.
        """
        lengths: list[Tensor] = []
        for operator in self._operators(dtype, device):
            if isinstance(operator, RayTable):
                lengths.append(operator.lengths())
            else:
                ones = torch.ones(1, *self.grid.shape, dtype=dtype)
                lengths.append(operator.forward(ones))
        return lengths[0] if len(lengths) == 1 else torch.cat(lengths)

    def towards(self, rows: Tensor, columns: Tensor) -> list[Towards] | None:
        """Steps of SIRT in place with weights of pixels and voxels, one, or one an exam;
        None where they are not to be had, as on a CPU.
        """
        operators = self._operators(columns.dtype, columns.device)
        steps: list[Towards] = []
        for number, operator in enumerate(operators):
            exam = slice(number, number + 1) if self.geometry.batched else slice(None)
            step = None
            if isinstance(operator, RayTable):
                step = operator.towards(rows[exam], columns[exam])
            if step is None:
                return None
            steps.append(step)
        return steps

    def _apply(self, given: Tensor, shape: tuple[int, ...], *, adjoint: bool) -> Tensor:
        exams = len(self.geometry.primary) if self.geometry.batched else len(given)
        if tuple(given.shape) != (exams, *shape):
            raise GeometryError(
                f"a tensor {tuple(given.shape)} cannot be projected here; "
                f"expected {(exams, *shape)}"
            )
        given = given.to(torch.promote_types(given.dtype, torch.float32))
        operators = self._operators(given.dtype, given.device)
        if not self.geometry.batched:
            return _apply(given, operators[0], adjoint)
        exams_of = zip(given.split(1), operators, strict=True)
        return torch.cat(
            [_apply(exam, operator, adjoint) for exam, operator in exams_of]
        )

    def _operators(self, dtype: torch.dtype, device: torch.device) -> list[Operator]:
        """One, or one an exam; made at the first use."""
        keeps = self._keeps_matrix(device)
        what = ("operator", self.method == "siddon", keeps, self.grid, dtype, device)
        operators: list[Operator] = []
        for exam in self.geometry.exams():
            make = partial(self._made, exam, keeps, dtype, device)
            operators.append(exam.remember(what, make))
        return operators

    def _made(
        self, exam: Geometry, keeps: bool, dtype: torch.dtype, device: torch.device
    ) -> Operator:
        rule = siddon if self.method == "siddon" else joseph
        if device.type != "cpu":
            return RayTable(
                exam, self.grid, rule, dtype=dtype, device=device, keep=keeps
            )
        if keeps:
            return SystemMatrix(exam, self.grid, rule, dtype=dtype)
        return Tracing(exam, self.grid, rule, dtype=dtype)

    def _keeps_matrix(self, device: torch.device) -> bool:
        if self.method != "auto":
            return self.method == "matrix"
        rays = self.geometry.primary.numel() * math.prod(self.geometry.detector)
        most = MATRIX_ENTRIES if device.type == "cpu" else GPU_ENTRIES
        return 4 * rays * max(self.grid.shape) <= most


def project(
    volumes: Tensor, geometry: Geometry, grid: Grid, *, method: Method = "auto"
) -> Tensor:
    """Line integrals as `Projector.project`; "auto" is "joseph", since a matrix does
    not pay for a single product.
    """
    return Projector(geometry, grid, method=_for_once(method)).project(volumes)


def backproject(
    images: Tensor, geometry: Geometry, grid: Grid, *, method: Method = "auto"
) -> Tensor:
    """The adjoint of `project`."""
    return Projector(geometry, grid, method=_for_once(method)).backproject(images)


def _for_once(method: Method) -> Method:
    return "joseph" if method == "auto" else method


class _Linear(torch.autograd.Function):
    """A product whose derivative is the product with the adjoint, to any order."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, operator: Operator, adjoint: bool) -> Tensor:
        ctx.operator = operator
        ctx.adjoint = adjoint
        with torch.autocast(given.device.type, enabled=False):
            return operator.adjoint(given) if adjoint else operator.forward(given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _apply(gradients[0], ctx.operator, not ctx.adjoint), None, None


def _apply(given: Tensor, operator: Operator, adjoint: bool) -> Tensor:
    product: Tensor = _Linear.apply(given, operator, adjoint)
    return product
