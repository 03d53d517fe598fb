"""What a model or a network is: `trivox.info`."""

from pathlib import Path
from typing import Any

from trivox.errors import BundleError, RecipeError
from trivox.inference.zoo.shelves import known_names
from trivox.networks.counting import count_family, count_volume_network
from trivox.networks.registry import NETWORKS, XRAY_NETWORKS
from trivox.tasks.choice import task_of
from trivox.verbs.settings import Settings, parsed
from trivox.verbs.texts import described

LARGEST_INPUT = 4096
"""Channels, or voxels along an axis, of a network that is counted."""


@described
def info(
    what: Path | str,
    *,
    input: tuple[int, int, int, int] = (1, 128, 128, 128),
    set: Settings = None,
) -> dict[str, Any]:
    """Describe a model or a network: parameters, operations, memory.

    Raises `BundleError` for what is neither, `RecipeError` for options that the network
    does not have.
    """
    name = str(what)
    if Path(what).exists() or name in known_names():
        return task_of(Path(what)).facts(Path(what))
    if name not in NETWORKS:
        raise BundleError(
            f"'{name}' is neither a run, a bundle, a ready model nor a network; ready "
            f"models: {', '.join(known_names())}; networks: "
            f"{', '.join(NETWORKS)}"
        )
    if min(input) < 1 or max(input) > LARGEST_INPUT:
        raise RecipeError(
            f"input {input!s:.60} (channels z y x) needs positive sizes up to "
            f"{LARGEST_INPUT}; try --input 1 128 128 128"
        )
    options = parsed(set)
    if name in XRAY_NETWORKS:
        views, *shape = input
        z, y, x = shape
        shape_zyx = (z, y, x)
        return {
            **count_volume_network(name, views=views, shape=shape_zyx, options=options)
        }
    return {**count_family(name, input, options)}
