"""Networks by name.

A builder takes a plan's topology and returns a module; the topology carries the size.

`hybrid-*` joins convolutions and attention. `nnunet-plain` and `resenc-*` share one
class and differ in the topology that the planner gives them, `nvidia-unet` is the same
at seven levels; `unet-small` and `unet-tiny` are lean ones for CPUs. `segresnet-ds`,
`swin-unetr-v2` and `mednext-*` are MONAI's, for comparison on one's own data.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from trivox.errors import RecipeError
from trivox.networks.hybrid import HYBRID_SIZES, HybridUNet
from trivox.networks.rivals import (
    mednext_b,
    mednext_l,
    mednext_s,
    segresnet_ds,
    swin_unetr_v2,
)
from trivox.networks.unet import UNet
from trivox.planning.topology import Topology

__all__ = ["NETWORKS", "Builder", "HybridUNet", "UNet", "build_network"]

Builder = Callable[..., nn.Module]
Option = bool | int | float | str
COMMON = ("topology", "channels", "outputs", "deep_supervision", "size")


def plain_unet(
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    dropout: float = 0.0,
) -> UNet:
    """Plain convolutional U-Net (31.2 M parameters at six stages of 32 to 320
    features).
    """
    plain = topology.model_copy(update={"residual": False})
    return UNet(
        plain,
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        dropout=dropout,
    )


def residual_encoder_unet(
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    dropout: float = 0.0,
) -> UNet:
    """U-Net with a residual encoder and a light decoder (102.35 M parameters at six
    stages).
    """
    residual = topology.model_copy(update={"residual": True})
    return UNet(
        residual,
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        dropout=dropout,
    )


def hybrid_unet(
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    size: str,
    attention: str = "default",
    drop_path: float | None = None,
    dropout: float = 0.0,
) -> HybridUNet:
    """Convolutions and attention in one of `HYBRID_SIZES`; `attention` is one of
    `AttentionKind`.

    16.1, 20.0 and 44.2 M parameters, 49, 138 and 335 GFLOP at 4 x 128^3. drop_path: None is what the size sets.
    """
    chosen = HYBRID_SIZES[size]
    return HybridUNet(
        topology,
        chosen,
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        attention=attention,
        drop_path=chosen.drop_path if drop_path is None else drop_path,
        dropout=dropout,
    )


NETWORKS: dict[str, Builder] = {
    "hybrid-lite": partial(hybrid_unet, size="lite"),
    "hybrid-base": partial(hybrid_unet, size="base"),
    "hybrid-large": partial(hybrid_unet, size="large"),
    "nnunet-plain": plain_unet,
    "resenc-m": residual_encoder_unet,
    "resenc-l": residual_encoder_unet,
    "resenc-xl": residual_encoder_unet,
    "nvidia-unet": plain_unet,
    "unet-small": plain_unet,
    "unet-tiny": plain_unet,
    "segresnet-ds": segresnet_ds,
    "swin-unetr-v2": swin_unetr_v2,
    "mednext-s": mednext_s,
    "mednext-b": mednext_b,
    "mednext-l": mednext_l,
}


def build_network(
    name: str,
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    options: Mapping[str, Option] | None = None,
) -> nn.Module:
    """Build a network by name with options of its own; raises `RecipeError` listing
    what is known.
    """
    if name not in NETWORKS:
        raise RecipeError(
            f"network '{name}' does not exist; choose one of {', '.join(NETWORKS)}"
        )
    builder, given = NETWORKS[name], dict(options or {})
    known = [key for key in inspect.signature(builder).parameters if key not in COMMON]
    for option in given:
        if option not in known:
            raise RecipeError(
                f"network '{name}' has no option '{option}'; its options: {', '.join(known) or 'none'}"
            )
    return builder(
        topology,
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        **given,
    )
