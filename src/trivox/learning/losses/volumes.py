"""What a reconstructed volume costs: L1 or L2, five more parts and the re-projection,
O(1) for the mean training volume.

Volumes are normalised HU `(b, 1, z, y, x)`; all parts are computed in fp32, also under
autocast. p: prediction, t: target.

- l1: mean |p - t|.
- l2: mean (p - t)^2. Where X-rays leave a voxel open its answer is the mean of what is
  possible, which PSNR rewards; that of l1 is the median: of a small shape, nothing at
  all.
- ssim: 1 - 3-D structural similarity (`similarity`).
- perceptual: features of an encoder that the project trained on phantoms
  (`perceptual`).
- edge: mean | |S p| - |S t| |, S the 3 x 3 x 3 Sobel operator of three axes, a voxel's
  gradient (`edges`).
- deep_supervision: mean |p_k - t_k| of the coarser outputs k = 1, 2, ... against the
  target averaged over their voxels, with weights 1/2, 1/4, ... divided by their sum.
- frequency: mean of `(0.1 + f) |F (p - t)|` over the orthonormal 3-D spectrum; f:
  frequency over that of the corner. Of the difference rather than of magnitudes, so
  that only equal volumes cost nothing (Jiang et al. 2021).
- reprojection: mean |A (p - t)| in line integrals over the pixels of the views that are
  present; A projects attenuation.

Each is divided by its entry in `SCALES`, about what it costs to answer with the mean
training volume.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.config.volumes import ReconstructionLoss
from trivox.learning.losses.perceptual import PerceptualDifference
from trivox.learning.losses.similarity import similarities
from trivox.learning.losses.targets import (
    absolute_difference,
    full_precision,
    taking_part,
)
from trivox.projection.attenuation import HounsfieldWindow
from trivox.projection.geometry import Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.uploads import constant, sent

SCALES = {
    "l1": 0.05,
    "l2": 0.008,
    "ssim": 0.5,
    "perceptual": 0.3,
    "edge": 0.03,
    "deep_supervision": 0.05,
    "frequency": 0.015,
    "reprojection": 0.2,
}
"""What the mean of 80 thorax phantoms costs on others, rounded; grids of 32^3 and 64^3
differ by up to a third.
"""
LOW_FREQUENCIES = 0.1
FLAT = 1e-6
"""Added to the gradient of a volume along an axis of its own: where it is flat, the
slope of its magnitude is finite.
"""


class VolumeCriterion(nn.Module):
    """The weighted sum of the parts whose weight is above 0; the others are not
    computed.

    window: HU that are 0 and 1 in the volumes; water_per_mm: attenuation of water in
    the X-rays; grid: of the target.
    """

    def __init__(
        self,
        weights: ReconstructionLoss,
        *,
        window: tuple[float, float],
        water_per_mm: float,
        grid: Grid,
    ) -> None:
        super().__init__()
        self.weights: dict[str, float] = {
            name: weight for name, weight in weights.model_dump().items() if weight > 0
        }
        self.units = HounsfieldWindow(window, water_per_mm)
        self.grid = grid
        self.perceptual: PerceptualDifference | None = None
        if "perceptual" in self.weights:
            self.perceptual = PerceptualDifference(window=window)

    def forward(
        self, outputs: Tensor | Sequence[Tensor], target: Tensor, xrays: Xrays | None
    ) -> Tensor:
        """The loss, a scalar; arguments as for `parts`."""
        finest, *coarser = _scales(outputs)
        costs = self._costs([finest, *coarser], target, xrays)
        terms = [taking_part(output) for output in self._idle(finest, coarser, costs)]
        if costs:
            factors = [self.weights[name] / SCALES[name] for name in costs]
            weights = constant(tuple(factors), target.device)
            terms.append(torch.dot(torch.stack(list(costs.values())), weights))
        return sum(terms[1:], start=terms[0])

    @staticmethod
    def _idle(
        finest: Tensor, coarser: Sequence[Tensor], costs: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """Outputs that no part looks at: they take part with gradient zero, since DDP
        waits for every parameter.
        """
        idle = [] if set(costs) - {"deep_supervision"} else [finest]
        return idle if "deep_supervision" in costs else [*idle, *coarser]

    def parts(
        self, outputs: Tensor | Sequence[Tensor], target: Tensor, xrays: Xrays | None
    ) -> dict[str, Tensor]:
        """Every part without its weight, means over the samples.

        outputs: `(b, 1, z, y, x)`, or several, finest first; one that is coarser than
        the target is compared with the target averaged over its voxels. xrays: the
        views of the re-projection. `reprojection` is left out without views,
        `deep_supervision` with a single output.
        """
        costs = self._costs(_scales(outputs), target, xrays)
        return {name: cost / SCALES[name] for name, cost in costs.items()}

    def _costs(
        self, outputs: Sequence[Tensor], target: Tensor, xrays: Xrays | None
    ) -> dict[str, Tensor]:
        """Every part, not yet scaled."""
        finest, *coarser = (full_precision(output) for output in outputs)
        target = at_size_of(finest, full_precision(target))
        with torch.autocast(target.device.type, enabled=False):
            costs = {
                name: part(finest, target)
                for name, part in PARTS.items()
                if name in self.weights
            }
            if self.perceptual is not None:
                costs["perceptual"] = self.perceptual(finest, target)
            if coarser and "deep_supervision" in self.weights:
                costs["deep_supervision"] = deep_supervision(coarser, target)
            if xrays is not None and xrays.views and "reprojection" in self.weights:
                costs["reprojection"] = self._reprojection(finest, target, xrays)
        return {name: costs[name] for name in self.weights if name in costs}

    def _reprojection(self, prediction: Tensor, target: Tensor, xrays: Xrays) -> Tensor:
        z, y, x = prediction.shape[2:]
        projector = Projector(xrays.geometry, self.grid.resized((z, y, x)))
        difference = self._attenuation(prediction) - self._attenuation(target)
        images = projector.project(difference)
        of_views = torch.linalg.vector_norm(images, 1, (-2, -1))  # (b, v)
        count = xrays.present.sum(1, keepdim=True).clamp(min=1)
        values = images.numel() // xrays.views
        share = xrays.present / (count * values)
        return torch.dot(of_views.flatten(), share.flatten())

    def _attenuation(self, volumes: Tensor) -> Tensor:
        """Per mm, `(b, z, y, x)` of `(b, 1, z, y, x)`."""
        return F.relu(self.units.attenuation(volumes.squeeze(1)))


def absolute(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference."""
    return absolute_difference(prediction, target)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference."""
    return F.mse_loss(prediction, target)


def dissimilarity(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM."""
    return 1 - similarities(prediction, target).mean()


