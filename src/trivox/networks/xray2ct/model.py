"""From X-rays to a volume: `HybridCNNViTUNet3D`."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from trivox.errors import GeometryError, RecipeError
from trivox.networks.efficient import Pointwise
from trivox.networks.halves import in_bf16, in_type, wants_halves
from trivox.networks.xray2ct.consistency import DataConsistency, iterative_prior
from trivox.networks.xray2ct.lifting import FEW, Fused, ViewLifting, lift, look
from trivox.networks.xray2ct.sizes import LIFTED, ReconstructionSize, levels_of
from trivox.networks.xray2ct.unet3d import VolumeUNet
from trivox.networks.xray2ct.views2d import MultiScaleFeaturePyramid
from trivox.projection.attenuation import HounsfieldWindow
from trivox.projection.geometry import Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays, joined
from trivox.uploads import constant
from trivox.volumes.volume import Shape

Prior = Literal["sirt", "none"]
KNOWN = 3
"""Channels beside the lifted ones: prior, mean volume, log(1 + views)."""
MOST_VIEWS = 8
"""From here on the prior's weight is that of eight views."""
HEADS = 4
"""Finest levels that have an output."""


class HybridCNNViTUNet3D(nn.Module):
    """X-rays of 0 to 8 views (more will do) to a volume on `grid`, normalised HU `(b,
    1, z, y, x)`, not clamped.

    A 2-D pyramid with attention between all views; every voxel looks up its places in
    all scales; a 3-D U-Net of convolutions and shifted-window attention; its output is
    what to add to mean + w(views) * (prior - mean), where the prior is SIRT computed
    here from the same X-rays, started from the mean; then steps towards the X-rays
    (data consistency). In training with `deep_supervision` a list, finest first; the
    coarser ones are `(b, 1, z / 2, ...)` and so on.
    """

    mean_volume: Tensor

    def __init__(
        self,
        *,
        grid: Grid,
        size: ReconstructionSize,
        window: tuple[float, float],
        water_per_mm: float,
        prior: Prior = "sirt",
        prior_iterations: int = 10,
        consistency_steps: int = 1,
        deep_supervision: bool = True,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.levels = levels_of(grid.shape, levels)
        self.deep_supervision = deep_supervision
        self.prior = prior
        self.prior_iterations = prior_iterations
        self.units = HounsfieldWindow(window, water_per_mm)
        self.views = MultiScaleFeaturePyramid(
            size.pyramid, heads=size.heads, attention=size.between_views
        )
        lifted = zip(size.pyramid[:LIFTED], size.lifted, strict=True)
        self.lifting = nn.ModuleDict(
            {
                str(self.levels - 1 - i): ViewLifting(inputs, features)
                for i, (inputs, features) in enumerate(lifted)
            }
        )
        given = [3 * features + KNOWN for features in size.lifted]
        self.unet = VolumeUNet(size, self.levels, given)
        with_output = range(max(1, self.levels - HEADS), self.levels)
        self.heads = nn.ModuleDict(
            {str(level): _head(size.widths[level]) for level in with_output}
        )
        self.trust = nn.Parameter(
            torch.tensor([n / (n + 0.25) for n in range(1, MOST_VIEWS + 1)])
        )
        self.consistency = DataConsistency(consistency_steps)
        self.register_buffer("mean_volume", torch.zeros(grid.shape))
        self.finest = self.levels - 1
        self.fade = 1.0

    def set_mean(self, volume: Tensor) -> None:
        """What to believe without any view: the mean of the training volumes, `(z, y,
        x)` in normalised HU.
        """
        if tuple(volume.shape) != self.grid.shape:
            raise GeometryError(
                f"a mean volume of {tuple(volume.shape)} voxels for a grid of "
                f"{self.grid.shape}"
            )
        self.mean_volume.copy_(volume)

    def run_at(self, size: int | None, fade: float = 1.0) -> None:
        """Work at fewer voxels: `size` along the longest axis, None for all; finer
        levels are skipped from now on.

        fade: weight of the finest level in use, growing from 0 to 1 while it is new.
        Coordinates are in mm, so that weights mean the same at every size.
        """
        longest = max(self.grid.shape)
        levels = {
            longest >> (self.levels - 1 - level): level
            for level in map(int, self.heads)
        }
        if size is not None and size not in levels:
            raise RecipeError(
                f"the network does not run at {size} voxels; choose one of "
                f"{', '.join(map(str, levels))}"
            )
        self.finest = self.levels - 1 if size is None else levels[size]
        self.fade = fade

    @property
    def running_grid(self) -> Grid:
        """The grid of the output at the size that the network runs at."""
        return self.grid_at(self.finest)

    def grid_at(self, level: int) -> Grid:
        """The same field of view in the voxels of a level."""
        z, y, x = (n >> (self.levels - 1 - level) for n in self.grid.shape)
        return self.grid.resized((z, y, x))

    def forward(
        self, xrays: Xrays, *, consistent: bool = True
    ) -> Tensor | list[Tensor]:
        """See the class; consistent: whether the steps towards the X-rays are taken,
        without them a report can say what they are worth.

        Raises `GeometryError` for detectors that cannot be halved three times.
        """
        if self._halves_ahead(xrays.images.device):
            weights = in_bf16(self._learnt())
            outputs: Tensor | list[Tensor] = functional_call(
                self, weights, (xrays,), {"consistent": consistent}
            )
            return outputs
        return self._forward(xrays, consistent=consistent)

    def _forward(self, xrays: Xrays, *, consistent: bool) -> Tensor | list[Tensor]:
        physics = self._physics(xrays, consistent=consistent)
        known = self._at_levels(self._known(xrays, physics))
        views = xrays.present.sum(dim=1)
        residuals = self._residuals(self._decode(xrays, known, views))
        bases = self._bases([known[level] for level in residuals], views)
        outputs = list(torch._foreach_add(bases, list(residuals.values())))
        if physics is not None and consistent:
            outputs[0] = self._consistent(outputs[0], physics)
        return outputs if self.training and self.deep_supervision else outputs[0]

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the 3-D U-Net keeps a block's input alone and computes the rest again
        in the backward pass.
        """
        return self.unet.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        self.unet.gradient_checkpointing = wanted

    def _learnt(self) -> dict[str, Tensor]:
        """Weights of the layers; scales of branches, and how far the prior and the X-rays
        are trusted, stay in fp32.
        """
        layers = ("views.", "lifting.", "unet.", "heads.")
        named = self.named_parameters()
        return {
            name: weight
            for name, weight in named
            if name.startswith(layers) and not name.endswith("_scale")
        }

    @property
    def _head_weight(self) -> Tensor:
        weight = self.heads[str(self.levels - 1)].weight
        assert isinstance(weight, Tensor)
        return weight

    def _halves_ahead(self, device: torch.device) -> bool:
        """Whether the weights are to be brought to bf16 at once, and were not yet; what
        is computed again in the backward pass would find them in fp32.
        """
        plain = self._head_weight.dtype == torch.float32
        return plain and not self.gradient_checkpointing and wants_halves(device)

    # -- without learning --------------------------------------------------------------
    def _physics(
        self, xrays: Xrays, *, consistent: bool
    ) -> tuple[Xrays, Projector] | None:
        """The X-rays at the detail that the grid can show, and their projector; None
        where nothing is computed with them.
        """
        stepping = consistent and len(self.consistency.strength) > 0
        if not xrays.views or not (stepping or self.prior != "none"):
            return None
        xrays = joined(xrays, self.running_grid)
        return xrays, Projector(xrays.geometry, self.running_grid)

    def _known(self, xrays: Xrays, physics: tuple[Xrays, Projector] | None) -> Tensor:
        """Prior and mean volume `(b, 2, z, y, x)` in normalised HU, without gradient."""
        mean = _pooled(self.mean_volume[None, None], self.running_grid.shape)[:, 0]
        mean = mean.expand(len(xrays), *mean.shape[1:])
        if physics is None or self.prior == "none":
            return torch.stack((mean, mean), dim=1)
        with torch.no_grad(), torch.autocast(mean.device.type, enabled=False):
            start = self.units.attenuation(mean).clamp(min=0)
            sirt = iterative_prior(*physics, start, iterations=self.prior_iterations)
            prior = torch.add(mean, sirt - start, alpha=1 / self.units.width)
            return torch.stack((prior, mean), dim=1)

    def _at_levels(self, known: Tensor) -> dict[int, Tensor]:
        """What is known on the grids of the levels in use that look into the X-rays or
        have an output.
        """
        levels = {*map(int, self.lifting), *map(int, self.heads)}
        return {
            level: _pooled(known, self.grid_at(level).shape)
            for level in levels
            if level <= self.finest
        }

    def _bases(self, known: Sequence[Tensor], views: Tensor) -> list[Tensor]:
        """Mean + w(views) * (prior - mean), w(0) = 0, `(b, 1, z, y, x)` on each of
        several grids; of all voxels in one axis, at once. views: of each exam `(b,)`.
        """
        none = constant((0.0,), self.trust.device)
        trust = torch.cat((none, self.trust))[:, None]
        weight = F.embedding(views.clamp(max=MOST_VIEWS), trust)  # (b, 1)
        shapes = [here.shape[2:] for here in known]
        joined = torch.cat([here.flatten(2) for here in known], dim=2)
        prior, mean = joined.split(1, dim=1)
        bases = torch.lerp(mean, prior, weight[..., None])
        parts = bases.split([shape.numel() for shape in shapes], dim=2)
        return [part.unflatten(2, s) for part, s in zip(parts, shapes, strict=True)]

    def _consistent(self, volume: Tensor, physics: tuple[Xrays, Projector]) -> Tensor:
        with torch.autocast(volume.device.type, enabled=False):
            attenuation = self.units.attenuation(volume.squeeze(1))
            attenuation = self.consistency(attenuation, *physics)
            return self.units.normalised(attenuation)[:, None]

    # -- learnt ------------------------------------------------------------------------
    def _decode(
        self, xrays: Xrays, known: Mapping[int, Tensor], views: Tensor
    ) -> dict[int, Tensor]:
        """Maps of all levels in use; known: on the grid of each; views: of each exam
        `(b,)`.
        """
        maps = self.views(xrays) if xrays.views else None
        lifted = self._lifted(xrays, maps)
        many = torch.log1p(views)[:, None, None, None, None]

        def made(level: int) -> Tensor:
            here = known[level]
            fused = lifted.get(level) or self._nothing(level, here)
            size = here.shape[2:]
            together = torch.cat((*fused, here, many.expand(-1, 1, *size)), dim=1)
            if maps is None or (
                together.is_cuda and len(together) * size.numel() <= FEW
            ):
                return together
            # Convolutions of few channels take half the time in this layout on CPUs,
            # and less in bf16 on GPUs.
            return together.contiguous(memory_format=torch.channels_last_3d)

        levels = [level for level in map(int, self.lifting) if level <= self.finest]
        given = in_type([made(level) for level in levels], self._head_weight.dtype)
        of_level = dict(zip(levels, given, strict=True))
        decoded: dict[int, Tensor] = self.unet(of_level, self.finest, self.fade)
        return decoded

    def _lifted(self, xrays: Xrays, views: list[Tensor] | None) -> dict[int, Fused]:
        """What the voxels of the levels in use look up in the views, if there are any."""
        levels = [level for level in map(int, self.lifting) if level <= self.finest]
        if views is None or not levels:
            return {}
        grids = tuple(self.grid_at(level) for level in levels)
        sights = look(xrays, grids, water_per_mm=self.units.water)
        maps = [views[self.levels - 1 - level] for level in levels]
        liftings = [self._lifting(level) for level in levels]
        return dict(zip(levels, lift(liftings, maps, sights), strict=True))

    def _lifting(self, level: int) -> ViewLifting:
        lifting = self.lifting[str(level)]
        assert isinstance(lifting, ViewLifting)
        return lifting

    def _nothing(self, level: int, here: Tensor) -> tuple[Tensor]:
        """What no view shows, `(b, c, z, y, x)`."""
        outputs = self._lifting(level).outputs
        return (here.new_zeros(len(here), outputs, *here.shape[2:]),)

    def _residuals(self, maps: dict[int, Tensor]) -> dict[int, Tensor]:
        """What to add to the base at each level that has an output, finest first."""
        with_output = [k for k in range(self.finest, -1, -1) if str(k) in self.heads]
        halves = [self.heads[str(level)](maps[level]) for level in with_output]
        residuals = list(in_type(halves, torch.float32))
        if self.fade < 1 and len(residuals) > 1:
            size = residuals[0].shape[2:]
            coarser = F.interpolate(residuals[1], size=size, mode="trilinear")
            residuals[0] = torch.lerp(coarser, residuals[0], self.fade)
        return dict(zip(with_output, residuals, strict=True))


def _head(width: int) -> Pointwise:
    """Begins at zero: what is known without learning is the first answer."""
    head = Pointwise(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _pooled(volume: Tensor, shape: Sequence[int] | Shape) -> Tensor:
    """Averages of blocks: `(b, c, z, y, x)` to `(b, c, *shape)`, whose sizes divide
    those of the volume.
    """
    factor = volume.shape[2] // shape[0]
    return volume if factor == 1 else F.avg_pool3d(volume, factor)
