"""How many parameters a network has, without memory for them where it can be built
without.
"""

from collections.abc import Mapping

import torch
from torch import nn

from trivox.networks.family import Option
from trivox.networks.layers import parameters_of
from trivox.networks.registry import (
    XRAY_NETWORKS,
    build_network,
    build_reconstruction_network,
    patch_family,
)
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Grid
from trivox.volumes.volume import Shape

CHEST_WINDOW = (-1024.0, 1476.0)


def count_parameters(
    name: str,
    size: Shape | None = None,
    *,
    channels: int = 1,
    outputs: int = 3,
    options: Mapping[str, Option] | None = None,
) -> int:
    """Trainable parameters of the network that is built for `size` voxels `(z, y, x)`
    of 1 mm (None: 128 an axis, or what a network of X-rays is made for), heads of deep
    supervision included; computed on the meta device.
    """
    if name in XRAY_NETWORKS:
        with torch.device("meta"):
            return parameters_of(_of_xrays(name, size, options))
    family = patch_family(name)
    topology, _ = family.shape(size or (128,) * 3, (1.0,) * 3)
    # MONAI's read numbers from tensors while they are built.
    with torch.device("cpu" if family.blueprint.uniform else "meta"):
        network = build_network(
            name, topology, channels=channels, outputs=outputs, options=options
        )
    return parameters_of(network)


def _of_xrays(
    name: str, size: Shape | None, options: Mapping[str, Option] | None
) -> nn.Module:
    native = XRAY_NETWORKS[name].native
    return build_reconstruction_network(
        name,
        grid=Grid(size or (native, native, native), (1.0, 1.0, 1.0)),
        window=CHEST_WINDOW,
        water_per_mm=WATER_PER_MM,
        options=options,
    )
