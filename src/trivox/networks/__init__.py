"""Networks by name. A builder takes a plan's topology and returns a module; the topology carries the size.

`nnunet-plain` and `resenc-*` share one class and differ in the topology that the planner gives them; `unet-small` and
`unet-tiny` are lean ones for CPUs.
"""

from collections.abc import Callable

from torch import nn

from trivox.errors import RecipeError
from trivox.networks.unet import UNet
from trivox.planning.topology import Topology

__all__ = ["NETWORKS", "Builder", "UNet", "build_network"]

Builder = Callable[..., nn.Module]


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
    name: str, topology: Topology, *, channels: int, outputs: int, deep_supervision: bool = True
) -> nn.Module:
    """Build a network by name; raises `RecipeError` listing the known ones."""
    if name not in NETWORKS:
        raise RecipeError(f"network '{name}' does not exist; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](topology, channels=channels, outputs=outputs, deep_supervision=deep_supervision)
