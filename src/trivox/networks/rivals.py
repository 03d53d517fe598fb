"""MONAI's networks behind the interface of ours, to compare on one's own data with one
flag; needs `pip install --no-deps monai`.

MONAI is imported when such a network is built (10 s), never before.
"""

from typing import Any

from torch import Tensor, nn

from trivox.errors import RecipeError, ResourceError
from trivox.planning.topology import Topology


class Rival(nn.Module):
    """In training with `deep_supervision` a list of logits, finest first (only the
    finest, if that is all there is).
    """

    def __init__(self, network: nn.Module, *, deep_supervision: bool) -> None:
        super().__init__()
        self.network = network
        self.deep_supervision = deep_supervision

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of `(b, c, z, y, x)`; see the class."""
        out = self.network(x)
        outputs: list[Tensor] = [out] if isinstance(out, Tensor) else list(out)
        return outputs if self.training and self.deep_supervision else outputs[0]


def _monai(topology: Topology) -> Any:
    if any(min(stride) == 1 for stride in topology.strides[1:]):
        raise RecipeError(
            "MONAI's networks halve every axis at every stage; make the plan for this "
            "network"
        )
    try:
        from monai.networks import nets  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ResourceError(
            "this network is MONAI's, which is not installed; run: "
            "pip install --no-deps monai"
        ) from error
    return nets


def segresnet_ds(
    topology: Topology, *, channels: int, outputs: int, deep_supervision: bool = True
) -> Rival:
    """Residual encoder with one decoder block a stage (Myronenko 2018; MONAI's
    SegResNetDS).
    """
    network = _monai(topology).SegResNetDS(
        spatial_dims=3,
        init_filters=32,
        in_channels=channels,
        out_channels=outputs,
        blocks_down=(1, 2, 2, 4, 4),
        norm="INSTANCE",
        dsdepth=4 if deep_supervision else 1,
    )
    return Rival(network, deep_supervision=deep_supervision)


def swin_unetr_v2(
    topology: Topology, *, channels: int, outputs: int, deep_supervision: bool = True
) -> Rival:
    """Swin transformer encoder with residual convolutions (He et al. 2023); it has one
    output only.
    """
    network = _monai(topology).SwinUNETR(
        in_channels=channels, out_channels=outputs, feature_size=48, use_v2=True
    )
    return Rival(network, deep_supervision=deep_supervision)


def mednext(
    topology: Topology,
    *,
    size: str,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
) -> Rival:
    """ConvNeXt-like U-Net (Roy et al. 2023) of size "s", "b" or "l"."""
    build = getattr(_monai(topology), f"MedNeXt{size.upper()}")
    network = build(
        spatial_dims=3,
        in_channels=channels,
        out_channels=outputs,
        kernel_size=3,
        deep_supervision=deep_supervision,
    )
    return Rival(network, deep_supervision=deep_supervision)
