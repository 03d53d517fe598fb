"""What a model or a network is: parameters, operations and memory, by one stated
convention.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivox.errors import BundleError, RecipeError

if TYPE_CHECKING:
    from trivox.networks.registry import Option


def describe(
    what: str,
    size: tuple[int, int, int, int],
    options: "Mapping[str, Option] | None" = None,
) -> dict[str, Any]:
    """Facts about a run or bundle (a path), or a network by name at input `size`
    (channels, z, y, x).

    options: of the network, for example `{"attention": "none"}`.
    """
    from trivox.networks.registry import NETWORKS
    from trivox.networks.xray2ct.registry import RECONSTRUCTION_NETWORKS

    path = Path(what)
    if path.exists():
        return _describe_bundle(path)
    if what not in (*NETWORKS, *RECONSTRUCTION_NETWORKS):
        names = ", ".join((*NETWORKS, *RECONSTRUCTION_NETWORKS))
        raise BundleError(
            f"'{what}' is neither a run, a bundle nor a network; networks: {names}"
        )
    if min(size) < 1:
        raise RecipeError(
            f"input {size} (channels z y x) needs positive sizes; try --input 1 128 128 128"
        )
    if what in RECONSTRUCTION_NETWORKS:
        return describe_reconstruction(
            what, views=size[0], shape=size[1:], options=options or {}
        )
    return _describe_network(what, size, options or {})


def _describe_bundle(path: Path) -> dict[str, Any]:
    from trivox.inference.bundle import read_bundle, task_of

    if task_of(path) == "reconstruction":
        return _describe_reconstruction_bundle(path)
    bundle = read_bundle(path)
    plan, description = bundle.description.plan, bundle.description
    channels = len(plan.inputs)
    facts = {
        "bundle": str(bundle.folder),
        "identity": bundle.identity,
        "notice": description.notice,
        "task": description.task,
        "dataset": plan.dataset,
        "channels": list(plan.channels),
        "labels": plan.labels.labels,
        "spacing_mm": list(plan.spacing),
        "patch_size": list(plan.patch_size),
        "folds": [weights.fold for weights in description.weights],
        "network": plan.network,
        **(
            {}
            if description.classification is None
            else {"classes": list(description.classification.classes)}
        ),
    }
    counted = count_operations(
        plan.network,
        plan.topology,
        channels,
        plan.labels.output_channels,
        plan.patch_size,
        plan.network_options,
    )
    return {**facts, **counted}


def _describe_reconstruction_bundle(path: Path) -> dict[str, Any]:
    from trivox.inference.bundle import read_volume_bundle

    bundle = read_volume_bundle(path)
    description = bundle.description
    plan = description.plan
    facts = {
        "bundle": str(bundle.folder),
        "notice": description.notice,
        "task": description.task,
        "dataset": plan.dataset,
        "spacing_mm": list(plan.spacing),
        "window_hu": list(plan.window),
        "trained_views": list(description.views),
        "folds": [weights.fold for weights in description.weights],
    }
    return {
        **facts,
        **describe_reconstruction(
            plan.network, views=2, shape=plan.shape, options=plan.network_options
        ),
    }


def _describe_network(
    name: str, size: tuple[int, int, int, int], options: "Mapping[str, Option]"
) -> dict[str, Any]:
    from trivox.planning.families import family_of
    from trivox.planning.topology import require_halving

    channels, patch = size[0], size[1:]
    topology, padded = family_of(name).shape(patch, (1.0, 1.0, 1.0))
    require_halving(topology, padded)
    shape = (padded[0], padded[1], padded[2])
    return {
        "network": name,
        "input": [channels, *shape],
        **count_operations(name, topology, channels, 3, shape, options),
    }


def count_operations(
    name: str,
    topology: Any,
    channels: int,
    outputs: int,
    patch: tuple[int, int, int],
    options: "Mapping[str, Option] | None" = None,
) -> dict[str, Any]:
    """Parameters, GFLOP of one forward pass (2 x multiply-accumulates, torch's own
    counter) and GiB saved for backward.
    """
    import torch

    from trivox.networks.registry import build_network

    network = build_network(
        name, topology, channels=channels, outputs=outputs, options=options
    ).to("meta")
    counted = _count(network, torch.zeros(1, channels, *patch, device="meta"))
    convention = "1 sample with deep supervision heads; GFLOP = 2 x multiply-accumulates; activations in fp32"
    return {**counted, "convention": convention}


def describe_reconstruction(
    name: str,
    *,
    views: int,
    shape: tuple[int, int, int],
    options: "Mapping[str, Option] | None" = None,
) -> dict[str, Any]:
    """Facts about a network of X-ray to CT for that many views of twice the grid's
    pixels; what it learns, not SIRT.
    """
    import torch

    from trivox.networks.xray2ct.registry import build_reconstruction_network
    from trivox.projection.attenuation import WATER_PER_MM
    from trivox.projection.geometry import Geometry, Grid
    from trivox.projection.xrays import Xrays

    grid, detector = Grid(shape, (1.0, 1.0, 1.0)), (2 * shape[0], 2 * max(shape[1:]))
    with torch.device("meta"):
        network = build_reconstruction_network(
            name,
            grid=grid,
            window=(-1024.0, 1476.0),
            water_per_mm=WATER_PER_MM,
            options=options,
            prior="none",
        )
        network.consistent = False
        geometry = Geometry.orbit(
            [180 * view / views for view in range(views)],
            detector=detector,
            pixel_mm=1.0,
        )
        xrays = Xrays.of(torch.zeros(1, views, *detector), geometry)
    convention = (
        "1 sample with deep supervision heads, without SIRT and data consistency; GFLOP = 2 x multiply-accumulates; "
        "activations in fp32"
    )
    facts = {
        "network": name,
        "grid": list(shape),
        "views": views,
        "detector": list(detector),
    }
    return {**facts, **_count(network, xrays), "convention": convention}


def _count(network: Any, given: Any) -> dict[str, Any]:
    """Runs a network once on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from trivox.networks.layers import parameters_of

    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
    ):
        network(given)
    activations = sum(size for key, size in saved.items() if key not in weights)
    return {
        "parameters": parameters_of(network),
        "gflop": round(counter.get_total_flops() / 1e9, 1),
        "saved_activation_gib": round(activations / 2**30, 2),
    }
