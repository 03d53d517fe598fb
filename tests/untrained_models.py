"""Bundles whose networks were never trained, and scans for them: quick to make, and no
two voxels alike.
"""

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.networks.registry import build_network
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.planning.topology import Topology, pooling
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SPACING = 2.0
SCANNED = 1.4
"""Spacing of the networks and of the scans, mm."""
REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "middle": (3,)}


def plan_of(*, patch=(16, 16, 16), dropout=0.0, regions=False):
    kernels, strides, padded = pooling(patch, (SPACING,) * 3)
    stages = len(strides)
    topology = Topology(
        kernels=kernels,
        strides=strides,
        features=tuple(4 * 2**stage for stage in range(stages)),
        encoder_blocks=(1,) * stages,
        decoder_blocks=(1,) * (stages - 1),
    )
    labels = {"labels": {"a": 1, "b": 2, "c": 3}}
    if regions:
        labels |= {"regions": REGIONS, "region_order": (1, 2, 3)}
    scheme = LabelScheme(**labels)
    return Plan(
        dataset="untrained",
        task="segmentation",
        channels=("MRI",),
        labels=scheme,
        normalisations=(Normalisation(scheme="z-score"),),
        spacing=(SPACING,) * 3,
        median_shape=(32, 32, 32),
        patch_size=padded,
        batch_size=2,
        batch_dice=False,
        network="nnunet-plain",
        network_options={"dropout": dropout} if dropout else {},
        topology=topology,
        memory=forecast_memory(
            topology, padded, batch=2, channels=1, outputs=scheme.output_channels
        ),
    )


def balance(network, plan):
    """Take the mean of each logit off, so that every label stands somewhere."""
    noise = np.random.default_rng(1).normal(size=plan.patch_size)
    smooth = gaussian_filter(noise, 2).astype(np.float32)
    window = torch.from_numpy(smooth / smooth.std())[None, None]
    with torch.no_grad():
        logits = network.eval()(window)
        network.heads[0].bias -= logits.mean((0, 2, 3, 4))


def untrained(plan, *, seed=3, balanced=False):
    """The network of a plan, with structures of several voxels."""
    torch.manual_seed(seed)
    network = build_network(
        plan.network,
        plan.topology,
        channels=1,
        outputs=plan.labels.output_channels,
        deep_supervision=False,
        options=plan.network_options,
    )
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    if balanced:
        balance(network, plan)
    return network


def write_untrained(folder, *, balanced=False, **options):
    """A bundle in `folder`; returns it."""
    plan = plan_of(**options)
    network = untrained(plan, balanced=balanced)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    description = LabelDescription(
        task=plan.task, plan=plan, mirror_axes=("z", "y", "x")
    )
    write_bundle(folder / "bundle", description, {"0": folder / "weights.safetensors"})
    return folder / "bundle"


def write_scans(folder, *shapes):
    """Scans `scan_0` and so on of these voxels; returns the cases."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, shape in enumerate(shapes):
        noise = np.random.default_rng(number).normal(size=shape)
        image = 10 * gaussian_filter(noise, 2).astype(np.float32) + 5
        file = folder / f"scan_{number}.nii.gz"
        write_volume(file, Volume(image[None], affine_from_spacing((SCANNED,) * 3)))
        cases.append(Case(name=f"scan_{number}", images=(file,)))
    return cases
