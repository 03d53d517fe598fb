"""Networks by name. A builder takes a plan's topology and returns a module; the topology carries the size.

`nnunet-plain` and `resenc-*` share one class and differ in the topology that the planner gives them; `unet-small` and
`unet-tiny` are lean ones for CPUs.
"""

import inspect
from collections.abc import Callable, Mapping

from torch import nn

from trivox.errors import RecipeError
from trivox.networks.unet import UNet
from trivox.planning.topology import Topology

__all__ = ["NETWORKS", "Builder", "UNet", "build_network"]

Builder = Callable[..., nn.Module]
Option = bool | int | float | str
COMMON = ("topology", "channels", "outputs", "deep_supervision")


def plain_unet(topology: Topology, *, channels: int, outputs: int, deep_supervision: bool = True) -> UNet:
    """Plain convolutional U-Net (31.2 M parameters at six stages of 32 to 320 features)."""
    plain = topology.model_copy(update={"residual": False})
    return UNet(plain, channels=channels, outputs=outputs, deep_supervision=deep_supervision)


def residual_encoder_unet(topology: Topology, *, channels: int, outputs: int, deep_supervision: bool = True) -> UNet:
    """U-Net with a residual encoder and a light decoder (102.35 M parameters at six stages)."""
    residual = topology.model_copy(update={"residual": True})
    return UNet(residual, channels=channels, outputs=outputs, deep_supervision=deep_supervision)


NETWORKS: dict[str, Builder] = {
    "nnunet-plain": plain_unet,
    "resenc-m": residual_encoder_unet,
    "resenc-l": residual_encoder_unet,
    "resenc-xl": residual_encoder_unet,
    "unet-small": plain_unet,
    "unet-tiny": plain_unet,
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
    """Build a network by name with options of its own; raises `RecipeError` listing what is known."""
    if name not in NETWORKS:
        raise RecipeError(f"network '{name}' does not exist; choose one of {', '.join(NETWORKS)}")
    builder, given = NETWORKS[name], dict(options or {})
    known = [key for key in inspect.signature(builder).parameters if key not in COMMON]
    for option in given:
        if option not in known:
            raise RecipeError(f"network '{name}' has no option '{option}'; its options: {', '.join(known) or 'none'}")
    return builder(topology, channels=channels, outputs=outputs, deep_supervision=deep_supervision, **given)
