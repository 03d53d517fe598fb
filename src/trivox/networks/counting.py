"""What a network costs: parameters, operations and memory, by one stated convention.

Networks run on torch's meta device: nothing is computed or allocated.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trivox.networks.layers import parameters_of
from trivox.networks.registry import Option, build_network
from trivox.networks.xray2ct.registry import build_reconstruction_network
from trivox.planning.families import family_of
from trivox.planning.topology import Topology, require_halving
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.xrays import Xrays

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


def count_family(
    name: str,
    size: tuple[int, int, int, int],
    options: Mapping[str, Option] | None = None,
) -> dict[str, Any]:
    """Facts about a network at the topology that it gets for an input `(c, z, y, x)`."""
    channels, *patch = size
    topology, padded = family_of(name).shape(patch, (1.0, 1.0, 1.0))
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
) -> dict[str, Any]:
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
) -> dict[str, Any]:
    """Facts about a network of X-rays to CT for that many views of twice the grid's
    pixels; what it learns, not SIRT.
    """
    detector = (2 * shape[0], 2 * max(shape[1:]))
    angles = [180 * view / views for view in range(views)]
    with torch.device("meta"):
        network = build_reconstruction_network(
            name,
            grid=Grid(shape, (1.0, 1.0, 1.0)),
            window=(-1024.0, 1476.0),
            water_per_mm=WATER_PER_MM,
            options=options,
            prior="none",
        )
        network.consistent = False
        geometry = Geometry.orbit(angles, detector=detector, pixel_mm=1.0)
        xrays = Xrays.of(torch.zeros(1, views, *detector), geometry)
    return {
        "network": name,
        "grid": list(shape),
        "views": views,
        "detector": list(detector),
        **_count(network, xrays),
        "convention": VOLUME_CONVENTION,
    }


def _count(network: nn.Module, given: Any) -> dict[str, Any]:
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
        network(given)
    activations = sum(size for key, size in saved.items() if key not in weights)
    return {
        "parameters": parameters_of(network),
        "gflop": round(counter.get_total_flops() / 1e9, 1),
        "saved_activation_gib": round(activations / 2**30, 2),
    }