def edges(volumes: Tensor) -> Tensor:
    """Magnitude of the Sobel gradient `(b, c, z - 2, y - 2, x - 2)`, where the operator
    fits; unit: value per voxel.

    Along each axis a central difference `[-1, 0, 1] / 2` of what `[1, 2, 1] / 4`
    smooths along the other two.
    """
    if volumes.device.type != "cpu":
        magnitude: Tensor = _gradient(volumes).norm(dim=1, keepdim=True)
        return magnitude
    squares = [_sobel(volumes, axis).square() for axis in (-3, -2, -1)]
    return (torch.stack(squares).sum(0) + FLAT**2).sqrt()


def edge_difference(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel magnitudes; a shift of all values costs
    nothing.
    """
    return absolute_difference(edges(prediction), edges(target))


def frequency_difference(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean weighted magnitude of the spectrum of the difference."""
    magnitude = _magnitude(prediction - target)
    shape = prediction.shape[-3:]
    weights = _frequency_weights(shape, magnitude.device, magnitude.dtype)
    of_volumes = torch.matmul(magnitude.flatten(-3), weights.flatten())
    return of_volumes.mean()


def spectrum(volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitudes of the orthonormal spectrum `(b, c, z, y, x // 2 + 1)`, and the share
    of the whole that each stands for.

    The share of a column that the half spectrum leaves out lies with its mirror image,
    so that `(magnitude^2 * share).sum() == volume.square().mean()` (Parseval).
    """
    magnitude = _magnitude(volumes)
    return magnitude, _shares(volumes.shape[-3:], magnitude.device, magnitude.dtype)


def _magnitude(volumes: Tensor) -> Tensor:
    magnitude: Tensor = torch.fft.rfftn(volumes, dim=(-3, -2, -1), norm="ortho").abs()
    return magnitude


def _shares(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    size = shape[-1]
    single = (0, size - size // 2)  # columns that are their own mirror image
    columns = [1.0 if column in single else 2.0 for column in range(size // 2 + 1)]
    return constant(tuple(columns), device).to(dtype) / shape.numel()


def deep_supervision(coarser: Sequence[Tensor], target: Tensor) -> Tensor:
    """Absolute differences of coarser outputs, each to the target averaged over its
    voxels, with halving weights.
    """
    wanted = [at_size_of(output, target).flatten() for output in coarser]
    outputs = [output.flatten() for output in coarser]
    sizes = tuple(len(output) for output in outputs)
    differences = absolute_difference(
        torch.cat(outputs), torch.cat(wanted), reduction="none"
    )
    return torch.dot(differences, _halving_weights(sizes, target.device))


# what is made in inference mode may not be used in training later
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _halving_weights(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Of each value in a sum of means over so many values each, the first with weight
    1/2, the next with 1/4, ..., divided by the sum of all weights.
    """
    weights = [0.5**scale for scale in range(1, len(sizes) + 1)]
    whole = sum(weights)
    parts = [
        torch.full((size,), weight / whole / size)
        for weight, size in zip(weights, sizes, strict=True)
    ]
    return sent(torch.cat(parts), device)


def at_size_of(output: Tensor, target: Tensor) -> Tensor:
    """The target averaged over the voxels of an output of the same or a coarser grid,
    `(b, 1, z, y, x)`.
    """
    if target.shape == output.shape:
        return target
    z, y, x = output.shape[2:]
    factors = (target.shape[2] // z, target.shape[3] // y, target.shape[4] // x)
    return F.avg_pool3d(target, factors)


PARTS = {
    "l1": absolute,
    "l2": squared,
    "ssim": dissimilarity,
    "edge": edge_difference,
    "frequency": frequency_difference,
}


def _scales(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else outputs


def _sobel(volumes: Tensor, along: int) -> Tensor:
    for axis in (-3, -2, -1):
        size = volumes.shape[axis] - 2
        before, here, after = (volumes.narrow(axis, start, size) for start in (0, 1, 2))
        if axis == along:
            volumes = (after - before) / 2
        else:
            volumes = (before + 2 * here + after) / 4
    return volumes


def _gradient(volumes: Tensor) -> Tensor:
    """Along the three axes, and `FLAT`: `(b, 4, z - 2, y - 2, x - 2)` of `(b, 1, z, y,
    x)`. What `_sobel` computes of each, in one kernel, which a GPU needs little more time
    for than for one of its sums.
    """
    cudnn = torch.backends.cudnn
    with cudnn.flags(cudnn.enabled, cudnn.benchmark, allow_tf32=False):
        flat = constant((0.0, 0.0, 0.0, FLAT), volumes.device)
        return F.conv3d(volumes, sobel_kernels(volumes.device), flat)


# what is made in inference mode may not be used in training later
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def sobel_kernels(device: torch.device) -> Tensor:
    """The operator of each axis, and of none, `(4, 1, 3, 3, 3)`."""
    one = torch.zeros(27)
    one[13] = 1  # its kernels, mirrored, are what the operator makes of a single voxel
    single = F.pad(one.view(1, 1, 3, 3, 3), (1, 1) * 3)
    made = [_sobel(single, axis).flip(-3, -2, -1) for axis in (-3, -2, -1)]
    return sent(torch.cat([*made, torch.zeros_like(made[0])]), device)


# what is made in inference mode may not be used in training later
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _frequency_weights(
    shape: torch.Size, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Share and weight of each place of the half spectrum `(z, y, x // 2 + 1)`."""
    radius = _radius(shape, device, dtype)
    return (LOW_FREQUENCIES + radius) * _shares(shape, device, dtype)


def _radius(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Frequency of each place of the half spectrum `(z, y, x // 2 + 1)`, 1 in the
    corner.
    """
    z, y, x = (
        torch.fft.fftfreq(size, device=device, dtype=dtype).square() for size in shape
    )
    half = shape[-1] // 2 + 1
    squares: Tensor = z[:, None, None] + y[:, None] + x[:half]
    return (squares / 0.75).sqrt()
