"""What a network costs: parameters, operations and memory, by one stated convention.

Networks run on torch's meta device, where nothing is computed or allocated, as far as
they can be built there.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trivox.networks.family import Option
from trivox.networks.layers import parameters_of
from trivox.networks.registry import (
    XRAY_NETWORKS,
    build_network,
    build_volume_network,
    patch_family,
)
from trivox.planning.topology import Topology, require_halving
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.xrays import Xrays
from trivox.volumes.volume import Shape

CHEST_WINDOW = (-1024.0, 1476.0)
CONVENTION = (
    "1 sample with deep supervision heads; GFLOP = 2 x multiply-accumulates; "
    "activations in fp32"
)
VOLUME_CONVENTION = (
    "1 sample with deep supervision heads, without SIRT and data consistency; GFLOP = 2 "
    "x multiply-accumulates; activations in fp32"
)
OUTPUTS = 3
"""Of a network that is described by its name alone."""


class Counts(TypedDict):
    """What a network costs; gflop of one forward pass, saved_activation_gib for the
    backward pass.
    """

    parameters: int
    gflop: float
    saved_activation_gib: float


class Cost(Counts):
    """Counts, and the convention that they follow."""

    convention: str


class FamilyCost(Cost):
    """Cost of a network for an input `(c, z, y, x)`."""

    network: str
    input: list[int]


class VolumeCost(Cost):
    """Cost of a network of X-rays for so many views of a detector (rows, columns) and a
    grid `(z, y, x)`.
    """

    network: str
    grid: list[int]
    views: int
    detector: list[int]


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
    return build_volume_network(
        name,
        grid=Grid(size or (native, native, native), (1.0, 1.0, 1.0)),
        window=CHEST_WINDOW,
        water_per_mm=WATER_PER_MM,
        options=options,
    )


def count_family(
    name: str,
    size: tuple[int, int, int, int],
    options: Mapping[str, Option] | None = None,
) -> FamilyCost:
    """Facts about a network at the topology that it gets for an input `(c, z, y, x)`."""
    channels, *patch = size
    z, y, x = patch
    topology, padded = patch_family(name).shape((z, y, x), (1.0, 1.0, 1.0))
    require_halving(topology, padded)
    z, y, x = padded
    counted = count_operations(name, topology, channels, OUTPUTS, (z, y, x), options)
    return {"network": name, "input": [channels, z, y, x], **counted}


def count_operations(
    name: str,
    topology: Topology,
    channels: int,
    outputs: int,
    patch: tuple[int, int, int],
    options: Mapping[str, Option] | None = None,
) -> Cost:
    """Parameters, GFLOP of one forward pass (2 x multiply-accumulates, torch's own
    counter) and GiB saved for backward.
    """
    network = build_network(
        name, topology, channels=channels, outputs=outputs, options=options
    ).to("meta")
    image = torch.zeros(1, channels, *patch, device="meta")
    return {**_count(network, image), "convention": CONVENTION}


def count_volume_network(
    name: str,
    *,
    views: int,
    shape: tuple[int, int, int],
    options: Mapping[str, Option] | None = None,
) -> VolumeCost:
    """Facts about a network of X-rays to CT for that many views of twice the grid's
    pixels; what it learns, not SIRT.
    """
    detector = (2 * shape[0], 2 * max(shape[1:]))
    angles = [180 * view / views for view in range(views)]
    with torch.device("meta"):
        network = build_volume_network(
            name,
            grid=Grid(shape, (1.0, 1.0, 1.0)),
            window=CHEST_WINDOW,
            water_per_mm=WATER_PER_MM,
            options=options,
            prior="none",
        )
        geometry = Geometry.orbit(angles, detector=detector, pixel_mm=1.0)
        xrays = Xrays.of(torch.zeros(1, views, *detector), geometry)
    return {
        "network": name,
        "grid": list(shape),
        "views": views,
        "detector": list(detector),
        **_count(network, xrays, consistent=False),
        "convention": VOLUME_CONVENTION,
    }


def _count(network: nn.Module, given: Any, **settings: Any) -> Counts:
    """Run a network once, counting what it computes and what it saves."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        network(given, **settings)
    activations = sum(size for key, size in saved.items() if key not in weights)
    return {
        "parameters": parameters_of(network),
        "gflop": round(counter.get_total_flops() / 1e9, 1),
        "saved_activation_gib": round(activations / 2**30, 2),
    }
