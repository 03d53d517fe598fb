"""One model of an ensemble made ready: its networks with their weights, its windows and mirrored copies."""

from dataclasses import replace

from torch import nn

from trivox.errors import BundleError
from trivox.inference.bundle import Bundle
from trivox.inference.uncertainty import wake_dropout
from trivox.inference.voting import Member, scaled_spacing
from trivox.inference.windows import SlidingWindows
from trivox.learning.checkpoints import load_weights
from trivox.learning.runtime import Runtime
from trivox.networks import build_network

AXES = {"z": 0, "y": 1, "x": 2}


def load_member(
    bundle: Bundle, runtime: Runtime, mirror: bool | None, overlap: float | None, mc_samples: int
) -> Member:
    """The networks of a bundle on the runtime's device; None: mirrored copies and overlap as the bundle says."""
    description = bundle.description
    plan = description.plan
    axes = description.mirror_axes if mirror is None else ("z", "y", "x") if mirror else ()
    networks: list[nn.Module] = []
    for path in bundle.weight_files():
        network = build_network(
            plan.network, plan.topology, channels=len(plan.inputs), outputs=plan.labels.output_channels,
            options=plan.network_options,
        )  # fmt: skip
        try:
            network.load_state_dict(load_weights(path))
        except RuntimeError as error:
            raise BundleError(f"{path}: weights do not fit the plan of the bundle; export it again") from error
        networks.append(network.to(runtime.device).eval())
        if mc_samples:
            wake_dropout(network)
    windows = SlidingWindows(
        networks, plan.patch_size, plan.labels.output_channels, runtime,
        overlap=description.overlap if overlap is None else overlap,
        mirror_axes=tuple(AXES[a] for a in axes if plan.patch_size[AXES[a]] > 1),
    )  # fmt: skip
    return Member(plan, windows, description.temperature, mc_samples)


def scaled_member(member: Member, scale: float) -> Member:
    """The same networks looking at another spacing."""
    return replace(member, plan=member.plan.model_copy(update={"spacing": scaled_spacing(member.plan, scale)}))
